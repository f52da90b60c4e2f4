"""Is the loss where it should be? Its jumps, its climbs, and both together with the gradient norm.

The loss is watched in its logarithm while it is positive, so that nothing depends on its unit. `usual` says where it
is and how much it scatters, `drift` whether it climbs slowly. One-sided: a loss that falls is no alarm. `instability`
joins the evidence, in units of what it takes to alarm: steps in a row that stand out, fewer of them together with
their gradients, a climb. One step alone is a hard batch, whatever its size and its gradient's; and where steps stand
out again and again (one batch in fifty from a harder set, a small task among others) as many in a row are needed as do
not come together by chance.

Values beyond the usual enter the windows clipped, and none enters them while the run is unstable: no incident, however
long, teaches the detector that it is normal. (A lasting change of level that is meant is announced, by
`RecipeChanged`.)
"""

import math
from bisect import bisect_left
from typing import NamedTuple

import msgspec

from .bounds import ABSTAINING, HUGE, MOST_LOG
from .drift import BOUND, LEAST_CLIMB, SUSPECT, Beside, Drift
from .epochs import Epochs
from .sample import StepSample
from .start import UNSURE
from .usual import BLOCK_NOISE, Baseline, Recent, middle

TWO_Z, THREE_Z, LEAST_OF_THREE = 7.0, 5.0, 3.75
"""Z scores of the loss that alarm when two steps in a row have them, and when three have them in the mean (none
counting for more than two need) and each has the last.
"""
JOINT_TWO_Z, JOINT_THREE_Z = 4.0, 3.2
"""... and two or three in a row, where loss and gradient norm both have this."""
STRONG_Z, STRONG_GRAD_Z = 3.0, 8.0
"""... and two, where the norms leave no doubt."""
LONE_Z, LONE_RISE = 6.5, 0.2
"""... and one alone when its row stands for many steps: what is seen there has lasted, or was one chance in as many."""
LONE_JOINT_Z, LONE_GRAD_Z = 5.0, 6.0
"""... with its gradient norm."""
HUGE_Z, HUGE_RISE = 30.0, 1.0
"""... and out of all proportion, however often such rows come."""
STRAY_Z, JOINT_STRAY_Z = 3.75, 3.0
"""From this z score on a step is a stray, from the lesser one where its gradient norm has it too, unless it is the
beginning of an incident.
"""
MEMORY, LEAST_ROWS = 0.998, 50.0
"""Of strays, some 500 steps; before there were so many rows nothing is sure of their rate."""
COINCIDENCE = 3e-5
"""So many strays in a row as come together by chance with no larger probability are none."""
FEWEST, MOST_IN_A_ROW = 2, 12
ALLOWED = 4
"""So many of the last half window may be as high before they are taken for the run's own."""
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
BEGINNING_RISE = 0.15
"""What the beginning of an epoch may rise by in a log of running means, however low those before were."""
SUSPECT_Z = 3.0
"""From this z score on a step counts as evidence of an incident, though not yet as one."""
CALM_STEPS = 3
FLOOR = 0.005
"""The least noise: half a percent of the loss."""
ROUNDED, REGAINED, CHANGES, MOST_UNIT = 0.5, 1.02, 3, 10.0
"""A log with so few digits that neighbouring losses differ by whole units of the last one: half of such a unit is
noise. The smallest difference of two losses in a row is taken for it, and grows by this factor with each larger one: of
losses with all their digits it is a few percent of their noise. It counts after so many changes, and for no more than
the last, in logarithms.
"""
RAW_FLOOR = 1e-9
"""The least noise of a loss that has no logarithm, beside half a percent of itself."""


class LossState(msgspec.Struct):
    """What is remembered of the loss. `suspect_since` is the first step of the excursion that is going on, -1 without
    one; `zs` are the z scores at the last two steps, `grad_zs` those of the gradient norm.
    `gap` is how far apart the last two were, and `alone` whether the last may alarm by itself. `rate` is the last
    learning rate, `settling` for how many steps it is still new. `last` is the last loss and `unit` that of its last
    digit, after so many `changes`. `in_a_row` counts the strays up to the last step,
    `strays` and `rows` are sums of a memory that fades.
    """

    recent: Recent = msgspec.field(default_factory=Recent)
    drift: Drift = msgspec.field(default_factory=Drift)
    epochs: Epochs = msgspec.field(default_factory=Epochs)
    positive: bool = True
    zs: tuple[float, float] = (0.0, 0.0)
    grad_zs: tuple[float, float] = (0.0, 0.0)
    suspect_since: int = -1
    calm: int = 0
    last_step: int = -1
    gap: int = 0
    alone: bool = False
    rate: float = math.inf
    settling: int = 0
    last: float = math.nan
    unit: float = math.inf
    changes: int = 0
    in_a_row: int = 0
    strays: float = 0.0
    rows: float = 0.0


