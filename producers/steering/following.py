"""One rank's walk through the plan of another run: what is due at which safe point, and how far it has come.

Asked by `steering.safe_point` at every safe point. Every rank has the plan, so that every rank knows when to stop for
the agreement of all: what is recorded takes effect at its own step, not some steps later, as what is ordered does. The
agreement, the bounds and the receipts are those of any command.
"""

from collections.abc import Sequence

from ...events.actions import ActionKind, Rollback
from ...events.decisions import InterventionIssued
from ...events.envelope import LogPlace, derived_id
from ..checkpoints.retention import Judgement
from ..ranks.context import Identity
from ..teller import Teller
from ..voice import logger
from .plan import Plan, Planned

LEFT_TO_PEOPLE: tuple[ActionKind, ...] = ("pause", "resume", "stop", "notify")
"""What a following run may be asked besides its plan: a person can always end it."""


class Following:
    """How far this rank has followed. `fault` says why it follows no more; `done` counts what was applied."""

    def __init__(self, run: Teller, plan: Plan) -> None:
        self.plan = plan
        self.fault = ""
        self.done = 0
        self._run = run
        self._stretch = 0
        self._attempt = run.identity.attempt

    @property
    def stretch(self) -> int:
        """How many rollbacks lie behind this rank: each begins an attempt."""
        return self.stretch_of(self._run.identity.attempt)

    def stretch_of(self, attempt: int) -> int:
        """That of an attempt of this process."""
        return self._stretch + attempt - self._attempt

    @property
    def next(self) -> Planned | None:
        """What comes next, whenever; None at the plan's end, or after a fault."""
        left = self.plan.interventions[self.done : self.done + 1]
        return left[0] if left and not self.fault else None

    def due(self, step: int) -> Planned | None:
        """What is to be applied at this very safe point."""
        planned = self.next
        if planned is None or (planned.stretch, planned.step) > (self.stretch, step):
            return None
        if (planned.stretch, planned.step) == (self.stretch, step):
            return planned
        self.give_up(
            f"{planned.action.action} was due at step {planned.step} of stretch {planned.stretch}, and this run is at "
            f"step {step} of stretch {self.stretch}: are the loop and its steps the same?"
        )
        return None

    def due_within(self, step: int, last: int) -> bool:
        """Whether anything is due from `step` to `last`: nothing else may be under way then."""
        planned = self.next
        return planned is not None and planned.stretch == self.stretch and step <= planned.step <= last

    def command(self, planned: Planned, identity: Identity, obeyed: LogPlace | None) -> InterventionIssued:
        """What is planned, as a command to this run. `obeyed` is the place of the last command that was."""
        return InterventionIssued(
            at=0,
            run_id=identity.run_id,
            attempt_id=identity.attempt_id,
            attempt=identity.attempt,
            decision_id=derived_id(identity.run_id, identity.attempt_id, "follow", planned.intervention_id, self.done),
            basis=obeyed or LogPlace(0, 0, 0),
            step=planned.step,
            policy_hash="",
            intervention_id=planned.intervention_id,
            rule=planned.rule,
            action=planned.action,
            expires_step=planned.step,
            who=f"follow {self.plan.run_id}"[:200],
        )

    def applied(self) -> None:
        """What was next is done."""
        self.done += 1

    def give_up(self, why: str) -> None:
        """This run is not the other any more, as far as interventions go. Said once."""
        if not self.fault:
            self.fault = why
            logger.error("pilothouse: run %s is followed no more: %s", self.plan.run_id, why)

    def judged(self) -> Judgement:
        """For the rotation of checkpoints: those that rollbacks will want must not be removed."""
        left: Sequence[Planned] = () if self.fault else self.plan.interventions[self.done :]
        back = [planned.action for planned in left if isinstance(planned.action, Rollback)]
        return Judgement(good=tuple(action.checkpoint.step for action in back if action.checkpoint is not None))

    def standing(self) -> dict[str, int]:
        """What a checkpoint must remember of it."""
        return {"done": self.done, "stretch": self.stretch}

    def resume(self, standing: object, step: int) -> None:
        """A fresh process goes on after `step`, from a checkpoint that remembers this."""
        match standing:
            case {"done": int(done), "stretch": int(stretch)}:
                self.done, self._stretch, self._attempt = done, stretch, self._run.identity.attempt
            case _:
                self.give_up("it goes on from a checkpoint of a run that did not follow")
        while (planned := self.next) is not None and (planned.stretch, planned.step) <= (self.stretch, step):
            self.done += 1  # it saved that checkpoint, or was done when it was saved
