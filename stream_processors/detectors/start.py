"""A run that starts broken: there is no healthy past to compare it with, only its own first steps.

Two things are no training whatever came before: a loss that rises from its first steps on and stays up, and one that is
enormous and does not fall at all (a mean cross-entropy above `ENORMOUS` is worse than guessing among three million
classes). As soon as the loss has fallen below where it began, a run has proven itself, and this is silent for good.
A short overshoot, as a warm-up makes it, is over before two groups of steps are.
"""

import math
from statistics import median

import msgspec

from .bounds import MOST_LOG, MOST_SHARE
from .sample import StepSample
from .usual import MAD_TO_SIGMA

GROUP = 8
"""Steps whose median is looked at."""
RISE = 0.15
"""In logarithms: 16 percent."""
NOISES = 5.0
HIGH_GROUPS, UNSURE = 2, 0.5
"""So many in a row are needed; before, it counts no further."""
ENORMOUS = math.log(15.0)
NEVER_GROUPS = 6
"""So many groups without a fall are never."""
PROVEN = 0.05
"""A loss that fell by so much, in logarithms, and by `NOISES` of its noise over a group, learns."""
LATEST = 16
"""After so many groups there is a past to compare with, and a start that is not broken by then is none."""


class StartState(msgspec.Struct):
    """`first` is the level of the first group of log losses, which began at step `begun_at`, `noise` the scatter of the
    last one; `low` is the lowest level of a group, `high` how many in a row were high, `groups` how many there were.
    """

    values: list[float] = []
    begun_at: int = -1
    groups: int = 0
    first: float = 0.0
    noise: float = 0.0
    low: float = 0.0
    high: int = 0
    share: float = 0.0
    proven: bool = False


def observe(state: StartState, sample: StepSample) -> dict[str, float]:
    """`broken_start`, 1 being an alarm, as of the last complete group, until the run has proven itself."""
    if state.proven:
        return {}
    if sample.loss is not None and math.isfinite(sample.loss):
        _follow(state, sample.step, sample.loss)
    return {"broken_start": state.share, "loss_at_start": math.exp(min(state.first, MOST_LOG))} if state.groups else {}


def _follow(state: StartState, step: int, loss: float) -> None:
    if loss <= 0.0:
        state.proven = True  # nothing is known of losses that may be negative
        return
    if state.begun_at < 0:
        state.begun_at = step
    state.values.append(math.log(loss))
    if len(state.values) == GROUP:
        _judge(state)
        state.values = []


def _judge(state: StartState) -> None:
    level = median(state.values)
    state.groups += 1
    noise = MAD_TO_SIGMA * median([abs(value - level) for value in state.values])
    if state.groups == 1:
        state.first, state.noise, state.low = level, noise, level
        return
    noise, state.noise = max(noise, state.noise), noise
    state.low = min(state.low, level)
    bound = max(RISE, NOISES * noise)
    state.high = state.high + 1 if level - state.first >= bound else 0
    rising = min((level - state.first) / bound, MOST_SHARE if state.high >= HIGH_GROUPS else UNSURE)
    state.share = max(0.0, rising, _never_falls(state, level))
    fallen = max(PROVEN, NOISES * noise / math.sqrt(GROUP))
    if level <= state.first - fallen or (state.groups >= LATEST and state.share < 1.0):
        state.proven, state.share = True, 0.0


def _never_falls(state: StartState, level: float) -> float:
    enormous = min(state.low, level) >= ENORMOUS
    return 1.0 if enormous and state.groups >= NEVER_GROUPS else 0.0


def onset(state: StartState) -> int:
    """The first step, while the start is broken; -1 otherwise."""
    return state.begun_at if state.share >= 1.0 else -1


def rewind(state: StartState, step: int) -> None:
    """The run went back to `step`: behind its first step it starts anew."""
    if step < state.begun_at:
        fresh = StartState()
        for name in StartState.__struct_fields__:
            setattr(state, name, getattr(fresh, name))
    else:
        state.values, state.high, state.share = [], 0, 0.0
