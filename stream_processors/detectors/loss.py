"""Is the loss where it should be? Its jumps, its climbs, and both together with the gradient norm.

The loss is watched in its logarithm while it is positive, so that nothing depends on its unit. `usual` says where it
is and how much it scatters, `drift` whether it climbs slowly. One-sided: a loss that falls is no alarm. `instability`
joins the evidence, in units of what it takes to alarm: steps in a row that stand out, one that stands out together with
its gradient, one that is out of all proportion, a climb.

Values beyond the usual enter the windows clipped, and none enters them while the run is unstable: no incident, however
long, teaches the detector that it is normal. (A lasting change of level that is meant is announced, by
`RecipeChanged`.)
"""

import math

import msgspec

from .bounds import ABSTAINING, HUGE
from .drift import BOUND, LEAST_CLIMB, SUSPECT, Drift
from .sample import StepSample
from .usual import Recent

TWO_Z, THREE_Z = 7.0, 5.0
"""Z scores of the loss that alarm when two steps in a row have them, and three."""
JOINT_Z, JOINT_GRAD_Z, JOINT_RISE = 5.0, 6.0, 0.15
"""A single step alarms when both stand out and the loss rises by so much (in its logarithm)."""
JOINT_TWO_Z = 4.0
"""... or two in a row, where loss and gradient norm both have this."""
HUGE_Z, HUGE_RISE = 30.0, 1.0
"""... and by itself when it is out of all proportion."""
LONE_Z, LONE_RISE = 7.0, 0.2
"""... and when its row stands for many steps: what is seen there has lasted, or was one chance in as many."""
LEAST_RISE = 0.05
"""In logarithms: 5 percent. Less is no spike, however sure."""
MANY_STEPS, LATE = 8, 1.5
"""Steps from row to row that are many. A row that comes later than rows do, by this factor, does not alarm alone: the
sum over a missed row is no loss.
"""
RAISED, SETTLING, SETTLING_RISE = 2.0, 96, 0.25
"""A learning rate that is raised in view, by more than this factor in one step, takes the loss along (warm restarts:
Loshchilov and Hutter 2017, arXiv 1608.03983): for so many steps no lesser rise is an alarm, and drift begins anew.
"""
SUSPECT_Z = 3.0
"""From this z score on a step counts as evidence of an incident, though not yet as one."""
CALM_STEPS = 3
FLOOR = 0.005
"""The least noise: half a percent of the loss."""
RAW_FLOOR = 1e-9
"""The least noise of a loss that has no logarithm, beside half a percent of itself."""


class LossState(msgspec.Struct):
    """What is remembered of the loss. `suspect_since` is the first step of the excursion that is going on, -1 without
    one; `zs` are the z scores at the last two steps, `joint` the lesser of those of loss and gradient at the last.
    `gap` is how far apart the last two were, and `alone` whether the last may alarm by itself. `rate` is the last
    learning rate, `settling` for how many steps it is still new.
    """

    recent: Recent = msgspec.field(default_factory=Recent)
    drift: Drift = msgspec.field(default_factory=Drift)
    positive: bool = True
    zs: tuple[float, float] = (0.0, 0.0)
    joint: float = 0.0
    suspect_since: int = -1
    calm: int = 0
    last_step: int = -1
    gap: int = 0
    alone: bool = False
    rate: float = math.inf
    settling: int = 0


def observe(state: LossState, sample: StepSample, grad_z: float, *, learning: bool) -> dict[str, float]:
    """The features of the loss, once there is a baseline. `grad_z` is what `gradient` says of the same step."""
    _follow_rate(state, sample.told.get("lr"))
    seen = _features(state, sample, grad_z, learning=learning)
    _follow_excursion(state, sample.step, seen.get("loss_z"), sample.nonfinite)
    return seen


def onset(state: LossState) -> int:
    """The first step of what is wrong now, estimated backwards; -1 while nothing is suspect."""
    since = state.suspect_since
    if state.drift.total < SUSPECT * BOUND:
        return since
    return min(since, state.drift.since) if since >= 0 else state.drift.since


