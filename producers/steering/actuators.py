"""The trainer's hands: what each action does here, and why it may not be done now.

`steering.safe_point` asks `refusal` on every rank when an intervention is proposed, against the values of that moment,
and calls `carry_out` on every rank at the agreed step. The bounds of an action itself were checked when it was read;
here are those of this trainer.
"""

from collections.abc import Collection
from typing import assert_never

from ...events.actions import (
    ACTIONS,
    LR_MULTIPLIER,
    Action,
    ActionKind,
    CheckpointNow,
    CheckpointRef,
    EvictRank,
    Notify,
    Pause,
    Resume,
    Revert,
    Rollback,
    ScaleLr,
    SetKnob,
    SetLr,
    SkipBatches,
    Stop,
)
from ...events.bounds import Bounds, beyond
from ...events.decisions import InterventionIssued
from ...events.errors import CheckpointError
from ..checkpoints.saving import Saving
from ..ranks.transaction import all_or_none
from ..voice import logger
from .effects import Effect
from .learning_rate import MULTIPLIER_MAX, MULTIPLIER_MIN
from .rollback import Trainer, remembered, roll_back
from .undoing import Undoing, values_of

KNOB_SECONDS = 60.0
EVICT_SECONDS = 60.0
SAVE_SECONDS = 600.0
TURNED_BY: tuple[tuple[str, ActionKind], ...] = tuple(
    (kind.knob, kind.model_fields["action"].default) for kind in ACTIONS if issubclass(kind, SetKnob)
)
"""By the knob that must be there."""
UNDOABLE = frozenset(kind.model_fields["action"].default for kind in ACTIONS if kind.undoable)


def is_risky(action: Action) -> bool:
    """Whether it may do harm that only an older state can heal: another recipe, and not just a gentler rate."""
    match action:
        case ScaleLr(factor=factor):
            return factor > 1.0
        case SetLr() | SetKnob():
            return True
        case _:
            return False


