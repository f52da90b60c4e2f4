"""What the loss detector sees of a series, step by step, kept so that bounds can be tried without seeing it again.

`record` runs the real detectors over a series once; `alarms_of` says what they would have raised with other bounds. The
two differ in one thing from a run under those bounds: nothing is learned while a run is unstable, and when that was is
what the present bounds say. So a choice is measured again with `python -m benchmarks.detection` before it is believed.
Pure, but for the bounds of `drift`, which are set while a trace is recorded. Called by `choose`.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pilothouse.governance.conditions import STABLE, Condition, hysteresis
from pilothouse.stream_processors import features
from pilothouse.stream_processors.detectors import drift, loss
from pilothouse.stream_processors.detectors.bounds import ABSTAINING
from pilothouse.stream_processors.detectors.loss import LossState
from pilothouse.stream_processors.detectors.sample import StepSample
from pilothouse.stream_processors.features import FeatureState
from pilothouse.stream_processors.verdicts import OVERFLOWS

from .series import Alarm, Series

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bounds:
    """The loss detector's, by the names of `detectors.loss`."""

    TWO_Z: float = loss.TWO_Z
    THREE_Z: float = loss.THREE_Z
    LEAST_OF_THREE: float = loss.LEAST_OF_THREE
    JOINT_TWO_Z: float = loss.JOINT_TWO_Z
    JOINT_THREE_Z: float = loss.JOINT_THREE_Z
    STRONG_Z: float = loss.STRONG_Z
    STRONG_GRAD_Z: float = loss.STRONG_GRAD_Z
    COINCIDENCE: float = loss.COINCIDENCE
    LONE_Z: float = loss.LONE_Z
    LONE_RISE: float = loss.LONE_RISE
    LONE_JOINT_Z: float = loss.LONE_JOINT_Z
    LONE_GRAD_Z: float = loss.LONE_GRAD_Z
    LEAST_RISE: float = loss.LEAST_RISE


class Seen(NamedTuple):
    """One row that has a z score: those of the loss at this step and the two before, and of the gradient norm; the rise
    in logarithms (infinite for a loss that has none: any rise matters then), how many steps in a row stand out and how
    often steps do, whether the row stands for many steps, how far the loss has climbed, and the features' own
    `instability`.
    """

    row: float
    z: float
    last: float
    earlier: float
    grad_z: float
    grad_last: float
    grad_earlier: float
    rise: float
    in_a_row: float
    stray_rate: float
    alone: float
    climb: float
    instability: float


class Before(NamedTuple):
    """What was known before a row."""

    earlier: float
    last: float
    grad_earlier: float
    grad_last: float
    stray_rate: float


@dataclass(frozen=True, slots=True)
class Trace:
    """One series under one pair of bounds of `drift`. `seen` has a column for each of `Seen`, a row for each row."""

    data: str
    series: Series
    seen: Array
    nonfinite: tuple[int, ...]


@contextmanager
def drifting(**bounds: float) -> Iterator[None]:
    """Within it, `drift` has these bounds."""
    module: Any = drift
    before = {name: getattr(module, name) for name in bounds}
    try:
        for name, value in bounds.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def record(data: str, series: Series) -> Trace:
    """Run the detectors over the rows of rank 0, restarts and announced changes included."""
    state, stable = FeatureState(), Condition("Stable")
    seen: list[Seen] = []
    nonfinite = []
    for row, sample in enumerate(_samples(series)):
        if row in series.restarts:
            features.rewind(state, sample.step - 1)
        if row in series.changes:
            features.restart(state)
        before = _before(state.loss)
        told = features.observe(state, sample, learning=stable.status != "False")
        if sample.nonfinite and told.get("overflows", OVERFLOWS) >= OVERFLOWS:
            nonfinite.append(row)
        if "loss_z" in told:
            seen.append(_seen(row, told, before, state))
            stable.status = hysteresis(stable, STABLE, told["instability"])
    return Trace(data, series, np.array(seen, dtype=float).reshape(-1, len(Seen._fields)).T, tuple(nonfinite))


def _samples(series: Series) -> Iterator[StepSample]:
    columns = zip(series.steps, series.column("loss"), series.column("grad_norm"), series.column("lr"), strict=True)
    for step, loss_, norm, rate in columns:
        told = {} if rate is None else {"lr": rate}
        bad = sum(1 for value in (loss_, norm) if value is not None and not math.isfinite(value))
        lost = int(loss_ is not None and not math.isfinite(loss_))
        yield StepSample(
            step=step, at=0, ranks=1, loss=loss_, grad_norm=norm, nonfinite=bad, nonfinite_losses=lost, told=told
        )


