"""Made trainings whose failures are known: healthy ones of many kinds, and the same with one thing gone wrong. Pure."""

import zlib
from collections.abc import Collection

import numpy as np

from .draft import RANKS, ROWS, Change, Draft, draft
from .healthy import HEALTHY
from .learning_families import LEARNING_FAULTS
from .pace_families import PACE_FAULTS, cut
from .rank_families import RANK_FAULTS
from .series import Column, Series


def transient_spike(made: Draft) -> None:
    """Up by 0.4 to 2 nats within three steps, and back over some tens."""
    first, height = made.onset(), made.rng.uniform(0.4, 2.0)
    length = int(made.rng.integers(8, 60))
    shape = np.minimum(1.0, np.arange(1, length + 1) / made.rng.integers(1, 3)) * np.exp(
        -np.arange(length) / (length / 3)
    )
    made.loss[first : first + length] += height * shape / shape.max()
    made.norm[first : first + length] *= 1.0 + made.rng.uniform(0.5, 6.0) * shape
    made.wrong("transient_spike", first, first + length)


def sustained_spike(made: Draft) -> None:
    """Up by 0.4 to 2 nats, and never back."""
    first = made.onset()
    made.loss[first:] += made.rng.uniform(0.4, 2.0)
    made.wrong("sustained_spike", first, made.rows)


def slow_divergence(made: Draft) -> None:
    """Up by 0.5 to 2 nats within 200 steps, and on."""
    first = made.onset()
    after = np.arange(made.rows - first)
    made.loss[first:] += made.rng.uniform(0.5, 2.0) * (after / 200.0) ** made.rng.uniform(1.0, 1.5)
    made.wrong("slow_divergence", first, made.rows)


def fast_divergence(made: Draft) -> None:
    """Twice as far off every three steps, up to the loss of chance and beyond."""
    first = made.onset()
    after = np.arange(made.rows - first)
    made.loss[first:] += np.minimum(0.05 * 2.0 ** (after / 3.0), made.rng.uniform(5.0, 50.0))
    made.norm[first:] *= np.minimum(1.3**after, 1e4)
    made.wrong("fast_divergence", first, made.rows)


def nan(made: Draft) -> None:
    first = made.onset()
    made.loss[first:] = np.nan
    made.norm[first:] = np.nan
    made.wrong("nan", first, made.rows)


def inf(made: Draft) -> None:
    first = made.onset()
    made.loss[first:] = np.inf
    made.wrong("inf", first, made.rows)


def gradient_explosion(made: Draft) -> None:
    """Norms ten to a thousand times as large for some steps, the loss as it was."""
    first, length = made.onset(), int(made.rng.integers(4, 40))
    made.norm[first : first + length] *= 10.0 ** made.rng.uniform(1.0, 3.0)
    made.wrong("gradient_explosion", first, first + length)


def vanishing_gradient(made: Draft) -> None:
    """Norms fall to a thousandth within 150 steps, and the loss stands still."""
    first = made.onset()
    after = np.arange(made.rows - first)
    made.norm[first:] *= np.maximum(10.0 ** (-after / 50.0), 1e-3)
    made.loss[first:] = made.loss[first]
    made.wrong("vanishing_gradient", first, made.rows)


def plateau(made: Draft) -> None:
    """The loss stops falling an eighth of the way, long before it is done."""
    first = made.rows // 8
    made.loss[first:] = made.loss[first]
    made.wrong("plateau", first, made.rows)


def overfitting(made: Draft) -> None:
    """The validation loss turns while the training loss goes on falling."""
    first = made.onset()
    after = np.arange(made.rows - first)
    made.gap = np.full(made.rows, 0.05)
    made.gap[first:] += 0.8 * (1 - np.exp(-after / 400.0))
    made.wrong("overfitting", first, made.rows)


def throughput_sag(made: Draft) -> None:
    first = made.onset()
    share = made.rng.uniform(0.4, 0.75)
    made.throughput[first:] *= share
    made.step_seconds[first:] /= share
    made.wrong("throughput_sag", first, made.rows)


def straggler(made: Draft) -> None:
    """One rank computes 1.5 to 3 times as long; the others wait for it in their collectives."""
    made.ranks = RANKS
    first, slow = made.onset(), int(made.rng.integers(RANKS))
    factor = made.rng.uniform(1.5, 3.0)
    usual, waiting = 0.7, 0.3
    for rank in range(RANKS):
        compute = usual * (1.0 + 0.02 * made.rng.standard_normal(made.rows))
        comm = waiting * (1.0 + 0.05 * made.rng.standard_normal(made.rows))
        if rank == slow:
            compute[first:] *= factor
        else:
            comm[first:] += usual * (factor - 1.0)
        made.own[rank] = {"compute_s": compute, "comm_s": comm}
    made.step_seconds[first:] += usual * (factor - 1.0)
    made.wrong("straggler", first, made.rows)


def hang(made: Draft) -> None:
    """No step ends any more."""
    cut(made, made.onset())
    made.silence = 900.0
    made.wrong("hang", made.rows - 1, made.rows)


