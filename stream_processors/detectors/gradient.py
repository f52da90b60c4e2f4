"""Does the gradient explode while the loss has not moved yet? Its norm against its own recent past, in its logarithm.

Norms scatter by factors, and a single one ten times as large as usual is everyday life (a rare token, a hard batch):
only `IN_A_ROW` steps that all stand out are an explosion. A norm that stays so for `ACCEPTED` steps is the run's new
usual one: had it done harm, the loss would have said so. What vanishes is a matter of `updates`.
"""

import math

import msgspec

from .sample import StepSample
from .usual import Recent

FLOOR = 0.05
"""The least noise: five percent of the norm."""
IN_A_ROW = 3
RISE, Z = math.log(5.0), 6.0
"""Each of these steps has five times the usual norm, and this z score."""
MOST_SHARE = 9.0
"""A norm alone never counts as a loss past its bound."""
MOST_LOG = 700.0
"""A logarithm within this has an exponential."""
ACCEPTED = 128
CALM_STEPS = 3


class GradientState(msgspec.Struct):
    """What is remembered of the norm. `shares` are how far the last steps stood out, oldest first, 1 being enough;
    `since` is the first step of the excursion that is going on, -1 without one, `standing` how many steps in a row
    were an explosion.
    """

    log_norm: Recent = msgspec.field(default_factory=Recent)
    shares: list[float] = []
    since: int = -1
    calm: int = 0
    standing: int = 0


def observe(state: GradientState, sample: StepSample, *, learning: bool) -> dict[str, float]:
    """The features of the norm, once there is a baseline. One that is zero or not finite has no logarithm and says
    nothing here.
    """
    if sample.grad_norm is None or not math.isfinite(sample.grad_norm) or sample.grad_norm <= 0.0:
        return {}
    value = math.log(sample.grad_norm)
    usual = state.log_norm.baseline(FLOOR)
    if learning or usual is None:
        state.log_norm.push(sample.step, value, usual)
    if usual is None:
        return {}
    z = usual.z(value)
    share = min((value - usual.location) / RISE, z / Z)
    _follow_excursion(state, sample.step, share)
    baseline = math.exp(min(usual.location, MOST_LOG))
    return {"grad_z": z, "grad_baseline": baseline, "grad_explosion": _explosion(state, share)}


def _explosion(state: GradientState, share: float) -> float:
    """How near the last steps come to an explosion, 1 being one."""
    state.shares.append(share)
    del state.shares[:-IN_A_ROW]
    least = max(0.0, min(*state.shares, MOST_SHARE)) if len(state.shares) == IN_A_ROW else 0.0
    state.standing = state.standing + 1 if least >= 1.0 else 0
    if state.standing > ACCEPTED:
        restart(state)
        return 0.0
    return least


def _follow_excursion(state: GradientState, step: int, share: float) -> None:
    if share >= 1.0:
        state.since, state.calm = (step if state.since < 0 else state.since), 0
    elif state.since >= 0:
        state.calm += 1
        if state.calm >= CALM_STEPS:
            state.since, state.calm = -1, 0


def onset(state: GradientState) -> int:
    """The first step of an explosion that is going on; -1 while there is none. A lone outlier is none."""
    return state.since if state.standing else -1


def rewind(state: GradientState, step: int) -> None:
    """The run went back to `step`: keep only what was seen up to there."""
    state.log_norm.rewind(step)
    state.shares, state.since, state.calm, state.standing = [], -1, 0, 0


def restart(state: GradientState) -> None:
    """The recipe changed: what was usual is not any more."""
    rewind(state, -1)