def _before(state: LossState) -> Before:
    usual = state.recent.baseline(loss.floor(state))
    rate = loss.stray_rate(state, usual, state.in_a_row) if usual is not None else 0.0
    return Before(*state.zs, *state.grad_zs, rate)


def _seen(row: int, told: Mapping[str, float], before: Before, state: FeatureState) -> Seen:
    return Seen(
        row=row,
        z=told["loss_z"],
        last=before.last,
        earlier=before.earlier,
        grad_z=told.get("grad_z", 0.0),
        grad_last=before.grad_last,
        grad_earlier=before.grad_earlier,
        rise=math.log(told["loss"] / told["loss_baseline"]) if state.loss.positive else math.inf,
        in_a_row=state.loss.in_a_row,
        stray_rate=before.stray_rate,
        alone=float(state.loss.alone),
        climb=told["loss_drift"],
        instability=told["instability"],
    )


def instability(trace: Trace, bounds: Bounds) -> Array:
    """The feature of that name at each row seen, under other bounds."""
    seen: Any = Seen(*trace.seen)
    jump: Array = np.where((seen.last > 0.0) & (seen.z > 0.0), _in_a_row(seen, bounds), 0.0)
    lone = np.maximum(
        seen.z / bounds.LONE_Z, np.minimum(seen.z / bounds.LONE_JOINT_Z, seen.grad_z / bounds.LONE_GRAD_Z)
    )
    jump = np.maximum(jump, np.where((seen.alone > 0.0) & (seen.rise >= bounds.LONE_RISE), lone, 0.0))
    jump = np.where((jump < 1.0) | _is_enough(seen, bounds), jump, ABSTAINING)
    large: Array = np.where(seen.rise >= bounds.LEAST_RISE, jump, np.minimum(jump, ABSTAINING))
    joined: Array = np.maximum(large, seen.climb)
    return joined


def _in_a_row(seen: Any, bounds: Bounds) -> Array:
    two, grad_two = np.minimum(seen.last, seen.z), np.minimum(seen.grad_last, seen.grad_z)
    three, grad_three = np.minimum(seen.earlier, two), np.minimum(seen.grad_earlier, grad_two)
    mean = sum(np.minimum(z, bounds.TWO_Z) for z in (seen.earlier, seen.last, seen.z)) / 3.0
    shares = [
        two / bounds.TWO_Z,
        np.minimum(mean / bounds.THREE_Z, three / bounds.LEAST_OF_THREE),
        np.minimum(two, grad_two) / bounds.JOINT_TWO_Z,
        np.minimum(three, grad_three) / bounds.JOINT_THREE_Z,
        np.minimum(two / bounds.STRONG_Z, grad_two / bounds.STRONG_GRAD_Z),
    ]
    most: Array = np.maximum(np.max(shares, axis=0), 0.0)
    return most


def _is_enough(seen: Any, bounds: Bounds) -> NDArray[np.bool_]:
    needed = _needed(seen.stray_rate, bounds.COINCIDENCE)
    is_huge = (seen.z >= loss.HUGE_Z) & (seen.rise >= loss.HUGE_RISE) & (seen.rise < math.inf)
    is_enough: NDArray[np.bool_] = (seen.in_a_row >= needed) | (
        (seen.alone > 0.0) & ((needed <= loss.FEWEST) | is_huge)
    )
    return is_enough


def _needed(rate: Array, coincidence: float) -> Array:
    with np.errstate(divide="ignore"):
        many: Array = np.ceil(math.log(coincidence) / np.log(np.minimum(rate, 0.5)))
    return np.where(rate**loss.FEWEST <= coincidence, loss.FEWEST, np.minimum(many, loss.MOST_IN_A_ROW))


def alarms_of(trace: Trace, bounds: Bounds, factor: float = 1.0) -> list[Alarm]:
    """The alarms of `Stable`, with its threshold times `factor`, and of `Finite`."""
    alarms = [Alarm(row, row, "Finite") for row in trace.nonfinite]
    x = instability(trace, bounds)
    at = 0
    rows = trace.seen[0].astype(int)
    high = np.flatnonzero(x >= STABLE.enter * factor)
    while (later := high[high >= at]).size:
        begun = int(later[0])
        at = _calm_again(x, begun, factor)
        alarms.append(Alarm(int(rows[begun]), int(rows[min(at, len(rows) - 1)]), "Stable"))
    return alarms


def _calm_again(x: Array, begun: int, factor: float) -> int:
    """The index of the row that ends the alarm; the length where none does."""
    calm = 0
    for index in range(begun, len(x)):
        calm = calm + 1 if x[index] < STABLE.exit * factor else 0
        if calm >= STABLE.keep_for:
            return index
    return len(x)
