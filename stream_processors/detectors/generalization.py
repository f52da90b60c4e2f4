"""Does the validation loss rise while the training loss does not? Judged at each evaluation, noisy and rare ones too.

Both losses are watched in their logarithms, the training loss as it usually is at the time (the baseline of `loss`).
From where the validation loss was lowest (a mean of `AROUND` points, for the lowest of many noisy ones is low by
chance), what came after has to rise as a trend (Mann 1945, Kendall 1975), by several times its own scatter, by an
amount that matters, and by a share of all that was gained before: a creep of a few percent at the end of a training
that gained much is its end. The gap between the two losses has to widen by more than its own noise; a loss that rises
with its validation is a matter of `loss`, and data that is new to both.

At most `MOST` points are kept: when they are full, neighbours become one, so that noise averages out as a run goes on
and a slow rise is seen in time. A loss that is not positive is left alone.
"""

import math
from statistics import fmean

import msgspec

from ...events.decisions import VAL_BEST_STEP
from .bounds import MOST_LOG, MOST_SHARE
from .usual import noise_of_bends

MOST = 48
AROUND = 3
LEAST_AFTER = 6
"""Points after the lowest before anything is said."""
TREND_Z = 3.5
LEAST_FAR, FAR_NOISES = 4, 8.0
"""... or for so many points by so many times the scatter, which is no matter of a trend any more."""
NOISES = 2.5
"""The rise in units of the scatter of single points; the widening of the gap in those of its own."""
LEAST_NOISE = 1e-9
LEAST_RISE = 0.02
"""Two percent of the validation loss."""
LEAST_LOST = 0.1
"""... and a tenth of what it had gained since the first evaluation."""
ONCE_MORE = 1.5
"""... and so many times what it rose by before and came back from."""


class Point(msgspec.Struct, frozen=True, array_like=True):
    """One evaluation, or the mean of several: logarithms of the validation loss and of the training loss then."""

    val: float
    train: float
    first: int
    last: int


class GeneralizationState(msgspec.Struct):
    """`open` are the evaluations of the point that is not complete yet; a point takes `size` of them. `since` is the
    step of the lowest validation loss while the rise from it is an alarm, -1 otherwise. `highest` is the highest point,
    from which gains are counted. The last evaluation was at step `at`, `apart` steps after the one before.
    """

    points: list[Point] = []
    open: list[Point] = []
    size: int = 1
    highest: float = -math.inf
    at: int = -1
    apart: int = 0
    since: int = -1
    seen: dict[str, float] = {}


def observe(state: GeneralizationState, step: int, val_loss: float, train: float | None) -> None:
    """One more evaluation; `train` is the logarithm of what the training loss usually is now."""
    state.apart = max(0, step - state.at) if state.at >= 0 else 0
    state.at = step
    if not 0.0 < val_loss < math.inf or train is None:
        return
    val = math.log(val_loss)
    state.open.append(Point(val, train, step, step))
    gap = {"val_gap": val_loss - math.exp(min(train, MOST_LOG))}
    if len(state.open) < state.size:
        state.seen |= gap
        return
    point = _joined(state.open)
    state.open = []
    state.points.append(point)
    state.highest = max(state.highest, point.val)
    state.seen = gap | _judge(state)
    if len(state.points) == MOST:
        state.points = [_joined(state.points[at : at + 2]) for at in range(0, MOST, 2)]
        state.size *= 2


def _joined(points: list[Point]) -> Point:
    val, train = fmean(known.val for known in points), fmean(known.train for known in points)
    return Point(val, train, points[0].first, points[-1].last)


def _judge(state: GeneralizationState) -> dict[str, float]:
    """`overfitting`, 1 being an alarm, and what it is judged by."""
    points = state.points
    if len(points) < AROUND + LEAST_AFTER:
        return {}
    levels = [_level(points[at : at + AROUND]) for at in range(len(points) - AROUND + 1)]
    best_at = levels.index(min(levels))
    best, after, now = points[best_at : best_at + AROUND], points[best_at + AROUND :], points[-AROUND:]
    rise = levels[-1] - levels[best_at]
    noise = max(noise_of_bends([known.val for known in points]), LEAST_NOISE)
    gained = max(0.0, state.highest - levels[best_at])
    bound = max(LEAST_RISE, LEAST_LOST * gained, NOISES * noise, ONCE_MORE * _came_back(levels[:best_at]))
    share = max(0.0, min(rise / bound, MOST_SHARE))
    if state.since < 0:
        widened = rise + _train(best) - _train(now)
        gap_noise = max(noise_of_bends([known.val - known.train for known in points]), LEAST_NOISE)
        lasting = max(_trend(after) / TREND_Z, _stays_up(after, levels[best_at]) / (FAR_NOISES * noise))
        share = max(0.0, min(share, lasting, widened / (NOISES * gap_noise)))
    state.since = best[-1].last if share >= 1.0 else state.since if share >= 0.5 else -1
    return {
        "overfitting": share,
        "val_best": math.exp(levels[best_at]),
        "val_rise": rise,
        "train_fall": _train(best) - _train(now),
        VAL_BEST_STEP: float(best[AROUND // 2].last),
        "val_window": float(points[-1].last - points[0].first),
    }


def _came_back(levels: list[float]) -> float:
    """The largest rise of a validation loss that was lower again afterwards."""
    lowest, largest = math.inf, 0.0
    for level in levels:
        lowest = min(lowest, level)
        largest = max(largest, level - lowest)
    return largest


def _trend(points: list[Point]) -> float:
    """The z score of the Mann-Kendall test for a rise."""
    count = len(points)
    if count < LEAST_AFTER:
        return 0.0
    values = [known.val for known in points]
    score = sum((late > early) - (late < early) for at, early in enumerate(values) for late in values[at + 1 :])
    return (score - 1) / math.sqrt(count * (count - 1) * (2 * count + 5) / 18.0)


def _stays_up(points: list[Point], best: float) -> float:
    """By how much the lowest of the last points is above the best."""
    return min(known.val for known in points[-LEAST_FAR:]) - best if len(points) >= LEAST_FAR else 0.0


def _level(points: list[Point]) -> float:
    return fmean(known.val for known in points)


def _train(points: list[Point]) -> float:
    return fmean(known.train for known in points)


def rewind(state: GeneralizationState, step: int) -> None:
    """The run went back to `step`: keep only what was seen up to there, or so little behind it (less than half of what
    lies between two evaluations) that the model is the same.
    """
    until = step + state.apart // 2
    state.open = [known for known in state.open if known.last <= until]
    kept = [known for known in state.points if known.last <= until]
    if len(kept) < len(state.points):
        state.points, state.since = kept, -1
        state.seen = _judge(state)


def restart(state: GeneralizationState) -> None:
    """The recipe changed: what was gained before is no measure any more."""
    fresh = GeneralizationState()
    for name in GeneralizationState.__struct_fields__:
        setattr(state, name, getattr(fresh, name))
