"""The features of one step of a run: what every detector says of it, under the names that policies may use.

Called by `judging` for each ready step; the names are declared in `governance.expressions.FEATURES`.
"""

import msgspec

from .detectors import generalization, gradient, loss, pace, progress, ranks, start, updates
from .detectors.generalization import GeneralizationState
from .detectors.gradient import GradientState
from .detectors.loss import LossState
from .detectors.pace import PaceState
from .detectors.progress import ProgressState
from .detectors.ranks import RanksState
from .detectors.sample import StepSample
from .detectors.start import StartState
from .detectors.updates import UpdateState


class FeatureState(msgspec.Struct):
    """What the detectors remember."""

    loss: LossState = msgspec.field(default_factory=LossState)
    gradient: GradientState = msgspec.field(default_factory=GradientState)
    start: StartState = msgspec.field(default_factory=StartState)
    updates: UpdateState = msgspec.field(default_factory=UpdateState)
    progress: ProgressState = msgspec.field(default_factory=ProgressState)
    generalization: GeneralizationState = msgspec.field(default_factory=GeneralizationState)
    ranks: RanksState = msgspec.field(default_factory=RanksState)
    pace: PaceState = msgspec.field(default_factory=PaceState)
    observed: int = 0
    val_loss: float | None = None


def observe(state: FeatureState, sample: StepSample, *, learning: bool = True) -> dict[str, float]:
    """The features of one more step; only those that are known. Unless `learning`, no baseline changes."""
    seen: dict[str, float] = {"nonfinite": float(sample.nonfinite), "ranks_reporting": float(sample.ranks)}
    named = {"loss": sample.loss, "grad_norm": sample.grad_norm, "val_loss": state.val_loss, **sample.told}
    seen |= {name: value for name, value in named.items() if value is not None}
    seen |= gradient.observe(state.gradient, sample, learning=learning)
    seen |= loss.observe(state.loss, sample, seen.get("grad_z", 0.0), learning=learning)
    seen |= start.observe(state.start, sample)
    seen |= updates.observe(state.updates, sample)
    seen |= progress.observe(state.progress, sample)
    seen |= state.generalization.seen
    seen |= ranks.observe(state.ranks, sample)
    seen |= pace.observe(state.pace, sample)
    state.observed += 1
    seen["steps_observed"] = float(state.observed)
    return seen


def evaluate(state: FeatureState, step: int, val_loss: float) -> None:
    """A validation loss, which rank 0 told after `step`."""
    state.val_loss = val_loss
    usual = state.loss.recent.baseline(loss.FLOOR) if state.loss.positive else None
    generalization.observe(state.generalization, step, val_loss, usual.location if usual else None)


def onset(state: FeatureState) -> int:
    """The first step of what makes the run unstable now, estimated backwards; -1 while nothing is suspect."""
    suspects = (loss.onset(state.loss), gradient.onset(state.gradient), start.onset(state.start))
    return min((step for step in suspects if step >= 0), default=-1)


def rewind(state: FeatureState, step: int) -> None:
    """The run went back to `step` (a rollback, a restart): keep only what was seen up to there."""
    loss.rewind(state.loss, step)
    gradient.rewind(state.gradient, step)
    start.rewind(state.start, step)
    updates.rewind(state.updates, step)
    progress.rewind(state.progress, step)
    generalization.rewind(state.generalization, step)
    pace.restart(state.pace)
    state.observed = len(state.loss.recent.values)


def regroup(state: FeatureState) -> None:
    """Another attempt of the run: its ranks may be other machines."""
    ranks.restart(state.ranks)


def restart(state: FeatureState) -> None:
    """The recipe changed: what was usual is not any more."""
    rewind(state, -1)
    loss.restart(state.loss)
    progress.restart(state.progress)
    generalization.restart(state.generalization)