def _features(state: LossState, sample: StepSample, grad_z: float, *, learning: bool) -> dict[str, float]:
    if sample.loss is None or not math.isfinite(sample.loss) or (state.positive and sample.loss == 0.0):
        return {}  # a zero among positive ones (rounded, or a batch without a pair) has no logarithm, and is no rise
    loss = max(-HUGE, min(sample.loss, HUGE))
    if state.positive and loss <= 0.0:
        _leave_logarithms(state)
    _follow_rows(state, sample.step)
    value = math.log(loss) if state.positive else loss
    floor = _floor(state)
    usual = state.recent.baseline(floor)
    state.drift.observe(sample.step, value, state.recent.blocks, usual.noise if usual else floor)
    if learning or usual is None:
        state.recent.push(sample.step, value, usual)
    if usual is None:
        return {}
    z, rise = usual.z(value), value - usual.location
    climb = state.drift.share(usual.noise, LEAST_CLIMB if state.positive else 0.0)
    jump = _jump(state, z, rise, grad_z)
    state.zs, state.joint = (state.zs[1], z), min(z, grad_z)
    location = math.exp(usual.location) if state.positive else usual.location
    return {
        "loss_z": z,
        "loss_baseline": location,
        "loss_scale": usual.scale * (location if state.positive else 1.0),
        "loss_rise": loss - location,
        "loss_drift": climb,
        "instability": max(jump, climb),
    }


def _jump(state: LossState, z: float, rise: float, grad_z: float) -> float:
    """How near the last steps come to an alarm, 1 being one; and a lone outlier none."""
    if z <= 0.0:
        return 0.0
    earlier, last = state.zs
    shares = [min(last, z) / TWO_Z, min(earlier, last, z) / THREE_Z, min(state.joint, z, grad_z) / JOINT_TWO_Z]
    if rise >= JOINT_RISE or not state.positive:
        shares.append(min(z / JOINT_Z, grad_z / JOINT_GRAD_Z))
    if rise >= HUGE_RISE and state.positive:
        shares.append(z / HUGE_Z)
    if state.alone and (rise >= LONE_RISE or not state.positive):
        shares.append(z / LONE_Z)
    jump = max(0.0, *shares)
    least = SETTLING_RISE if state.settling else LEAST_RISE
    return jump if rise >= least or not state.positive else min(jump, ABSTAINING)


def _follow_rate(state: LossState, rate: float | None) -> None:
    state.settling = max(0, state.settling - 1)
    if rate is not None and 0.0 <= rate < math.inf:
        if rate > RAISED * state.rate:
            state.drift, state.settling = Drift(), SETTLING
        state.rate = rate


def _follow_rows(state: LossState, step: int) -> None:
    usual, state.gap = state.gap, step - state.last_step if state.last_step >= 0 else 0
    state.last_step = step
    state.alone = MANY_STEPS <= state.gap <= LATE * usual


def _floor(state: LossState) -> float:
    if state.positive:
        return FLOOR
    return max(RAW_FLOOR, FLOOR * abs(state.recent.values[-1]) if state.recent.values else 0.0)


def _leave_logarithms(state: LossState) -> None:
    """A loss that is not positive has none: from here on it is watched as it is."""
    state.positive = False
    state.recent.transform(math.exp)
    state.drift = Drift()


def _follow_excursion(state: LossState, step: int, loss_z: float | None, nonfinite: int) -> None:
    if nonfinite or (loss_z is not None and loss_z >= SUSPECT_Z):
        state.calm = 0
        if state.suspect_since < 0:
            state.suspect_since = step
    elif state.suspect_since >= 0:
        state.calm += 1
        if state.calm >= CALM_STEPS:
            state.suspect_since, state.calm = -1, 0


def rewind(state: LossState, step: int) -> None:
    """The run went back to `step`: keep only what was seen up to there."""
    state.recent.rewind(step)
    state.drift.rewind(step)
    state.zs, state.joint = (0.0, 0.0), 0.0
    state.suspect_since, state.calm = -1, 0
    state.last_step, state.gap, state.alone = -1, 0, False
    state.rate, state.settling = math.inf, 0


def restart(state: LossState) -> None:
    """The recipe changed: what was usual is not any more."""
    rewind(state, -1)
    state.positive = True
