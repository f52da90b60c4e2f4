"""Made trainings in which ranks differ: healthy ones, by their nature, and others by the fault of one rank. Pure."""

import numpy as np

from .draft import RANKS, Array, Change, Draft

MANY = 16


def uneven_ranks(made: Draft) -> None:
    """Machines of several kinds, one of which has less to do, and shards of data that are not alike."""
    _ranks(made)
    for rank in range(RANKS):
        own = made.own[rank]
        own["compute_s"] = 0.7 * made.rng.uniform(0.9, 1.1) * _jitter(made, 0.02) * (0.6 if rank == 1 else 1.0)
        own["local_grad_norm"] = 2.0 * made.norm * made.rng.uniform(0.5, 3.0) * _jitter(made, 0.15)


def jittery_ranks(made: Draft) -> None:
    """Steps of very uneven length on every rank, and now and then one of ten times that."""
    _ranks(made, MANY)
    for rank in range(MANY):
        stalls = np.where(made.rng.random(made.rows) < 0.02, 10.0, 1.0)
        made.own[rank]["compute_s"] = 0.7 * _jitter(made, 0.25) * stalls
        made.own[rank]["data_wait_s"] = 0.01 * _jitter(made, 1.0)


def single_slow_steps(made: Draft) -> None:
    """One rank compiles first, rank 0 writes checkpoints, and single steps take long."""
    _ranks(made)
    made.own[2]["compute_s"][:3] *= 100.0
    made.own[0]["compute_s"][99::100] *= 8.0
    for row in made.rng.integers(200, made.rows, size=20):
        made.own[int(made.rng.integers(RANKS))]["compute_s"][row] *= 30.0


def noisy_shards(made: Draft) -> None:
    """Gradients that differ much from rank to rank, with heavy tails, and single batches far out on any of them."""
    _ranks(made)
    for rank in range(RANKS):
        noise = np.exp(0.3 * made.rng.standard_t(4, made.rows))
        hard = np.where(made.rng.random(made.rows) < 0.003, 20.0, 1.0)
        made.own[rank]["local_grad_norm"] = 2.0 * made.norm * noise * hard


def sharded(made: Draft) -> None:
    """Every rank has its own part of the weights, and tells the norms of that."""
    _ranks(made)
    for rank in range(RANKS):
        share = made.rng.uniform(0.2, 0.8)
        made.own[rank] |= {"param_norm": share * made.own[rank]["param_norm"], "grad_norm": share * made.norm}


def ranks_restarted(made: Draft) -> None:
    """Stopped and started again on other machines: another rank is the slower one, and all fill their caches."""
    _ranks(made)
    row = made.onset()
    made.restarts.append(row)
    back = int(made.rng.integers(10, 60))
    made.steps = [*range(row), *range(row - back, row - back + made.rows - row)]
    weights = np.linspace(100.0, 130.0, made.rows)
    weights[row:] -= weights[row] - weights[row - back]
    for rank in range(RANKS):
        own = made.own[rank]
        own["param_norm"] = weights * _jitter(made, 1e-7)
        own["compute_s"][row : row + 5] *= made.rng.uniform(2.0, 20.0)
        own["compute_s"][row:] *= made.rng.uniform(0.9, 1.1)
        own["local_grad_norm"][row:] *= made.rng.uniform(0.5, 2.0)


def late_rank(made: Draft) -> None:
    """One rank is late, and it shows in the collectives only: computing is timed with the waiting in it."""
    _ranks(made)
    first, slow, late = made.onset(), int(made.rng.integers(RANKS)), made.rng.uniform(0.6, 1.5)
    for rank in range(RANKS):
        own = made.own[rank]
        own["comm_s"] = 0.2 * _jitter(made, 0.05)
        own["compute_s"] = 1.0 * _jitter(made, 0.01)
        own["compute_s"][first:] += late
        if rank != slow:
            own["comm_s"][first:] += late
    made.step_seconds[first:] += late
    made.wrong("late_rank", first, made.rows)


def slow_loader(made: Draft) -> None:
    """One rank waits for its data, and the others, in what is timed as computing, for that rank."""
    _ranks(made)
    first, slow, late = made.onset(), int(made.rng.integers(RANKS)), made.rng.uniform(0.6, 1.5)
    for rank in range(RANKS):
        own = made.own[rank]
        own["data_wait_s"] = 0.01 * _jitter(made, 0.5)
        own["compute_s"] = 1.0 * _jitter(made, 0.01)
        own.pop("comm_s")
        own["data_wait_s" if rank == slow else "compute_s"][first:] += late
    made.step_seconds[first:] += late
    made.wrong("slow_loader", first, made.rows)


def one_of_many_struck(made: Draft) -> None:
    """One of sixteen ranks computes wrong gradients at every eighth step."""
    _ranks(made, MANY)
    first, bad = made.onset(), int(made.rng.integers(MANY))
    made.own[bad]["local_grad_norm"][first::8] *= 10.0 ** made.rng.uniform(1.0, 4.0)
    made.wrong("one_of_many_struck", first, made.rows)


def _ranks(made: Draft, ranks: int = RANKS) -> None:
    """Ranks that are alike and well: their times, weights that are the same but for the last bits, their gradients."""
    made.ranks = ranks
    weights = np.linspace(100.0, 130.0, made.rows)
    for rank in range(ranks):
        made.own[rank] = {
            "data_wait_s": 0.01 * _jitter(made, 0.3),
            "compute_s": 0.7 * _jitter(made, 0.02),
            "comm_s": 0.3 * _jitter(made, 0.05),
            "param_norm": weights * _jitter(made, 1e-7),
            "local_grad_norm": 2.0 * made.norm * _jitter(made, 0.1),
        }


def _jitter(made: Draft, sigma: float) -> Array:
    jitter: Array = np.exp(sigma * made.rng.standard_normal(made.rows))
    return jitter


RANK_HEALTHY: dict[str, Change] = {
    "uneven ranks": uneven_ranks,
    "jittery ranks": jittery_ranks,
    "single slow steps": single_slow_steps,
    "noisy shards": noisy_shards,
    "sharded": sharded,
    "ranks restarted": ranks_restarted,
}
RANK_FAULTS: dict[str, Change] = {change.__name__: change for change in (late_rank, slow_loader, one_of_many_struck)}