class Actuators:
    """Carries out actions on one rank's trainer."""

    def __init__(self, trainer: Trainer, only: Collection[ActionKind] | None = None) -> None:
        self._trainer = trainer
        self._only = only
        self._undoing = Undoing(trainer)

    @property
    def steers(self) -> tuple[ActionKind, ...]:
        """The actions that this trainer can carry out, of those that it was given (`only`; None: all). Who may change
        something may put it back.
        """
        given = tuple(kind for kind in self._possible() if self._only is None or kind in self._only)
        return (*given, "revert") if not UNDOABLE.isdisjoint(given) else given

    def offer(self, kinds: Collection[ActionKind]) -> None:
        """Do these as well, where only some may be done."""
        if self._only is not None:
            self._only = {*self._only, *kinds}

    def _possible(self) -> tuple[ActionKind, ...]:
        kinds: list[ActionKind] = []
        if self._trainer.lr.learning_rate is not None:
            kinds += ["scale_lr", "set_lr"]
        kinds += [kind for knob, kind in TURNED_BY if knob in self._trainer.knobs]
        if self._trainer.saving is not None:
            kinds += ["checkpoint_now", "rollback"]
        if self._trainer.evict is not None:
            kinds.append("evict_rank")
        return (*kinds, "skip_batches", "pause", "resume", "stop", "notify")

    def refusal(self, action: Action, bounds: Bounds = {}) -> str | None:  # noqa: B006  # a Mapping: nobody writes to it
        """Why this trainer would not do it now, within the policy's `bounds`; None when it would."""
        if action.action not in self.steers:
            return f"NotSteerable: this trainer cannot {action.action}; it can: {', '.join(self.steers)}"
        reason: str | None = None
        match action:
            case ScaleLr():
                reason = self._beyond(action.factor)
            case SetLr():
                reason = self._beyond_reach(action.value)
            case SetKnob(knob=knob, value=value):
                reason = self._trainer.knobs.refusal(knob, value)
            case Revert():
                reason = self._undoing.refusal(action)
            case Rollback():
                named = action.checkpoint is not None
                reason = self._beyond(action.lr_factor) if named else "NoCheckpoint: the command does not name one"
            case EvictRank():
                reason = self._not_there(action.rank)
            case CheckpointNow() | SkipBatches() | Pause() | Resume() | Stop() | Notify():
                pass
            case _ as unreachable:
                assert_never(unreachable)
        return reason or self._out_of_bounds(action, bounds)

    def carry_out(self, command: InterventionIssued, step: int) -> Effect:  # noqa: PLR0911  # one arm, one answer
        """Do it, after `step`, on this rank.

        Raises:
            BallotsLost: it needed the other ranks, and they cannot be reached: nothing was done here.
            RestartRequired: this rank is left in a state that must not be trained on.
        """
        trainer, action = self._trainer, command.action
        if is_risky(action) and (why := self._not_saved_before(command, step)):
            return Effect("failed", f"nothing was saved before it: {why}")
        match action:
            case ScaleLr() | SetLr() | SetKnob() | Revert():
                return self._turn_to(command, action)
            case CheckpointNow():
                return self._checkpoint(step)
            case SkipBatches():
                trainer.course.skip(action.count, command.intervention_id)
                return Effect("applied", f"the next {action.count} batches are dropped")
            case Rollback():
                assert trainer.saving is not None  # `refusal` has seen to it
                return roll_back(trainer, trainer.saving, command, action, step)
            case EvictRank():
                return self._evict(command, action)
            case Stop():
                return self._stop(action, step)
            case Pause() | Resume() | Notify():
                return Effect("applied")
            case _ as unreachable:
                assert_never(unreachable)

    def _turn_to(self, command: InterventionIssued, action: ScaleLr | SetLr | SetKnob | Revert) -> Effect:
        match action:
            case ScaleLr(factor=factor):
                return self._scale_lr(command, factor)
            case SetLr(value=value):
                return self._scale_lr(command, value / self._rate)
            case SetKnob(knob=knob, value=value):
                return self._turn(command, knob, value)
            case Revert():
                return self._revert(command, action)
            case _ as unreachable:
                assert_never(unreachable)

    def with_own_checkpoint(self, action: Action) -> Action:
        """A rollback of another run's, to the checkpoint of this run's own at the same step, where it has one."""
        saving = self._trainer.saving
        if not isinstance(action, Rollback) or action.checkpoint is None or saving is None:
            return action
        own = saving.checkpoints.at_step(action.checkpoint.step)
        return action if own is None else action.model_copy(update={"checkpoint": own})

    def _not_saved_before(self, command: InterventionIssued, step: int) -> str:
        """One more checkpoint before what may go wrong, on all ranks; why there is none. Where one is due at this very
        safe point, that is it.
        """
        saving = self._trainer.saving
        if saving is None or saving.checkpoints.due(step):
            return ""
        verdict = all_or_none(
            self._trainer.ballots, f"s/{command.intervention_id}", lambda: self._save(saving, step), SAVE_SECONDS
        )
        return "" if verdict.commit else verdict.reason

    def _beyond(self, factor: float) -> str | None:
        if not self._trainer.lr.beyond(factor):
            return None
        return (
            f"OutOfBounds: the learning rate's multiplier is {self._trainer.lr.value:g}; times {factor:g} "
            f"it would leave {MULTIPLIER_MIN:g} to {MULTIPLIER_MAX:g}"
        )

    @property
    def _rate(self) -> float:
        """What the first group steps with now."""
        return self._trainer.lr.learning_rate or 0.0

    def _beyond_reach(self, rate: float) -> str | None:
        if not (now := self._rate):
            return f"OutOfBounds: from a learning rate of 0 no factor leads to {rate:g}"
        return self._beyond(rate / now)

    def _not_there(self, rank: int | None) -> str | None:
        ranks = self._trainer.run.identity.world_size
        if rank is None:
            return "NoRank: the command does not name one"
        return None if rank < ranks else f"NoSuchRank: rank {rank} of {ranks}"

    def _out_of_bounds(self, action: Action, bounds: Bounds) -> str | None:
        """By the values of this moment. What this rank remembers to have found may lie anywhere: it was the trainer's
        own.
        """
        if not bounds or (isinstance(action, Revert) and self._undoing.remembers(action)):
            return None
        values = {} if isinstance(action, Revert) else values_of(self._trainer, action.changes)
        why = beyond(bounds, values, action.leaves(values))
        return None if why is None else f"OutOfBounds: {why}"

    def _scale_lr(self, command: InterventionIssued, factor: float) -> Effect:
        before = self._trainer.lr.numbers
        self._undoing.remember(command.intervention_id, self._undoing.of((LR_MULTIPLIER,)))
        self._trainer.lr.value *= factor
        return Effect("applied", before=before, after=self._trainer.lr.numbers)

    def _turn(self, command: InterventionIssued, name: str, value: float) -> Effect:
        """A setter is somebody else's code and may raise on one rank: then it is set back on all."""
        knobs, trainer = self._trainer.knobs, self._trainer
        was, undo = knobs.value(name), self._undoing.of((name,))
        committed = False
        try:
            verdict = all_or_none(
                trainer.ballots,
                f"t/{command.intervention_id}",
                lambda: knobs.turn(name, value),
                KNOB_SECONDS,
            )
            committed = verdict.commit
        finally:
            if not committed:
                undo()
        if not committed:
            return Effect("failed", verdict.reason)
        self._undoing.remember(command.intervention_id, undo)
        return Effect("applied", before={} if was is None else {name: was}, after={name: value})

    def _revert(self, command: InterventionIssued, action: Revert) -> Effect:
        """All of it on all ranks, or nothing: a setter may raise here as well."""
        before, again = values_of(self._trainer, action.values), self._undoing.of(action.values)
        committed = False
        try:
            verdict = all_or_none(
                self._trainer.ballots,
                f"t/{command.intervention_id}",
                lambda: self._undoing.put_back(action),
                KNOB_SECONDS,
            )
            committed = verdict.commit
        finally:
            if not committed:
                again()
        if not committed:
            return Effect("failed", verdict.reason)
        return Effect("applied", before=before, after=action.values | values_of(self._trainer, action.values))

    def _evict(self, command: InterventionIssued, action: EvictRank) -> Effect:
        """What asks the scheduler is somebody else's code: where it raises on one rank, nobody may rely on it."""
        evict, rank = self._trainer.evict, action.rank
        assert evict is not None  # `refusal` has seen to both
        assert rank is not None
        verdict = all_or_none(self._trainer.ballots, f"t/{command.intervention_id}", lambda: evict(rank), EVICT_SECONDS)
        if not verdict.commit:
            return Effect("failed", verdict.reason)
        return Effect("applied", f"rank {rank} is to be replaced", after={"rank": rank})

    def _checkpoint(self, step: int) -> Effect:
        saving = self._trainer.saving
        assert saving is not None  # `refusal` has seen to it
        try:
            ref = self._save(saving, step)
        except CheckpointError as error:
            return Effect("failed", str(error))
        return Effect("applied", f"saved {ref.checkpoint_id}" if ref is not None else "")

    def _save(self, saving: Saving, step: int) -> CheckpointRef | None:
        trainer = self._trainer
        trainer.lr.settle()
        return saving.save(step, trainer.course.position, remembered(trainer))

    def _stop(self, action: Stop, step: int) -> Effect:
        trainer = self._trainer
        trainer.course.stopping = True
        trainer.run.ending("stopped")
        saved = Effect("applied", "no last checkpoint was asked for")
        if action.checkpoint and trainer.saving is not None:
            saved = self._checkpoint(step)
        trainer.run.stage("stop", step)
        if saved.outcome == "failed":
            logger.error("pilothouse: the run stops without a last checkpoint: %s", saved.reason)
            return Effect("applied", f"no last checkpoint: {saved.reason}")
        return saved
