"""Made trainings whose failures are known: healthy ones of many kinds, and the same with one thing gone wrong. Pure.

The healthy base is a language model's: a loss that falls as a power law, noise that is heavy-tailed and correlated from
step to step, a gradient norm that scatters in its logarithm. Their sizes are those of public runs: noise of 0.5 to 3%
of the loss, an autocorrelation up to 0.6, Student's t with 4 degrees of freedom. Everything comes from the seed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .series import Column, Incident, Series

ROWS = 3_000
RANKS = 4
FAULT_BETWEEN = (0.4, 0.8)
"""Where in a training something goes wrong, as a share of its rows."""

Array = NDArray[np.float64]


@dataclass
class Draft:
    """A training that is being made. Arrays have a value a row; `loss`, `norm` and `rate` are those of all ranks."""

    rng: np.random.Generator
    rows: int
    loss: Array
    noise: Array
    norm: Array
    rate: Array
    throughput: Array
    step_seconds: Array
    incidents: list[Incident] = field(default_factory=list)
    changes: list[int] = field(default_factory=list)
    restarts: list[int] = field(default_factory=list)
    pauses: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    own: dict[int, dict[str, Array]] = field(default_factory=dict)
    """What one rank logs otherwise than the rest."""
    ranks: int = 1
    gap: Array | None = None
    """By how much the validation loss is above the training loss without noise; None: no evaluations."""
    silence: float = 0.0

    def onset(self) -> int:
        low, high = FAULT_BETWEEN
        return int(self.rng.uniform(low, high) * self.rows)

    def wrong(self, kind: str, first: int, last: int) -> None:
        self.incidents.append(Incident(kind, first, min(last, self.rows - 1)))


Change = Callable[[Draft], None]


def draft(seed: int, rows: int = ROWS) -> Draft:
    """A healthy training without anything particular."""
    rng = np.random.default_rng(seed)
    at = np.arange(rows)
    start, floor = rng.uniform(6.0, 11.0), rng.uniform(1.5, 3.5)
    trend = floor + (start - floor) * (1.0 + at / rng.uniform(5.0, 60.0)) ** -rng.uniform(0.35, 0.8)
    noise = trend * rng.uniform(0.005, 0.03) * _correlated(rng, rows, rng.uniform(0.0, 0.6))
    decay = 0.3 + 2.0 * np.exp(-at / rng.uniform(50.0, 400.0))
    norm = decay * np.exp(rng.uniform(0.05, 0.3) * _correlated(rng, rows, rng.uniform(0.0, 0.5)))
    rate = 3e-4 * np.minimum(1.0, (at + 1) / 100)
    speed = rng.uniform(1e4, 1e6)
    throughput = speed * (1.0 + 0.02 * rng.standard_normal(rows))
    throughput[0] *= 0.2
    seconds = np.full(rows, 1.0)
    return Draft(rng, rows, trend, noise, norm, rate, throughput, seconds, steps=list(range(rows)))


def _correlated(rng: np.random.Generator, rows: int, correlation: float) -> Array:
    """Noise of unit variance: Student's t of 4 degrees of freedom through a first-order recursion."""
    shocks = rng.standard_t(4, rows) / math.sqrt(2.0)
    noise = np.empty(rows)
    value = 0.0
    for row in range(rows):
        value = correlation * value + math.sqrt(1.0 - correlation**2) * shocks[row]
        noise[row] = value
    return noise


# ------------------------------------------------------------------------------------------------------- healthy


def plain(_: Draft) -> None:
    """Nothing particular."""


def cosine(made: Draft) -> None:
    at = np.arange(made.rows)
    made.rate *= 0.1 + 0.45 * (1 + np.cos(np.pi * at / made.rows))


def step_schedule(made: Draft) -> None:
    """The rate falls by ten twice, and the loss with it."""
    for share in (0.5, 0.75):
        row = int(share * made.rows)
        made.rate[row:] *= 0.1
        fall = 0.08 * made.loss[row] * (1 - np.exp(-np.arange(made.rows - row) / 30.0))
        made.loss[row:] -= fall


