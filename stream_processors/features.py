"""Rolling stability features of one run: how far this step is from the run's own recent past.

The loss is watched in its logarithm while it is positive, so that nothing depends on its unit, the gradient norm
always. `usual` says where each of them is and how much it scatters, `drift` whether the loss climbs slowly. One-sided:
a loss that falls is no alarm. `instability` joins the evidence, in units of what it takes to alarm: steps in a row that
stand out, one that stands out together with its gradient, one that is out of all proportion, a climb.

Values beyond the usual enter the windows clipped, and none enters them while the run is unstable: no incident, however
long, teaches the detector that it is normal. (A lasting change of level that is meant is announced, by
`RecipeChanged`.) Called by `judging`; the names are declared in `governance.expressions.FEATURES`. Where the numbers
come from: docs/detection.md.
"""

import math

import msgspec

from .drift import BOUND, LEAST_CLIMB, SUSPECT, Drift
from .usual import Recent

TWO_Z, THREE_Z = 7.0, 4.0
"""Z scores of the loss that alarm when two steps in a row have them, and three."""
JOINT_Z, JOINT_GRAD_Z, JOINT_RISE = 5.0, 6.0, 0.15
"""A single step alarms when both stand out and the loss rises by so much (in its logarithm)."""
HUGE_Z, HUGE_RISE = 30.0, 1.0
"""... and by itself when it is out of all proportion."""
SUSPECT_Z = 3.0
"""From this z score on a step counts as evidence of an incident, though not yet as one."""
CALM_STEPS = 3
HUGE = 1e150
"""Losses enter the features within this, so that no difference or quotient of them overflows."""
LOSS_FLOOR, GRAD_FLOOR = 0.005, 0.05
"""The least noise: half a percent of the loss, five percent of the norm."""
RAW_FLOOR = 1e-9
"""The least noise of a loss that has no logarithm, beside half a percent of itself."""


class FeatureState(msgspec.Struct):
    """What the features remember. `suspect_since` is the first step of the excursion that is going on, -1 without
    one; `zs` are the z scores of the loss at the last two steps.
    """

    loss: Recent = msgspec.field(default_factory=Recent)
    log_grad: Recent = msgspec.field(default_factory=Recent)
    drift: Drift = msgspec.field(default_factory=Drift)
    positive: bool = True
    zs: tuple[float, float] = (0.0, 0.0)
    observed: int = 0
    suspect_since: int = -1
    calm: int = 0
    val_loss: float | None = None


class StepSample(msgspec.Struct, frozen=True):
    """One step of the whole run: the means over the ranks, None where nobody logged it."""

    step: int
    at: int
    ranks: int
    loss: float | None
    grad_norm: float | None
    lr: float | None
    nonfinite: int


def observe(state: FeatureState, sample: StepSample, *, learning: bool = True) -> dict[str, float]:
    """The features of one more step; only those that are known. Unless `learning`, the baseline stays as it is."""
    features: dict[str, float] = {"nonfinite": float(sample.nonfinite), "ranks_reporting": float(sample.ranks)}
    named = {"loss": sample.loss, "grad_norm": sample.grad_norm, "lr": sample.lr, "val_loss": state.val_loss}
    features |= {name: value for name, value in named.items() if value is not None}
    features |= _grad_features(state, sample, learning=learning)
    features |= _loss_features(state, sample, features.get("grad_z", 0.0), learning=learning)
    state.observed += 1
    features["steps_observed"] = float(state.observed)
    _follow_excursion(state, sample.step, features.get("loss_z"), sample.nonfinite)
    return features


def onset(state: FeatureState) -> int:
    """The first step of what is wrong now, estimated backwards; -1 while nothing is suspect."""
    climbing = state.drift.since if state.drift.total >= SUSPECT * BOUND else -1
    return min((step for step in (state.suspect_since, climbing) if step >= 0), default=-1)


def _loss_features(state: FeatureState, sample: StepSample, grad_z: float, *, learning: bool) -> dict[str, float]:
    if sample.loss is None or not math.isfinite(sample.loss):
        return {}
    loss = max(-HUGE, min(sample.loss, HUGE))
    if state.positive and loss <= 0.0:
        _leave_logarithms(state)
    value = math.log(loss) if state.positive else loss
    floor = _floor(state)
    usual = state.loss.baseline(floor)
    state.drift.observe(sample.step, value, state.loss.blocks, usual.noise if usual else floor)
    if learning or usual is None:
        state.loss.push(sample.step, value, usual)
    if usual is None:
        return {}
    z, rise = usual.z(value), value - usual.location
    climb = state.drift.share(usual.noise, LEAST_CLIMB if state.positive else 0.0)
    jump = _jump(state, z, rise, grad_z)
    state.zs = (state.zs[1], z)
    location = math.exp(usual.location) if state.positive else usual.location
    return {
        "loss_z": z,
        "loss_baseline": location,
        "loss_scale": usual.scale * (location if state.positive else 1.0),
        "loss_rise": loss - location,
        "loss_drift": climb,
        "instability": max(jump, climb),
    }


def _jump(state: FeatureState, z: float, rise: float, grad_z: float) -> float:
    """How near the last steps come to an alarm, 1 being one; and a lone outlier none."""
    earlier, last = state.zs
    shares = [min(last, z) / TWO_Z, min(earlier, last, z) / THREE_Z]
    if rise >= JOINT_RISE or not state.positive:
        shares.append(min(z / JOINT_Z, grad_z / JOINT_GRAD_Z))
    if rise >= HUGE_RISE and state.positive:
        shares.append(z / HUGE_Z)
    return max(0.0, *shares)


def _floor(state: FeatureState) -> float:
    if state.positive:
        return LOSS_FLOOR
    return max(RAW_FLOOR, LOSS_FLOOR * abs(state.loss.values[-1]) if state.loss.values else 0.0)


def _leave_logarithms(state: FeatureState) -> None:
    """A loss that is not positive has none: from here on it is watched as it is."""
    state.positive = False
    state.loss.transform(math.exp)
    state.drift = Drift()


def _grad_features(state: FeatureState, sample: StepSample, *, learning: bool) -> dict[str, float]:
    if sample.grad_norm is None or not math.isfinite(sample.grad_norm) or sample.grad_norm <= 0.0:
        return {}
    value = math.log(sample.grad_norm)
    usual = state.log_grad.baseline(GRAD_FLOOR)
    if learning or usual is None:
        state.log_grad.push(sample.step, value, usual)
    return {} if usual is None else {"grad_z": usual.z(value)}


def _follow_excursion(state: FeatureState, step: int, loss_z: float | None, nonfinite: int) -> None:
    if nonfinite or (loss_z is not None and loss_z >= SUSPECT_Z):
        state.calm = 0
        if state.suspect_since < 0:
            state.suspect_since = step
    elif state.suspect_since >= 0:
        state.calm += 1
        if state.calm >= CALM_STEPS:
            state.suspect_since, state.calm = -1, 0


def rewind(state: FeatureState, step: int) -> None:
    """The run went back to `step` (a rollback, a restart): keep only what was seen up to there."""
    state.loss.rewind(step)
    state.log_grad.rewind(step)
    state.drift.rewind(step)
    state.zs = (0.0, 0.0)
    state.observed = len(state.loss.values)
    state.suspect_since, state.calm = -1, 0


def restart(state: FeatureState) -> None:
    """The recipe changed: what was usual is not any more."""
    rewind(state, -1)
    state.positive = True
