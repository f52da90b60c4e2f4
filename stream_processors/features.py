"""The features of one step of a run: what every detector says of it, under the names that policies may use.

Called by `judging` for each ready step; the names are declared in `governance.expressions.FEATURES`.
"""

from operator import is_not

import msgspec

from .detectors import chance, generalization, gradient, loss, pace, progress, ranks, start, updates
from .detectors.chance import ChanceState
from .detectors.generalization import GeneralizationState
from .detectors.gradient import GradientState
from .detectors.loss import Known, LossState
from .detectors.pace import PaceState
from .detectors.progress import ProgressState
from .detectors.ranks import RanksState
from .detectors.sample import StepSample
from .detectors.start import StartState
from .detectors.updates import UpdateState

MOST_OVERFLOWS = 1_000_000


class FeatureState(msgspec.Struct):
    """What the detectors remember. `of_blocks` is what those that look at many steps at once said last; `news`, whether
    any of them has spoken since they were judged.
    """

    loss: LossState = msgspec.field(default_factory=LossState)
    gradient: GradientState = msgspec.field(default_factory=GradientState)
    start: StartState = msgspec.field(default_factory=StartState)
    updates: UpdateState = msgspec.field(default_factory=UpdateState)
    progress: ProgressState = msgspec.field(default_factory=ProgressState)
    chance: ChanceState = msgspec.field(default_factory=ChanceState)
    generalization: GeneralizationState = msgspec.field(default_factory=GeneralizationState)
    pace: PaceState = msgspec.field(default_factory=PaceState)
    ranks: RanksState = msgspec.field(default_factory=RanksState)
    observed: int = 0
    overflows: int = 0
    val_loss: float | None = None
    val_split: str = ""
    of_blocks: dict[str, float] = {}
    news: bool = True


def observe(state: FeatureState, sample: StepSample, *, learning: bool = True) -> dict[str, float]:
    """The features of one more step; only those that are known. Unless `learning`, no baseline changes."""
    seen: dict[str, float] = {"nonfinite": float(sample.nonfinite), "ranks_reporting": float(sample.ranks)}
    if sample.nonfinite:
        seen |= {"nonfinite_losses": float(sample.nonfinite_losses), "nonfinite_rank": float(sample.bad_rank)}
    if sample.loss is not None:
        seen["loss"] = sample.loss
    if sample.grad_norm is not None:
        seen["grad_norm"] = sample.grad_norm
    if state.val_loss is not None:
        seen["val_loss"] = state.val_loss
    seen |= sample.told
    seen |= gradient.observe(state.gradient, sample, learning=learning)
    begun = start.observe(state.start, sample)
    known = Known(seen.get("grad_z", 0.0), seen.get("grad_baseline"), state.start.proven)
    seen |= loss.observe(state.loss, sample, known, learning=learning)
    seen |= begun
    _follow_overflows(state, sample, seen)
    if _observe_blocks(state, sample):
        _hear_blocks(state)
    seen |= state.of_blocks
    state.observed += 1
    seen["steps_observed"] = float(state.observed)
    return seen


def _follow_overflows(state: FeatureState, sample: StepSample, seen: dict[str, float]) -> None:
    """Gradients that are not finite while the loss is as usual: a loss scaler that tries, unless it is every time."""
    as_usual = sample.loss is not None and sample.nonfinite_losses == 0 and seen.get("instability", 0.0) < 1.0
    is_overflow = sample.nonfinite > 0 and as_usual
    state.overflows = min(state.overflows + 1, MOST_OVERFLOWS) if is_overflow else 0
    if state.overflows:
        seen["overflows"] = float(state.overflows)


def _observe_blocks(state: FeatureState, sample: StepSample) -> bool:
    """Whether any of them says something new: until a block is complete it answers with what it said before."""
    said = (state.updates.seen, state.progress.seen, state.chance.seen, state.pace.seen, state.ranks.seen)
    now = (
        updates.observe(state.updates, sample),
        progress.observe(state.progress, sample),
        chance.observe(state.chance, sample),
        pace.observe(state.pace, sample),
        ranks.observe(state.ranks, sample),
    )
    return any(map(is_not, now, said))


def _hear_blocks(state: FeatureState) -> None:
    learned = state.progress.seen | state.chance.seen
    state.of_blocks = state.updates.seen | learned | state.generalization.seen | state.pace.seen | state.ranks.seen
    state.news = True


def evaluate(state: FeatureState, step: int, val_loss: float, split: str) -> None:
    """A validation loss, which rank 0 told after `step`. The first split that comes is followed, and no other."""
    state.val_split = state.val_split or split
    if split != state.val_split:
        return
    state.val_loss = val_loss
    usual = state.loss.recent.baseline(loss.FLOOR) if state.loss.positive else None
    generalization.observe(state.generalization, step, val_loss, usual.location if usual else None)
    _hear_blocks(state)


def onset(state: FeatureState) -> int:
    """The first step of what makes the run unstable now, estimated backwards; -1 while nothing is suspect."""
    first = -1
    for suspect in (loss.onset(state.loss), gradient.onset(state.gradient), start.onset(state.start)):
        if suspect >= 0 and (first < 0 or suspect < first):
            first = suspect
    return first


def rewind(state: FeatureState, step: int) -> None:
    """The run went back to `step` (a rollback, a restart): keep only what was seen up to there."""
    loss.rewind(state.loss, step)
    gradient.rewind(state.gradient, step)
    start.rewind(state.start, step)
    updates.rewind(state.updates, step)
    progress.rewind(state.progress, step)
    chance.rewind(state.chance, step)
    generalization.rewind(state.generalization, step)
    pace.restart(state.pace)
    state.observed, state.overflows = len(state.loss.recent.values), 0
    _hear_blocks(state)


def regroup(state: FeatureState) -> None:
    """Another attempt of the run: its ranks may be other machines."""
    ranks.restart(state.ranks)
    _hear_blocks(state)


def restart(state: FeatureState) -> None:
    """The recipe changed: what was usual is not any more."""
    rewind(state, -1)
    loss.restart(state.loss)
    progress.restart(state.progress)
    generalization.restart(state.generalization)
    _hear_blocks(state)
