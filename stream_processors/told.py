"""What rank 0 tells of a step beside its numbers: which of it the core waits with until that step is judged, and what
happens then.

`fold` asks `meaning_of` when a fact comes, keeps the answer in the attempt, and calls `take_effect` behind its step.
"""

from typing import assert_never

from ..events.telemetry import (
    LR_RAMP,
    CheckpointRestored,
    CheckpointSaved,
    CheckpointUnavailable,
    EvalCompleted,
    InterventionReceipt,
    RecipeChanged,
)
from ..events.union import AnyTelemetry
from ..governance import verification
from ..governance.desk import Desk
from ..governance.interventions import known_values
from ..governance.recovery import Candidate
from ..governance.verification import Receipt
from . import features, judging
from .run_state import Evaluated, LostCheckpoint, NewRecipe, Restored, RunState, SavedCheckpoint, Told

REASON_LENGTH = 300
RECIPE_LENGTH = 100


def meaning_of(fact: AnyTelemetry) -> tuple[int, Told] | None:
    """The step a fact speaks of, and what it means to the core; None for what only people read."""
    match fact:
        case CheckpointSaved() | CheckpointUnavailable() | CheckpointRestored():
            told = _of_checkpoint(fact)
            return None if told is None else (fact.step, told)
        case RecipeChanged(step=step):
            return step, NewRecipe(fact.what[:RECIPE_LENGTH], known_values(fact.numbers))
        case EvalCompleted(step=step):
            loss = next((fact.metrics[name] for name in ("loss", "val_loss") if name in fact.metrics), None)
            return None if loss is None else (step, Evaluated(loss, fact.split))
        case InterventionReceipt(step=step):
            values = known_values(fact.before), known_values(fact.after)
            return step, Receipt(fact.intervention_id, fact.outcome, step, fact.reason[:REASON_LENGTH], *values)
        case _:
            return None


def _of_checkpoint(fact: CheckpointSaved | CheckpointUnavailable | CheckpointRestored) -> Told | None:
    match fact:
        case CheckpointSaved(step=step):
            ref = (fact.checkpoint_id, step, fact.path, fact.manifest_sha256)
            return SavedCheckpoint(Candidate(*ref, stable=False, by_script=fact.by_script))
        case CheckpointUnavailable(how="not_saved"):
            return None  # it never was one
        case CheckpointUnavailable():
            return LostCheckpoint(fact.checkpoint_id, fact.reason[:REASON_LENGTH], rotated=fact.how == "rotated")
        case CheckpointRestored():
            return Restored(fact.seconds_lost)
        case _ as unreachable:
            assert_never(unreachable)


def take_effect(state: RunState, told: Told, desk: Desk) -> None:
    """Its step is judged."""
    match told:
        case SavedCheckpoint(candidate):
            judging.checkpoint_saved(state, candidate, desk)
        case LostCheckpoint():
            judging.checkpoint_lost(state, told, desk)
        case Restored(seconds_lost):
            if state.incident is not None and state.current is not None:
                state.incident.cost(seconds_lost, state.current.world_size)
        case NewRecipe(what, values):
            state.ledger.learn(values)
            if what != LR_RAMP:  # what came back in small steps is no other recipe
                features.restart(state.features)
                verification.cut_short(state.ledger, f"the recipe changed at step {desk.step}: {what}", desk)
        case Evaluated(val_loss, split):
            features.evaluate(state.features, desk.step, val_loss, split)
        case Receipt():
            verification.receive(state.ledger, told, state.candidates, desk)
            judging.recoverable(state, desk)
            judging.rephase(state, desk)
        case _ as unreachable:
            assert_never(unreachable)
