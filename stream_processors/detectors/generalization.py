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
from itertools import pairwise
from statistics import fmean, median

import msgspec

MOST = 48
AROUND = 3
LEAST_AFTER = 6
"""Points after the lowest before anything is said."""
TREND_Z = 3.0
NOISES = 2.5
"""The rise in units of the scatter of single points; the widening of the gap in those of its own."""
LEAST_RISE = 0.02
"""Two percent of the validation loss."""
LEAST_LOST = 0.1
"""... and a tenth of what it had gained since the first evaluation."""
MOST_SHARE = 9.0
MAD_TO_SIGMA = 1.4826


class Point(msgspec.Struct, frozen=True, array_like=True):
    """One evaluation, or the mean of several: logarithms of the validation loss and of the training loss then."""

    val: float
    train: float
    first: int
    last: int


class GeneralizationState(msgspec.Struct):
    """`open` are the evaluations of the point that is not complete yet; a point takes `size` of them. `since` is the
    step of the lowest validation loss while the rise from it is an alarm, -1 otherwise. `begun` is the highest point,
    before any was merged, from which gains are counted.
    """

    points: list[Point] = []
    open: list[Point] = []
    size: int = 1
    highest: float = -math.inf
    since: int = -1
    seen: dict[str, float] = {}


def observe(state: GeneralizationState, step: int, val_loss: float, train: float | None) -> None:
    """One more evaluation; `train` is the logarithm of what the training loss usually is now."""
    if not 0.0 < val_loss < math.inf or train is None:
        return
    val = math.log(val_loss)
    state.open.append(Point(val, train, step, step))
    gap = {"val_gap": val_loss - math.exp(min(train, 700.0))}
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
    best_at = min(range(len(points) - AROUND + 1), key=lambda at: _level(points[at : at + AROUND]))
    best, after = points[best_at : best_at + AROUND], points[best_at + AROUND :]
    now = points[-AROUND:]
    rise = _level(now) - _level(best)
    bound = _bound(state, _level(best))
    share = max(0.0, min(rise / bound, MOST_SHARE))
    if state.since < 0:
        widened = rise + _train(best) - _train(now)
        gap_noise = _noise([known.val - known.train for known in points])
        share = max(0.0, min(share, _trend(after) / TREND_Z, widened / (NOISES * gap_noise)))
    state.since = best[-1].last if share >= 1.0 else state.since if share >= 0.5 else -1
    return {
        "overfitting": share,
        "val_best": math.exp(_level(best)),
        "val_rise": rise,
        "train_fall": _train(best) - _train(now),
        "val_best_step": float(best[AROUND // 2].last),
    }


def _bound(state: GeneralizationState, best: float) -> float:
    gained = max(0.0, state.highest - best)
    return max(LEAST_RISE, LEAST_LOST * gained, NOISES * _noise([known.val for known in state.points]))


def _noise(values: list[float]) -> float:
    """The standard deviation of a point, by how much neighbours differ; a trend is little of that."""
    changes = [abs(late - early) for early, late in pairwise(values)]
    return max(MAD_TO_SIGMA * median(changes) / math.sqrt(2.0), 1e-9)


def _trend(points: list[Point]) -> float:
    """The z score of the Mann-Kendall test for a rise."""
    count = len(points)
    if count < LEAST_AFTER:
        return 0.0
    values = [known.val for known in points]
    score = sum((late > early) - (late < early) for at, early in enumerate(values) for late in values[at + 1 :])
    return (score - 1) / math.sqrt(count * (count - 1) * (2 * count + 5) / 18.0)


def _level(points: list[Point]) -> float:
    return fmean(known.val for known in points)


def _train(points: list[Point]) -> float:
    return fmean(known.train for known in points)


def rewind(state: GeneralizationState, step: int) -> None:
    """The run went back to `step`: keep only what was seen up to there."""
    state.points = [known for known in state.points if known.last <= step]
    state.open = [known for known in state.open if known.last <= step]
    state.since, state.seen = -1, {}


def restart(state: GeneralizationState) -> None:
    """The recipe changed: what was gained before is no measure any more."""
    rewind(state, -1)
    state.size, state.highest = 1, -math.inf
