"""A run that starts broken: there is no healthy past to compare it with, only its own first steps.

A loss that rises from its first steps on and stays up is no training of a language model, and everyday life elsewhere:
a generator that loses to its discriminator, a penalty for leaving the model one began as, a queue that fills. So it
takes something beside the rise: the gradient norm has risen with it; or the loss began where guessing among some
classes stands (`CHANCE`), as steadily as guessing does, and is worse than guessing now; or it is enormous besides,
where no mean cross-entropy stands (`ENORMOUS`: guessing among three million classes). A loss that is flat from its
first step on may be a sum, and may have been trained before: it is broken only where it begins with the run, has not
fallen for `LONG` steps, and stands where broken cross-entropies do, between `ENORMOUS` and `SUMMED`.

As soon as the loss has fallen below where it began, or has kept to it for `LATEST` groups of steps, a run has proven
itself, and this is silent for good. One that rises on begins anew from where it is, and until it has proven itself no
climb of its loss is an alarm without its gradient (`loss`).
"""

import math
from statistics import median

import msgspec

from .bounds import MOST_LOG, MOST_SHARE
from .sample import StepSample
from .usual import MAD_TO_SIGMA, noise_of_changes

GROUP = 8
"""Steps whose median is looked at."""
RISE = 0.15
"""In logarithms: 16 percent."""
NOISES = 5.0
HIGH_GROUPS, UNSURE = 2, 0.5
"""So many in a row are needed; before, and with nothing beside the rise, it counts no further."""
NORM_RISE = math.log(10.0)
"""What the gradient norm has risen by, where that is evidence."""
ENORMOUS, ENORMOUS_RISE = math.log(15.0), 1.0
CHANCE = math.log(math.log(8.0)), ENORMOUS
"""The least and the largest loss of guessing, in its logarithm: where an untrained mean cross-entropy begins."""
STEADY = 0.05
"""Guessing scatters by no larger share of itself from batch to batch."""
SUMMED = math.log(50.0)
LONG, NEVER_GROUPS = 1_000, 6
"""So many steps, and groups of rows, without a fall are never."""
PROVEN = 0.05
"""A loss that fell by so much, in logarithms, and by `NOISES` of its noise over a group, learns."""
LATEST = 16
"""After so many groups there is a past to compare with, and a start that is not broken by then is none."""


class StartState(msgspec.Struct):
    """`first` is the level of the first group of log losses, which began at step `begun_at`, `first_noise` how much it
    scattered from step to step, `first_norm` the level of the log gradient norms (None without any); `noise` is the
    scatter of the last group, `high` how many in a row were high, `groups` how many there were since `first`. `again`
    tells that `first` is not where the run began any more.
    """

    values: list[float] = []
    norms: list[float] = []
    begun_at: int = -1
    groups: int = 0
    first: float = 0.0
    first_noise: float = 0.0
    first_norm: float | None = None
    noise: float = 0.0
    high: int = 0
    again: bool = False
    share: float = 0.0
    proven: bool = False


def observe(state: StartState, sample: StepSample) -> dict[str, float]:
    """`broken_start`, 1 being an alarm, as of the last complete group, until the run has proven itself."""
    if state.proven:
        return {}
    if sample.loss is not None and math.isfinite(sample.loss):
        _follow(state, sample.step, sample.loss, sample.grad_norm)
    return {"broken_start": state.share, "loss_at_start": math.exp(min(state.first, MOST_LOG))} if state.groups else {}


def _follow(state: StartState, step: int, loss: float, norm: float | None) -> None:
    if loss <= 0.0:
        state.proven, state.share = True, 0.0  # nothing is known of losses that may be negative
        return
    if state.begun_at < 0:
        state.begun_at = step
    state.values.append(math.log(loss))
    if norm is not None and 0.0 < norm < math.inf:
        state.norms.append(math.log(norm))
    if len(state.values) == GROUP:
        _judge(state, step)
        state.values, state.norms = [], []


def _judge(state: StartState, step: int) -> None:
    level = median(state.values)
    scatter = MAD_TO_SIGMA * median([abs(value - level) for value in state.values])
    norm = median(state.norms) if 2 * len(state.norms) >= GROUP else None
    state.groups += 1
    if state.groups == 1:
        _begin(state, level, scatter, norm)
        state.first_noise = noise_of_changes(state.values)
        return
    noise, state.noise = max(scatter, state.noise), scatter
    rise, bound = level - state.first, max(RISE, NOISES * noise)
    state.high = state.high + 1 if rise >= bound else 0
    may_be_stuck = _may_be_stuck(state, rise, step)
    is_stuck = may_be_stuck and state.groups >= NEVER_GROUPS and step - state.begun_at >= LONG
    is_broken = state.high >= HIGH_GROUPS and not state.again and _is_beside(state, level, norm)
    state.share = 1.0 if is_stuck else max(0.0, min(rise / bound, MOST_SHARE if is_broken else UNSURE))
    if rise <= -max(PROVEN, NOISES * noise / math.sqrt(GROUP)):
        state.proven, state.share = True, 0.0
    elif state.groups >= LATEST and not (is_broken or may_be_stuck):
        state.proven, state.share, state.again = not state.high, 0.0, True
        state.groups = 1
        _begin(state, level, scatter, norm)


def _begin(state: StartState, level: float, scatter: float, norm: float | None) -> None:
    state.first, state.first_norm, state.noise, state.high = level, norm, scatter, 0


def _may_be_stuck(state: StartState, rise: float, step: int) -> bool:
    is_flat = rise > -PROVEN and state.high == 0 and not state.again
    return is_flat and ENORMOUS <= state.first <= SUMMED and state.begun_at < max(step - state.begun_at, LONG)


def _is_beside(state: StartState, level: float, norm: float | None) -> bool:
    """Whether anything beside the rise says that it is none of those that are meant."""
    if norm is not None and state.first_norm is not None and norm - state.first_norm >= NORM_RISE:
        return True
    if level >= ENORMOUS and level - state.first >= ENORMOUS_RISE:
        return True
    least, largest = CHANCE
    return least <= state.first <= largest and state.first_noise <= STEADY


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
        state.values, state.norms, state.high, state.share = [], [], 0, 0.0