class Known(NamedTuple):
    """What is known of a step beside its loss: the z score of its gradient norm and the usual one (None without any),
    and whether the run has `proven` itself (`start`).
    """

    grad_z: float
    norm: float | None
    proven: bool


def observe(state: LossState, sample: StepSample, known: Known, *, learning: bool) -> dict[str, float]:
    """The features of the loss, once there is a baseline."""
    _follow_rate(state, sample.told.get("lr"))
    seen = _features(state, sample, known, learning=learning)
    _follow_excursion(state, sample.step, seen.get("loss_z"), sample.nonfinite)
    return seen


def onset(state: LossState) -> int:
    """The first step of what is wrong now, estimated backwards; -1 while nothing is suspect."""
    since = state.suspect_since
    if state.drift.total < SUSPECT * BOUND:
        return since
    return min(since, state.drift.since) if since >= 0 else state.drift.since


def _features(state: LossState, sample: StepSample, known: Known, *, learning: bool) -> dict[str, float]:
    if sample.loss is None or not math.isfinite(sample.loss) or (state.positive and sample.loss == 0.0):
        return {}  # a zero among positive ones (rounded, or a batch without a pair) has no logarithm, and is no rise
    loss = max(-HUGE, min(sample.loss, HUGE))
    if state.positive and loss <= 0.0:
        _leave_logarithms(state)
    _follow_rows(state, sample.step, loss)
    value = math.log(loss) if state.positive else loss
    usual = state.recent.baseline(floor(state))
    _follow_drift(state, sample.step, value, usual, known.norm)
    if usual is None:
        state.recent.push(sample.step, value, usual)
        return {}
    z, rise = usual.z(value), value - usual.location
    climb = _climb(state, value, usual, known)
    own = state.in_a_row
    if own or z >= JOINT_STRAY_Z:
        _follow_strays(state, z, known.grad_z, learning=learning)
    elif learning:
        state.rows, state.strays = MEMORY * state.rows + 1.0, MEMORY * state.strays
    jump = _jump(state, z, rise, known.grad_z)
    if jump >= 1.0 and not _is_enough(state, z, rise, stray_rate(state, usual, own)):
        jump = ABSTAINING
    if learning:
        state.recent.push(sample.step, value, usual)
    state.zs, state.grad_zs = (state.zs[1], z), (state.grad_zs[1], known.grad_z)
    location = math.exp(usual.location) if state.positive else usual.location
    return {
        "loss_z": z,
        "loss_baseline": location,
        "loss_scale": usual.scale * (location if state.positive else 1.0),
        "loss_rise": loss - location,
        "loss_drift": climb,
        "instability": max(jump, climb),
    }


def _follow_drift(state: LossState, step: int, value: float, usual: Baseline | None, norm: float | None) -> None:
    if (block := state.drift.observe(step, value)) is not None:
        noise = usual.noise if usual else floor(state)
        noise = max(noise, _unit(state) / BLOCK_NOISE)  # of rounded losses the median of a block jumps by a whole unit
        state.drift.judge(block, state.recent.blocks, noise, Beside(state.rate, norm))


def _climb(state: LossState, value: float, usual: Baseline, known: Known) -> float:
    """How near a slow rise comes to an alarm, 1 being one."""
    state.epochs.follow(value, climbs=state.drift.total > 0.0)
    climb = state.drift.share(usual.noise, LEAST_CLIMB if state.positive else 0.0)
    if not (known.proven or state.drift.borne_out):
        return min(climb, UNSURE)
    return climb if state.epochs.bears_out() else min(climb, ABSTAINING)


def stray_rate(state: LossState, usual: Baseline, own: int) -> float:
    """How often a step stands out, in the memory of strays or in the newer half of the window, of whose values the last
    `own` are those of this excursion. A single one has no rate.
    """
    newer = state.recent.newer
    as_high = len(newer) - bisect_left(newer, usual.location + STRAY_Z * usual.scale) - own
    return max(0.0, (state.strays - 1.0) / max(state.rows, LEAST_ROWS), (as_high - ALLOWED) / len(newer))


def in_a_row_needed(rate: float) -> int:
    """How many independent strays, coming at this rate, are no coincidence any more."""
    if rate**FEWEST <= COINCIDENCE:
        return FEWEST
    return min(math.ceil(math.log(COINCIDENCE) / math.log(min(rate, 0.5))), MOST_IN_A_ROW)


def _follow_strays(state: LossState, z: float, grad_z: float, *, learning: bool) -> None:
    """Those of an incident are none."""
    if z >= STRAY_Z or (z >= JOINT_STRAY_Z and grad_z >= JOINT_STRAY_Z):
        state.in_a_row += 1
        return
    ended, state.in_a_row = state.in_a_row, 0
    if learning:
        state.rows = MEMORY * state.rows + 1.0 + ended
        state.strays = MEMORY * state.strays + ended