def warmup(made: Draft) -> None:
    """A long warmup: flat at first, then a fall, with a bump as the rate nears its top."""
    rows = 400
    made.rate[:rows] = made.rate[-1] * np.arange(1, rows + 1) / rows
    late = np.concatenate([np.full(60, made.loss[0]), made.loss])[: made.rows]
    made.loss = late
    made.loss[150:400] += 0.03 * made.loss[150:400] * np.sin(np.linspace(0, np.pi, 250))


def resumed(made: Draft) -> None:
    """Stopped and started again, a little before where it was; the first steps are noisier."""
    row = made.onset()
    made.restarts.append(row)
    back = int(made.rng.integers(10, 60))
    made.steps = [*range(row), *range(row - back, row - back + made.rows - row)]
    made.noise[row : row + 10] *= 1.5


def accumulated(made: Draft) -> None:
    """Many micro-batches a step: little noise."""
    made.noise *= 0.25


def evaluated(made: Draft) -> None:
    """An evaluation of two minutes every 300 steps, announced."""
    made.pauses += range(299, made.rows - 1, 300)
    made.step_seconds[[row + 1 for row in made.pauses]] += 120.0


def batch_size(made: Draft) -> None:
    """Four times the batch, announced: half the noise."""
    row = made.onset()
    made.changes.append(row)
    made.noise[row:] *= 0.5
    made.norm[row:] *= 0.7


def data_mix(made: Draft) -> None:
    """Another mixture of data, announced: another level."""
    row = made.onset()
    made.changes.append(row)
    made.loss[row:] += made.rng.choice([-1.0, 1.0]) * made.rng.uniform(0.1, 0.4)


def hard_batches(made: Draft) -> None:
    """Single steps far out, as a hard batch makes them: what comes after is as before."""
    for row in made.rng.choice(np.arange(200, made.rows), size=4, replace=False):
        made.loss[row] += made.rng.uniform(0.3, 1.5)
        made.incidents.append(Incident("data_outlier", int(row), int(row), must=False, may=False))


HEALTHY: dict[str, Change] = {
    "plain": plain,
    "cosine schedule": cosine,
    "step schedule": step_schedule,
    "warmup": warmup,
    "resumed": resumed,
    "gradient accumulation": accumulated,
    "evaluation pauses": evaluated,
    "batch size changed": batch_size,
    "data mix changed": data_mix,
    "hard batches": hard_batches,
}


# -------------------------------------------------------------------------------------------------------- faults


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
    """The loss stops falling a tenth of the way, long before it is done."""
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
    rows = made.onset()
    for name in ("loss", "noise", "norm", "rate", "throughput", "step_seconds"):
        setattr(made, name, getattr(made, name)[:rows])
    made.rows, made.steps, made.silence = rows, made.steps[:rows], 900.0
    made.wrong("hang", rows - 1, rows)


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


FAULTS: dict[str, Change] = {
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


def healthy_series(seeds: int, rows: int = ROWS) -> list[Series]:
    """So many of every healthy family."""
    return [
        _finished(made, f"{family} {seed}", family, seed)
        for number, (family, change) in enumerate(HEALTHY.items())
        for seed in range(seeds)
        for made in [_changed(draft(1_000 * number + seed, rows), change)]
    ]


def faulty_series(seeds: int, rows: int = ROWS) -> list[Series]:
    """So many of every fault, each on one healthy family after the other."""
    backgrounds = [change for family, change in HEALTHY.items() if family not in {"resumed", "data mix changed"}]
    return [
        _finished(made, f"{family} {seed}", family, seed)
        for number, (family, change) in enumerate(FAULTS.items(), start=len(HEALTHY))
        for seed in range(seeds)
        for made in [_changed(draft(1_000 * number + seed, rows), backgrounds[seed % len(backgrounds)], change)]
    ]


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
        return shared | own
    scatter = 1.0 + 0.01 * made.rng.standard_normal(made.rows)
    return {"loss": ((made.loss + made.noise) * scatter).tolist(), "grad_norm": shared["grad_norm"], **own}


def _evaluations(made: Draft) -> dict[int, float]:
    if made.gap is None:
        return {}
    rows = range(49, made.rows, 50)
    return {row: float(made.loss[row] + made.gap[row] + 0.01 * made.rng.standard_normal()) for row in rows}