def desynchronised_rank(made: Draft) -> None:
    """The weights of one rank are others than those of the rest: what must be equal on all ranks is not."""
    made.ranks = RANKS
    first, apart = made.onset(), int(made.rng.integers(RANKS))
    weights = np.linspace(100.0, 130.0, made.rows)
    for rank in range(RANKS):
        norm = weights.copy()
        if rank == apart:
            norm[first:] *= 1.0 + 1e-4 * np.arange(1, made.rows - first + 1)
        made.own[rank] = {"param_norm": norm}
    made.wrong("desynchronised_rank", first, made.rows)


def silent_corruption(made: Draft) -> None:
    """One rank computes wrong gradients: its own norm is now and then far from the others'."""
    made.ranks = RANKS
    first, bad = made.onset(), int(made.rng.integers(RANKS))
    for rank in range(RANKS):
        local = 2.0 * made.norm * np.exp(0.1 * made.rng.standard_normal(made.rows))
        if rank == bad:
            struck = made.rng.random(made.rows) < 0.2
            struck[:first] = False
            struck[first] = True
            local[struck] *= 10.0 ** made.rng.uniform(1.0, 4.0, int(struck.sum()))
        made.own[rank] = {"local_grad_norm": local}
    made.wrong("silent_corruption", first, made.rows)


FAULTS: dict[str, Change] = (
    {
        change.__name__: change
        for change in (
            transient_spike,
            sustained_spike,
            slow_divergence,
            fast_divergence,
            nan,
            inf,
            gradient_explosion,
            vanishing_gradient,
            plateau,
            overfitting,
            throughput_sag,
            straggler,
            hang,
            desynchronised_rank,
            silent_corruption,
        )
    }
    | PACE_FAULTS
    | RANK_FAULTS
    | LEARNING_FAULTS
)


BACKGROUNDS = (
    "plain", "cosine schedule", "step schedule", "warmup", "gradient accumulation", "evaluation pauses",
    "batch size changed", "hard batches", "epochs", "sparse log",
)  # fmt: skip
"""The healthy families to which faults happen, one after the other: those in which a fault can be seen at all."""


def healthy_series(seeds: int, rows: int = ROWS, only: Collection[str] = ()) -> list[Series]:
    """So many of every healthy family, or of those named."""
    return [
        _finished(made, f"{family} {seed}", family, seed)
        for family, change in HEALTHY.items()
        if not only or family in only
        for seed in range(seeds)
        for made in [_changed(draft(_seed(family, seed), rows), change)]
    ]


def faulty_series(seeds: int, rows: int = ROWS, only: Collection[str] = ()) -> list[Series]:
    """So many of every fault, or of those named, each on one of the `BACKGROUNDS` after the other."""
    return [
        _finished(made, f"{family} {seed}", family, seed)
        for family, change in FAULTS.items()
        if not only or family in only
        for seed in range(seeds)
        for made in [_changed(draft(_seed(family, seed), rows), HEALTHY[BACKGROUNDS[seed % len(BACKGROUNDS)]], change)]
    ]


def _seed(family: str, seed: int) -> int:
    """By its name, so that another family beside it changes nothing."""
    return zlib.crc32(f"{family} {seed}".encode())


def _changed(made: Draft, *changes: Change) -> Draft:
    for change in changes:
        change(made)
    return made


def _finished(made: Draft, name: str, family: str, seed: int) -> Series:
    loss: Column = (made.loss + made.noise).tolist()
    shared: dict[str, Column] = {
        "loss": loss,
        "grad_norm": made.norm.tolist(),
        "lr": made.rate.tolist(),
        "tokens_per_second": made.throughput.tolist(),
    }
    return Series(
        name=name,
        family=family,
        group=f"seed {seed}",
        steps=made.steps,
        seconds=np.cumsum(made.step_seconds).tolist(),
        ranks=[_rank(made, shared, rank) for rank in range(made.ranks)],
        incidents=tuple(made.incidents),
        changes=tuple(made.changes),
        restarts=tuple(made.restarts),
        pauses=tuple(made.pauses),
        evaluations=_evaluations(made),
        silence=made.silence,
    )


def _rank(made: Draft, shared: dict[str, Column], rank: int) -> dict[str, Column]:
    own: dict[str, Column] = {name: values.tolist() for name, values in made.own.get(rank, {}).items()}
    if rank == 0:
        told = shared | own
    else:
        scatter = 1.0 + 0.01 * made.rng.standard_normal(made.rows)
        told = {"loss": ((made.loss + made.noise) * scatter).tolist(), "grad_norm": shared["grad_norm"], **own}
    if made.knows_loss not in (None, rank):
        del told["loss"]
    return told


def _evaluations(made: Draft) -> dict[int, float]:
    if made.gap is None:
        return {}
    rows = range(49, made.rows, 50)
    return {row: float(made.loss[row] + made.gap[row] + 0.01 * made.rng.standard_normal()) for row in rows}