def _is_enough(state: LossState, z: float, rise: float, rate: float) -> bool:
    """Whether as many steps in a row stand out as are no coincidence: one is, where a row stands for many."""
    needed = in_a_row_needed(rate)
    is_huge = z >= HUGE_Z and rise >= HUGE_RISE and state.positive
    return state.in_a_row >= needed or (state.alone and (needed == FEWEST or is_huge))


def _jump(state: LossState, z: float, rise: float, grad_z: float) -> float:
    """How near the last steps come to an alarm, 1 being one."""
    if z <= 0.0:
        return 0.0
    jump = _in_a_row(state, z, grad_z) if state.zs[1] > 0.0 else 0.0
    if state.alone and (rise >= LONE_RISE or not state.positive):
        jump = max(jump, z / LONE_Z, min(z / LONE_JOINT_Z, grad_z / LONE_GRAD_Z))
    return jump if rise >= _least_rise(state, rise) else min(jump, ABSTAINING)


def _least_rise(state: LossState, rise: float) -> float:
    """Under which nothing is a spike; of a loss that has no logarithm no size is known."""
    least = SETTLING_RISE if state.settling else BEGINNING_RISE if state.epochs.at_beginning() else LEAST_RISE
    if not state.positive:
        least = -math.inf
    return state.epochs.least_rise(rise, least)


def _in_a_row(state: LossState, z: float, grad_z: float) -> float:
    """By the last two steps and by the last three, the last of which has these z scores."""
    (earlier, last), (grad_earlier, grad_last) = state.zs, state.grad_zs
    two, grad_two = min(last, z), min(grad_last, grad_z)
    mean = (min(earlier, TWO_Z) + min(last, TWO_Z) + min(z, TWO_Z)) / 3.0
    return max(
        0.0,
        two / TWO_Z,
        min(mean / THREE_Z, min(earlier, two) / LEAST_OF_THREE),
        min(two, grad_two) / JOINT_TWO_Z,
        min(earlier, two, grad_earlier, grad_two) / JOINT_THREE_Z,
        min(two / STRONG_Z, grad_two / STRONG_GRAD_Z),
    )


def _follow_rate(state: LossState, rate: float | None) -> None:
    state.settling = max(0, state.settling - 1)
    if rate is not None and 0.0 <= rate < math.inf:
        if rate > RAISED * state.rate:
            state.drift, state.settling = Drift(), SETTLING
        state.rate = rate


def _follow_rows(state: LossState, step: int, loss: float) -> None:
    _follow_unit(state, loss)
    usual, state.gap = state.gap, step - state.last_step if state.last_step >= 0 else 0
    state.last_step = step
    state.alone = MANY_STEPS <= state.gap <= LATE * usual


def _follow_unit(state: LossState, loss: float) -> None:
    away, state.last = abs(loss - state.last), loss
    if not away > 0.0:
        return
    state.unit = away if away < state.unit else min(REGAINED * state.unit, HUGE)
    if state.changes < CHANGES:
        state.changes += 1


def _unit(state: LossState) -> float:
    """That of the last digit of a log, on the scale on which losses are watched: of a usual one."""
    if state.changes < CHANGES or not state.recent.newer:
        return 0.0
    if not state.positive:
        return state.unit
    return min(state.unit * math.exp(min(-middle(state.recent.newer), MOST_LOG)), MOST_UNIT)


def floor(state: LossState) -> float:
    """The least noise that is taken for one."""
    rounding = ROUNDED * _unit(state)
    if state.positive:
        return max(FLOOR, rounding)
    return max(RAW_FLOOR, rounding, FLOOR * abs(state.recent.values[-1]) if state.recent.values else 0.0)


def _leave_logarithms(state: LossState) -> None:
    """A loss that is not positive has none: from here on it is watched as it is."""
    state.positive = False
    state.recent.transform(math.exp)
    state.drift, state.epochs = Drift(), Epochs()


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
    state.zs, state.grad_zs, state.in_a_row = (0.0, 0.0), (0.0, 0.0), 0
    state.suspect_since, state.calm = -1, 0
    state.last_step, state.gap, state.alone = -1, 0, False
    state.rate, state.settling = math.inf, 0
    state.epochs.climbing = 0  # its rows go on being counted: some logs begin with every epoch from step 0
    state.last, state.unit, state.changes = math.nan, math.inf, 0


def restart(state: LossState) -> None:
    """The recipe changed: what was usual is not any more."""
    rewind(state, -1)
    state.epochs = Epochs()
    state.positive, state.strays, state.rows = True, 0.0, 0.0
