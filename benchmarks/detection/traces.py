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
    JOINT_Z: float = loss.JOINT_Z
    JOINT_GRAD_Z: float = loss.JOINT_GRAD_Z
    JOINT_RISE: float = loss.JOINT_RISE
    JOINT_TWO_Z: float = loss.JOINT_TWO_Z
    HUGE_Z: float = loss.HUGE_Z
    HUGE_RISE: float = loss.HUGE_RISE
    LONE_Z: float = loss.LONE_Z
    LONE_RISE: float = loss.LONE_RISE
    LEAST_RISE: float = loss.LEAST_RISE


class Seen(NamedTuple):
    """One row that has a z score: that of the loss, of the two steps before, of the gradient, the
    lesser of both at the step before; the rise in logarithms
    (infinite for a loss that has none: any rise matters then), whether the row stands for many steps, how far the
    loss has climbed, and the features' own `instability`.
    """

    row: float
    z: float
    last: float
    earlier: float
    grad_z: float
    joint: float
    rise: float
    huge: float
    alone: float
    climb: float
    instability: float


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
        before = (*state.loss.zs, state.loss.joint)
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


def _seen(row: int, told: Mapping[str, float], before: tuple[float, float, float], state: FeatureState) -> Seen:
    is_log = state.loss.positive
    rise = math.log(told["loss"] / told["loss_baseline"]) if is_log else math.inf
    return Seen(
        row=row,
        z=told["loss_z"],
        last=before[1],
        earlier=before[0],
        grad_z=told.get("grad_z", 0.0),
        joint=before[2],
        rise=rise,
        huge=rise if is_log else -math.inf,
        alone=float(state.loss.alone),
        climb=told["loss_drift"],
        instability=told["instability"],
    )


def instability(trace: Trace, bounds: Bounds) -> Array:
    """The feature of that name at each row seen, under other bounds."""
    seen: Any = Seen(*trace.seen)
    shares = [
        np.minimum(seen.last, seen.z) / bounds.TWO_Z,
        np.minimum(np.minimum(seen.earlier, seen.last), seen.z) / bounds.THREE_Z,
        np.minimum(np.minimum(seen.joint, seen.z), seen.grad_z) / bounds.JOINT_TWO_Z,
        np.where(seen.rise >= bounds.JOINT_RISE, _joint(seen, bounds), 0.0),
        np.where(seen.huge >= bounds.HUGE_RISE, seen.z / bounds.HUGE_Z, 0.0),
        np.where((seen.alone > 0.0) & (seen.rise >= bounds.LONE_RISE), seen.z / bounds.LONE_Z, 0.0),
    ]
    jump: Array = np.maximum(np.max(shares, axis=0), 0.0)
    large: Array = np.where(seen.rise >= bounds.LEAST_RISE, jump, np.minimum(jump, 0.99))
    joined: Array = np.maximum(large, seen.climb)
    return joined


def _joint(seen: Any, bounds: Bounds) -> Array:
    joint: Array = np.minimum(seen.z / bounds.JOINT_Z, seen.grad_z / bounds.JOINT_GRAD_Z)
    return joint


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
