"""Does the gradient explode while the loss has not moved yet? Its norm against its own recent past, in its logarithm.

Norms scatter by factors, and a single one ten times as large as usual is everyday life (a rare token, a hard batch):
only three steps in a row that all stand out are an explosion. A norm that stays so for `ACCEPTED` steps is the run's
new usual one: had it done harm, the loss would have said so. What vanishes is a matter of `updates`.
"""

import math

import msgspec

from .bounds import MOST_LOG, MOST_SHARE
from .sample import StepSample
from .usual import Recent

FLOOR = 0.05
"""The least noise: five percent of the norm."""
RISE, Z = math.log(5.0), 6.0
"""Each of these steps has five times the usual norm, and this z score."""
ACCEPTED = 128
CALM_STEPS = 3


class GradientState(msgspec.Struct):
    """What is remembered of the norm. `shares` are how far the two steps before stood out, 1 being enough; `since` is
    the first step of the excursion that is going on, -1 without one, `standing` how many steps in a row were an
    explosion.
    """

    log_norm: Recent = msgspec.field(default_factory=Recent)
    shares: tuple[float, float] = (0.0, 0.0)
    since: int = -1
    calm: int = 0
    standing: int = 0


STILL = 0.5
"""An explosion is over under this share: noise about a new level is the same level."""


def observe(state: GradientState, sample: StepSample, *, learning: bool) -> dict[str, float]:
    """The features of the norm, once there is a baseline. One that is zero or not finite has no logarithm and says
    nothing here.
    """
    norm = sample.grad_norm
    if norm is None or not 0.0 < norm < math.inf:
        return {}
    value = math.log(norm)
    usual = state.log_norm.baseline(FLOOR)
    if learning or usual is None:
        state.log_norm.push(sample.step, value, usual)
    if usual is None:
        return {}
    rise = value - usual.location
    z = rise / usual.scale
    share = min(rise / RISE, z / Z) if z > 0.0 else 0.0
    explosion = min(*state.shares, share, MOST_SHARE) if share > 0.0 else 0.0
    state.shares = (state.shares[1], share)
    if share >= 1.0 or state.since >= 0:
        explosion = _follow_excursion(state, sample.step, share, explosion)
    return {"grad_z": z, "grad_baseline": math.exp(min(usual.location, MOST_LOG)), "grad_explosion": explosion}


def _follow_excursion(state: GradientState, step: int, share: float, explosion: float) -> float:
    """What of the explosion counts: nothing once it has become what is usual."""
    if share >= 1.0:
        state.since, state.calm = (step if state.since < 0 else state.since), 0
    else:
        state.calm += 1
        if state.calm >= CALM_STEPS:
            state.since, state.calm = -1, 0
    state.standing = state.standing + 1 if explosion >= STILL else 0
    if state.standing <= ACCEPTED:
        return explosion
    restart(state)
    return 0.0


def onset(state: GradientState) -> int:
    """The first step of an explosion that is going on; -1 while there is none. A lone outlier is none."""
    return state.since if state.standing else -1


def rewind(state: GradientState, step: int) -> None:
    """The run went back to `step`: keep only what was seen up to there."""
    state.log_norm.rewind(step)
    state.shares, state.since, state.calm, state.standing = (0.0, 0.0), -1, 0, 0


def restart(state: GradientState) -> None:
    """The recipe changed: what was usual is not any more."""
    rewind(state, -1)
