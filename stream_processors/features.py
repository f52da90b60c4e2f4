"""The features of one step of a run: what every detector says of it, under the names that policies may use.

Called by `judging` for each ready step; the names are declared in `governance.expressions.FEATURES`.
"""

import msgspec

from .detectors import gradient, loss, ranks
from .detectors.gradient import GradientState
from .detectors.loss import LossState
from .detectors.ranks import RanksState
from .detectors.sample import StepSample


class FeatureState(msgspec.Struct):
    """What the detectors remember."""

    loss: LossState = msgspec.field(default_factory=LossState)
    gradient: GradientState = msgspec.field(default_factory=GradientState)
    ranks: RanksState = msgspec.field(default_factory=RanksState)
    observed: int = 0
    val_loss: float | None = None


def observe(state: FeatureState, sample: StepSample, *, learning: bool = True) -> dict[str, float]:
    """The features of one more step; only those that are known. Unless `learning`, no baseline changes."""
    seen: dict[str, float] = {"nonfinite": float(sample.nonfinite), "ranks_reporting": float(sample.ranks)}
    named = {"loss": sample.loss, "grad_norm": sample.grad_norm, "val_loss": state.val_loss, **sample.told}
    seen |= {name: value for name, value in named.items() if value is not None}
    seen |= gradient.observe(state.gradient, sample, learning=learning)
    seen |= loss.observe(state.loss, sample, seen.get("grad_z", 0.0), learning=learning)
    seen |= ranks.observe(state.ranks, sample)
    state.observed += 1
    seen["steps_observed"] = float(state.observed)
    return seen


def onset(state: FeatureState) -> int:
    """The first step of what is wrong now, estimated backwards; -1 while nothing is suspect."""
    return loss.onset(state.loss)


def rewind(state: FeatureState, step: int) -> None:
    """The run went back to `step` (a rollback, a restart): keep only what was seen up to there."""
    loss.rewind(state.loss, step)
    gradient.rewind(state.gradient, step)
    state.observed = len(state.loss.recent.values)


def regroup(state: FeatureState) -> None:
    """Another attempt of the run: its ranks may be other machines."""
    ranks.restart(state.ranks)


def restart(state: FeatureState) -> None:
    """The recipe changed: what was usual is not any more."""
    rewind(state, -1)
    loss.restart(state.loss)
