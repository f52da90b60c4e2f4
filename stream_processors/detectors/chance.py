"""A loss that stands where guessing does: a classifier or a language model that has not begun to learn.

Until anything is learned a mean cross-entropy is the logarithm of the number of classes (or the entropy of what comes
how often), whatever batch it is taken of: so it is flat and quiet, where a loss that was trained before scatters with
its batches. Among few classes only the logarithm itself is such a level, and only from the first rows on; from `MANY`
to `MOST` any level is that no trained cross-entropy keeps to, and it may be reached within the first rows. All else
that is flat is left alone (`progress` finds falls that stop). Judged by groups of rows; as soon as the loss has fallen
from there, or the first rows have passed without, this is silent for good.
"""

import math
from statistics import median

import msgspec

from .sample import StepSample
from .usual import noise_of_changes

GROUP = 8
"""Rows whose median is looked at."""
LATEST = 8
"""Groups in which the level has to be reached."""
STEADY = 0.01
"""What such a loss scatters by from row to row, and how far its groups may lie apart, as shares of itself."""
STIRRED, STIRRED_NOISES, FALLEN = 0.0015, 6.0, 0.02
"""It has begun to learn when it has fallen by this share (and by so much more than its noise explains), which is asked
before an alarm, and by the last one, which ends it.
"""
LEAST_ROWS, LEAST_STEPS = 16, 1_000
"""So long it may last."""
FEW, EXACT = 20, 0.005
"""Up to so many classes the level is known to this share of itself."""
MANY, MOST = math.log(64.0), 15.0
"""15: guessing among three million classes (`start.ENORMOUS`)."""
RATE_ROSE = 2.0
"""A learning rate that has doubled since is still warming up: nothing is expected before."""


class ChanceState(msgspec.Struct):
    """`losses` and `rates` are those of the group that is not complete, whose first step was `begun_at`. The loss has
    stood at `level` (0: nowhere) for `rows` rows, from step `since` on, when the learning rate was `rate`; `before`
    rows came before. `over` tells that nothing is looked for any more.
    """

    losses: list[float] = []
    begun_at: int = 0
    level: float = 0.0
    since: int = -1
    rate: float | None = None
    rows: int = 0
    before: int = 0
    over: bool = False
    seen: dict[str, float] = {}


def observe(state: ChanceState, sample: StepSample) -> dict[str, float]:
    """`plateau`, 1 being one, and what it is judged by, as of the last complete group; nothing otherwise."""
    if state.over or sample.loss is None or not math.isfinite(sample.loss):
        return state.seen
    if not state.losses:
        state.begun_at = sample.step
    state.losses.append(sample.loss)
    if len(state.losses) == GROUP:
        _judge(state, sample.step, sample.told.get("lr"))
        state.losses = []
    return state.seen


def _judge(state: ChanceState, step: int, rate: float | None) -> None:
    level, noise = median(state.losses), noise_of_changes(state.losses)
    is_quiet = noise <= STEADY * level
    fallen = state.level - level
    if state.seen and fallen >= FALLEN * state.level:
        _end(state)
    elif state.level > 0.0 and is_quiet and -STEADY * state.level <= fallen < _stirred(state, noise):
        _stand_on(state, step, rate)
    elif not state.seen:
        _begin(state, level, rate, quiet=is_quiet)


def _stirred(state: ChanceState, noise: float) -> float:
    return max(STIRRED * state.level, STIRRED_NOISES * noise / math.sqrt(GROUP))


def _stand_on(state: ChanceState, step: int, rate: float | None) -> None:
    if state.rate is not None and rate is not None and rate >= RATE_ROSE * state.rate:
        state.before, state.rows = state.before + state.rows, 0
        state.since, state.rate = state.begun_at, rate
    state.rows += GROUP
    if not state.seen and state.rows >= max(LEAST_ROWS, state.before) and step - state.since >= LEAST_STEPS:
        told = {"plateau": 1.0, "plateau_since": float(state.since), "plateau_level": state.level}
        told["plateau_window"] = float(state.before + state.rows)
        state.seen = told | {"plateau_expected": FALLEN, "guessing_among": math.exp(state.level)}


def _begin(state: ChanceState, level: float, rate: float | None, *, quiet: bool) -> None:
    """The loss is somewhere else than it stood, or stands for the first time."""
    state.before, state.rows, state.level = state.before + state.rows, 0, 0.0
    if state.before >= LATEST * GROUP:
        _end(state)
    elif quiet and _is_guessing(level, is_first=state.before == 0):
        state.level, state.since, state.rate, state.rows = level, state.begun_at, rate, GROUP
    else:
        state.before += GROUP


def _end(state: ChanceState) -> None:
    state.over, state.losses, state.seen = True, [], {}


def _is_guessing(level: float, *, is_first: bool) -> bool:
    if MANY <= level <= MOST:
        return True
    classes = round(math.exp(min(level, MANY)))
    return is_first and 2 <= classes <= FEW and abs(level - math.log(classes)) <= EXACT * level


def onset(state: ChanceState) -> int:
    """The first step at which the loss stood there; -1 while it does not."""
    return state.since if state.seen else -1


def rewind(state: ChanceState, step: int) -> None:
    """The run went back to `step`: behind its first rows it begins anew."""
    state.losses = []
    if step < state.since or step < 0:
        fresh = ChanceState()
        for name in ChanceState.__struct_fields__:
            setattr(state, name, getattr(fresh, name))
