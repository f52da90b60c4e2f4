"""Back to a checkpoint as one transaction over all ranks, and the restart of a process from its newest one.

`steering.actuators` calls `roll_back` when all ranks stand at the agreed step, `steering.pilot` calls
`restore_latest` before the loop. Every rank verifies and loads the checkpoint into memory, then all swap it in or none
does (`ranks.transaction`).
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from ...events.actions import CheckpointRef, Rollback
from ...events.decisions import InterventionIssued
from ...events.envelope import derived_attempt_id
from ...events.errors import CheckpointError
from ...events.telemetry import CheckpointRestored
from ..checkpoints.manifest import Manifest
from ..checkpoints.saving import Saving
from ..checkpoints.store import step_of
from ..checkpoints.trainer_state import Loaded
from ..checkpoints.work_clock import WorkClock
from ..ranks.ballots import Ballots
from ..ranks.transaction import all_or_none
from ..teller import Teller
from ..voice import logger
from .course import Course
from .effects import Effect, tell_receipt
from .following import Following
from .knobs import Knobs
from .learning_rate import LrMultiplier, Ramp

RESTORE_SECONDS = 600.0
_NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Trainer:
    """Everything of one rank that an intervention may change. `evict` asks whoever places ranks to replace one."""

    run: Teller
    ballots: Ballots
    lr: LrMultiplier
    knobs: Knobs
    course: Course
    saving: Saving | None
    following: Following | None = None
    clock: WorkClock = field(default_factory=WorkClock)
    evict: Callable[[int], object] | None = None


@dataclass(frozen=True, slots=True)
class _Price:
    """What going back cost: steps undone, seconds of training and restoring, and of these the restoring."""

    steps_lost: int
    seconds_lost: float
    took_s: float


def remembered(trainer: Trainer) -> dict[str, object]:
    """What the pilot itself keeps in a checkpoint."""
    ramp = trainer.lr.ramp
    kept: dict[str, object] = {
        "lr_multiplier": trainer.lr.steered,
        "lr_ramp": [ramp.factor, ramp.first, ramp.steps] if ramp is not None else None,
        "knobs": dict(trainer.knobs.turned),
        "worth_s": trainer.clock.seconds,
    }
    return kept if trainer.following is None else kept | {"followed": trainer.following.standing()}


def roll_back(trainer: Trainer, saving: Saving, command: InterventionIssued, action: Rollback, step: int) -> Effect:
    """Restore, cut the learning rate, go on behind the suspect data, in a new attempt; or, on every rank, nothing of
    it.

    Raises:
        BallotsLost: this rank cannot know what the others did.
        RestartRequired: this rank could not swap in what it had prepared.
    """
    assert action.checkpoint is not None  # `refusal` has seen to it
    ref, before, began = action.checkpoint, trainer.lr.value, time.monotonic()
    prepared: list[tuple[Manifest, Loaded]] = []
    verdict = all_or_none(
        trainer.ballots, f"t/{command.intervention_id}", lambda: prepared.append(saving.prepare(ref)), RESTORE_SECONDS
    )
    if not verdict.commit:
        return Effect("failed", verdict.reason)
    loaded = prepared[0][1]
    trainer.lr.settle()
    _give_up_what_came_after(trainer, saving, ref)
    saving.install(loaded)
    trainer.knobs.turn_again()
    trainer.lr.cut(action.lr_factor, action.lr_ramp_steps, ref.step)
    lost = trainer.clock.go_back_to(float(loaded.pilot["worth_s"]))
    effect = Effect(
        "applied",
        f"restored {ref.checkpoint_id}",
        before={"step": step, "lr_multiplier": before},
        after={"step": ref.step, "lr_multiplier": trainer.lr.value, **_ramp_numbers(action)},
        told=True,
    )
    # Before the attempt ends that it was issued for: in the next one its step is still to come.
    tell_receipt(trainer.run, command, effect, step)
    parent = trainer.run.identity.attempt_id
    saving.parent_attempt_id = parent
    attempt_id = derived_attempt_id(parent, command.intervention_id)
    trainer.run.begin_attempt("rollback", first_step=ref.step + 1, parent=parent, attempt_id=attempt_id)
    _tell_restored(trainer, ref, _Price(max(0, step - ref.step), lost, time.monotonic() - began))
    trainer.course.go_back_to(ref.step)
    trainer.course.skip(action.skip_batches, command.intervention_id)
    return effect


def _give_up_what_came_after(trainer: Trainer, saving: Saving, ref: CheckpointRef) -> None:
    """Marked before anything is swapped in: a process that dies in the midst of it must not be restarted from them."""
    if trainer.ballots.rank != 0:
        return
    try:
        saving.checkpoints.abandon_after(ref, trainer.run.identity.attempt_id)
    except (CheckpointError, OSError) as error:
        logger.warning(
            "pilothouse: the checkpoints after %s could not be marked as given up: %s", ref.checkpoint_id, error
        )


def restore_latest(trainer: Trainer, saving: Saving) -> int | None:
    """Continue from the newest checkpoint that every rank can read: its step; None when there is none.

    Raises:
        BallotsLost: the ranks cannot agree.
        RestartRequired: as `roll_back`.
    """
    if trainer.ballots.rank == 0:
        for name, reason in saving.checkpoints.damaged():
            saving.tell_unavailable(step_of(name), name, "unusable", reason)
    candidates = saving.checkpoints.newest_first() if trainer.ballots.rank == 0 else iter(())
    for number in range(1_000):
        mine = next(candidates, None)
        word = mine.model_dump_json() if mine is not None else _NOTHING
        word = _from_rank_zero(trainer.ballots, f"restore/{number}", word)
        if word == _NOTHING:
            return None
        ref = CheckpointRef.model_validate_json(word)
        prepared: list[tuple[Manifest, Loaded]] = []
        verdict = all_or_none(
            trainer.ballots,
            f"restore/{number}/ready",
            lambda ref=ref, prepared=prepared: prepared.append(saving.prepare(ref)),  # type: ignore[misc]
            RESTORE_SECONDS,
        )
        if verdict.commit:
            _continue(trainer, saving, ref, *prepared[0])
            return ref.step
        logger.warning("pilothouse: %s is passed over for an older one: %s", ref.checkpoint_id, verdict.reason)
        if trainer.ballots.rank == 0 and verdict.kind == "refused":
            saving.tell_unavailable(ref.step, ref.checkpoint_id, "unusable", verdict.reason)
    return None


def _from_rank_zero(ballots: Ballots, key: str, word: str) -> str:
    if ballots.rank == 0:
        return ballots.settle(key, word, RESTORE_SECONDS)
    heard = ballots.wait(key, RESTORE_SECONDS)
    return heard if heard is not None else ballots.settle(key, _NOTHING, RESTORE_SECONDS)


def _continue(trainer: Trainer, saving: Saving, ref: CheckpointRef, manifest: Manifest, loaded: Loaded) -> None:
    saving.install(loaded)
    trainer.lr.steered = float(loaded.pilot["lr_multiplier"])
    trainer.lr.go_on(_ramp_of(loaded.pilot), ref.step)
    trainer.clock.go_back_to(float(loaded.pilot["worth_s"]))
    for name, value in loaded.pilot["knobs"].items():
        if trainer.knobs.refusal(name, value) is None:
            trainer.knobs.turn(name, value)
    trainer.course.continue_from(manifest.step, manifest.data_position)
    saving.parent_attempt_id = manifest.attempt_id
    attempt_id = derived_attempt_id(trainer.run.identity.attempt_id, f"restart from {ref.checkpoint_id}")
    trainer.run.begin_attempt("restart", ref.step + 1, parent=manifest.attempt_id, attempt_id=attempt_id)
    if trainer.following is not None:
        trainer.following.resume(loaded.pilot.get("followed"), ref.step)
    _tell_restored(trainer, ref)


def _ramp_numbers(action: Rollback) -> dict[str, float]:
    return {"lr_ramp_steps": action.lr_ramp_steps} if action.lr_ramp_steps else {}


def _ramp_of(pilot: dict[str, Any]) -> Ramp | None:
    return Ramp(*pilot["lr_ramp"]) if pilot["lr_ramp"] is not None else None


def _tell_restored(trainer: Trainer, ref: CheckpointRef, price: _Price | None = None) -> None:
    cost = asdict(price) if price is not None else {}
    trainer.run.tell(CheckpointRestored, step=ref.step, checkpoint_id=ref.checkpoint_id, path=ref.path, **cost)
