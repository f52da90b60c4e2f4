"""Rolling stability features of one run: how far this step is from the run's own recent past.

Robust location and scale (median and scaled median absolute deviation, Huber 1981) over a short window of judged
steps, one-sided: a loss that falls is no alarm. Values beyond the threshold enter the window clipped, and none
enters it while the run is unstable: no incident, however long, teaches the detector that it is normal. (A lasting
change of level that is meant is announced, by `RecipeChanged`.) The cost per step is that of sorting a window of fixed
length. Called by `judging`; the names are declared in
`governance.expressions.FEATURES`.
"""

import math
from statistics import median

import msgspec

WINDOW = 48
MIN_BASELINE = 16
"""Values needed before there is a baseline to be compared with."""
MAD_TO_SIGMA = 1.4826
CLIP_Z = 4.0
SUSPECT_Z = 3.0
"""From this z score on a step counts as evidence of an incident, though not yet as one."""
CALM_STEPS = 3
HUGE = 1e150
"""Losses enter the features within this, so that no difference or quotient of them overflows."""
RELATIVE_FLOOR = 0.005
"""The scale is never taken for less than this fraction of the median: a plateau without noise is not a reason to
alarm.
"""


class Window(msgspec.Struct):
    """The last values and the steps they belong to, oldest first."""

    values: list[float] = []
    steps: list[int] = []

    def push(self, step: int, value: float) -> None:
        self.values.append(value)
        self.steps.append(step)
        if len(self.values) > WINDOW:
            del self.values[0], self.steps[0]

    def rewind(self, step: int) -> None:
        """Forget what came after `step`: the run went back there."""
        kept = sum(1 for known in self.steps if known <= step)
        del self.values[kept:], self.steps[kept:]


class Baseline(msgspec.Struct, frozen=True):
    """Where a value usually is, and how much it scatters, in the value's own unit."""

    location: float
    scale: float

    def z(self, value: float) -> float:
        return (value - self.location) / self.scale


class FeatureState(msgspec.Struct):
    """What the features remember. `suspect_since` is the first step of the excursion that is going on, -1 without
    one.
    """

    loss: Window = msgspec.field(default_factory=Window)
    log_grad: Window = msgspec.field(default_factory=Window)
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


def baseline(window: Window) -> Baseline | None:
    """Median and scale of a window, None while it is too short."""
    if len(window.values) < MIN_BASELINE:
        return None
    location = median(window.values)
    mad = median([abs(value - location) for value in window.values])
    return Baseline(location, max(MAD_TO_SIGMA * mad, RELATIVE_FLOOR * abs(location), 1e-9))


def observe(state: FeatureState, sample: StepSample, *, learning: bool = True) -> dict[str, float]:
    """The features of one more step; only those that are known. Unless `learning`, the baseline stays as it is."""
    features: dict[str, float] = {"nonfinite": float(sample.nonfinite), "ranks_reporting": float(sample.ranks)}
    named = {"loss": sample.loss, "grad_norm": sample.grad_norm, "lr": sample.lr, "val_loss": state.val_loss}
    features |= {name: value for name, value in named.items() if value is not None}
    features |= _loss_features(state, sample, learning=learning)
    features |= _grad_features(state, sample, learning=learning)
    state.observed += 1
    features["steps_observed"] = float(state.observed)
    _follow_excursion(state, sample.step, features.get("loss_z"), sample.nonfinite)
    return features


def _loss_features(state: FeatureState, sample: StepSample, *, learning: bool) -> dict[str, float]:
    if sample.loss is None or not math.isfinite(sample.loss):
        return {}
    usual = baseline(state.loss)
    loss = max(-HUGE, min(sample.loss, HUGE))
    if usual is None:
        state.loss.push(sample.step, loss)
        return {}
    if learning:
        state.loss.push(sample.step, min(loss, usual.location + CLIP_Z * usual.scale))
    return {
        "loss_z": usual.z(loss),
        "loss_baseline": usual.location,
        "loss_scale": usual.scale,
        "loss_rise": loss - usual.location,
    }


def _grad_features(state: FeatureState, sample: StepSample, *, learning: bool) -> dict[str, float]:
    if sample.grad_norm is None or not math.isfinite(sample.grad_norm) or sample.grad_norm <= 0.0:
        return {}
    value = math.log(sample.grad_norm)
    usual = baseline(state.log_grad)
    if usual is None:
        state.log_grad.push(sample.step, value)
        return {}
    scale = max(usual.scale, 0.05)  # five percent of the norm: the log has no natural unit to take a fraction of
    usual = Baseline(usual.location, scale)
    if learning:
        state.log_grad.push(sample.step, min(value, usual.location + CLIP_Z * scale))
    return {"grad_z": usual.z(value)}


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
    state.observed = len(state.loss.values)
    state.suspect_since, state.calm = -1, 0


def restart(state: FeatureState) -> None:
    """The recipe changed: what was usual is not any more."""
    rewind(state, -1)
