"""From a command heard to an intervention applied on all ranks: what happens at a safe point.

`steering.pilot` calls `at` at every safe point, on every rank. Rank 0 takes commands from `steering.control`, refuses
what may not be obeyed, and proposes the rest; `ranks.agreement` decides on all ranks together;
`steering.actuators` carries out. Every rank that knew of an intervention tells a receipt. `hold` is the one that
lasts: a pause.
"""

import json
import time
from collections import deque
from dataclasses import dataclass, field

from ...events.actions import Notify, Pause, Resume, Stop
from ...events.codec import from_json, to_json
from ...events.decisions import InterventionIssued
from ...events.errors import RestartRequired
from ..ranks.agreement import Agreement, Outcome, Proposal
from ..ranks.ballots import Ballots, BallotsLost
from ..ranks.pace import StepPace
from ..teller import Teller
from ..voice import logger
from .actuators import Actuators
from .control import Commands, Distrusted, Orders, Refusal
from .effects import Effect, tell_receipt
from .following import Following
from .plan import Planned

MAX_TRIES = 4
PATIENCE_SECONDS = 30.0
PAUSE_LOOK_SECONDS = 0.05
DISTRUSTED_PREFIX = "distrusted-"
"""Stands before the id in the receipt for a command that was not believed."""


@dataclass
class Links:
    """What one rank of a pilot is connected to: the other ranks, and (rank 0) the control topic."""

    ballots: Ballots
    commands: Commands | None = None


@dataclass
class _Attempted:
    """The command that rank 0 is trying to bring through."""

    command: InterventionIssued
    tries: int = 0


@dataclass
class Steering:
    """One rank's side of all interventions of a run."""

    run: Teller
    links: Links
    actuators: Actuators
    orders: Orders = field(default_factory=Orders)
    pace: StepPace = field(default_factory=StepPace)
    patience: float = PATIENCE_SECONDS
    following: Following | None = None

    def __post_init__(self) -> None:
        self._agreement = Agreement(self.links.ballots, self.patience)
        self._trying: _Attempted | None = None
        self._later: deque[InterventionIssued] = deque()
        self._pauses = 0
        self._read: tuple[str, InterventionIssued] | None = None

    @property
    def over(self) -> str:
        """Why there will be no more interventions in this process; empty while there may be."""
        return self._agreement.over

    def at(self, step: int) -> None:
        """The safe point after `step`. Costs microseconds when nothing is under way.

        Raises:
            RestartRequired: this rank must not train on.
        """
        if self.over:
            return
        self.pace.note()
        if self.following is not None and self._follow(self.following, step):
            return
        if self.links.commands is not None and self._agreement.idle:
            self._feed(step, self.links.commands)
        outcome = self._agreement.advance(step, self._judge)
        if outcome is not None:
            self._conclude(outcome, step)

    def leave(self, step: int) -> None:
        """The run ends here; what was under way is not applied by this rank any more."""
        pending = self._agreement.leave()
        trying = self._trying.command if self._trying is not None else None
        command = self._command(pending) if pending is not None else trying
        if command is not None:
            self._tell(command, Effect("failed", "the run ended before it could be applied"), step)

    # ------------------------------------------------------------------------------------------ following another run

    def _follow(self, following: Following, step: int) -> bool:
        """Do what is due at this very step, on all ranks; whether anything was done."""
        stretch, done = following.stretch, following.done
        while following.stretch == stretch and (planned := following.due(step)) is not None:
            try:
                why = self._do_planned(following, planned, step)
            except BallotsLost as error:
                self.give_up(why := str(error))
            if why:
                following.give_up(f"{planned.action.action} at step {step} was not applied: {why}")
            else:
                following.applied()
        return following.done > done

    def _do_planned(self, following: Following, planned: Planned, step: int) -> str:
        """Agree and carry out, here and now; why it was not applied, empty where it was."""
        if self.links.ballots.rank == 0:
            own = self.actuators.with_own_checkpoint(planned.action)
            command = following.command(planned, self.run.identity, self.orders.obeyed)
            self._agreement.propose(Proposal(step, to_json(command.model_copy(update={"action": own}))))
        outcome = self._agreement.advance(step, lambda proposal: self._judge_planned(proposal, planned), attend=True)
        if outcome is None:
            return self.over or f"rank {self.links.ballots.rank} heard nothing of it within {self.patience:g} s"
        self._conclude(outcome, step)
        became = self.orders.dealt_with.get(planned.intervention_id, outcome.verdict.reason)
        return "" if became.startswith("applied") else f"{became}: {outcome.verdict.reason}".rstrip(": ")

    def _judge_planned(self, proposal: Proposal, planned: Planned) -> str | None:
        """This rank's word on what all ranks know to be due."""
        if self._command(proposal).intervention_id != planned.intervention_id:
            return f"AnotherPlan: by the plan of this rank {planned.intervention_id} is due"
        return self._judge(proposal)

    # ----------------------------------------------------------------------------------------------- rank 0: proposing

    def _feed(self, step: int, commands: Commands) -> None:
        """Put the next command before all ranks, if there is one that may be obeyed."""
        trying = self._trying or self._next(commands, step)
        if trying is None:
            return
        self._trying = None
        command = trying.command
        if self.orders.is_foreign(command, self.run.identity):
            return
        refusal = self.orders.refusal(trying.command, self.run.identity, step) or self._refused_here(command)
        if refusal is not None:
            self._refuse(command, refusal, step)
        elif isinstance(command.action, Notify):
            self._tell(command, Effect("applied", "people were told; the trainer has nothing to do"), step)
        else:
            self._propose(trying, step)

    def _next(self, commands: Commands, step: int) -> _Attempted | None:
        command = self._later.popleft() if self._later else self._heard(commands, step)
        return _Attempted(command) if command is not None else None

    def _heard(self, commands: Commands, step: int) -> InterventionIssued | None:
        """The next command that is believed; one that is not gets its receipt here."""
        command = commands.take()
        if not isinstance(command, Distrusted):
            return command
        self._tell_distrust(command, step)
        return None

    def _refused_here(self, command: InterventionIssued) -> Refusal | None:
        if self.following is not None and not command.concerns_the_run:
            other = self.following.plan.run_id
            return Refusal("rejected", f"Following: what was done to run {other} is done to this one, and nothing else")
        if isinstance(command.action, Resume):
            return Refusal("rejected", "NotPaused: there is nothing to resume")
        reason = self.actuators.refusal(command.action, command.bounds)
        return Refusal("rejected", reason) if reason is not None else None

    def _tell_distrust(self, doubtful: Distrusted, step: int) -> None:
        """A receipt under a name of its own: what is said in the name of an intervention says nothing about it."""
        command, why = doubtful
        if self.orders.is_foreign(command, self.run.identity):
            return
        named = command.model_copy(update={"intervention_id": f"{DISTRUSTED_PREFIX}{command.intervention_id}"[:200]})
        tell_receipt(self.run, named, Effect("rejected", f"{why.reason}: {why.detail}"), step)

    def _refuse(self, command: InterventionIssued, refusal: Refusal, step: int) -> None:
        known = command.intervention_id in self.orders.dealt_with
        tell_receipt(self.run, command, Effect(refusal.outcome, refusal.reason), step)
        if not known:
            self.orders.remember(command, refusal.outcome, step)

    def _propose(self, trying: _Attempted, step: int) -> None:
        command = trying.command
        apply_at = step + self.pace.margin(self.links.ballots.word_seconds, trying.tries)
        last = trying.tries + 1 >= MAX_TRIES
        if apply_at > command.expires_step:
            apply_at, last = command.expires_step, True
        if apply_at < step + 1:
            self._refuse(command, Refusal("expired", f"Expired: good until step {command.expires_step}"), step)
            return
        if self.following is not None and self.following.due_within(step, apply_at):
            self._later.appendleft(command)  # what is due in between needs the ranks' ear
            return
        self._trying = trying
        self._agreement.propose(Proposal(apply_at, to_json(command), final=last))

    # -------------------------------------------------------------------------------------------------- on every rank

    def _judge(self, proposal: Proposal) -> str | None:
        """This rank's own, fresh word on a proposal."""
        command = self._command(proposal)
        if (overtaken := self.orders.overtaken(command, self.run.identity)) is not None:
            return overtaken
        if proposal.apply_at > command.expires_step:
            return f"Expired: good until step {command.expires_step}, proposed for step {proposal.apply_at}"
        return self.actuators.refusal(command.action, command.bounds)

    def _conclude(self, outcome: Outcome, step: int) -> None:
        proposal, verdict = outcome
        command = self._command(proposal)
        trying, self._trying = self._trying, None
        match verdict.kind:
            case "commit":
                self._carry_out(command, step)
            case "late" if not proposal.final:
                if trying is not None:
                    self._trying = _Attempted(trying.command, trying.tries + 1)
            case "late":
                self._tell(command, Effect("expired", f"NoAgreement: {verdict.reason}"), step)
            case "refused":
                self._tell(command, Effect("rejected", verdict.reason), step)
            case "left" | "lost":
                self._tell(command, Effect("failed", f"NoAgreement: {verdict.reason}"), step)
        if verdict.kind == "lost":
            self.give_up(verdict.reason)

    def _carry_out(self, command: InterventionIssued, step: int) -> None:
        try:
            effect = self.actuators.carry_out(command, step)
        except RestartRequired:
            raise
        except Exception as error:  # noqa: BLE001  # a fault of ours, or of a callback, must not end the training
            effect = Effect("failed", f"{type(error).__name__}: {error}")
            self.give_up(effect.reason)
        self._tell(command, effect, step)
        if isinstance(command.action, Pause) and effect.outcome == "applied":
            self._hold(command.action, step)

    def give_up(self, reason: str) -> None:
        """No more interventions by this process, said loudly."""
        self._agreement.over = reason
        logger.error("pilothouse: steering is over for this attempt (%s); training goes on without it", reason)

    def _tell(self, command: InterventionIssued, effect: Effect, step: int) -> None:
        if not effect.told:
            tell_receipt(self.run, command, effect, step)
        self.orders.remember(command, effect.outcome, step)

    def _command(self, proposal: Proposal) -> InterventionIssued:
        if self._read is None or self._read[0] != proposal.body:
            event = from_json(proposal.body)
            assert isinstance(event, InterventionIssued)  # rank 0 proposes nothing else
            self._read = (proposal.body, event)
        return self._read[1]

    # -------------------------------------------------------------------------------------------------------- a pause

    def _hold(self, action: Pause, step: int) -> None:
        """Stay here until rank 0 hears `resume` or `stop`, or the time is up; the same end for all ranks."""
        self._pauses += 1
        key = f"pause/{self._pauses}"
        began = self.pace.clock()
        self.run.stage("paused", step)
        try:
            word = self._watch_for_the_end(key, action, step, began)
        except BallotsLost as error:
            word = json.dumps("")
            self.give_up(f"paused, and the other ranks cannot be reached: {error}")
        self.run.stage("train", step)
        self.pace.forget()
        body = json.loads(word)
        if body:
            self._end_of_pause(self._command(Proposal(step, body)), step, self.pace.clock() - began)

    def _end_of_pause(self, command: InterventionIssued, step: int, seconds: float) -> None:
        if isinstance(command.action, Stop):
            self._carry_out(command, step)
        else:
            self._tell(command, Effect("applied", after={"paused_seconds": seconds}), step)

    def _watch_for_the_end(self, key: str, action: Pause, step: int, began: float) -> str:
        """The word that ends the pause: the command that did, or an empty one when the time was up."""
        ballots, commands = self.links.ballots, self.links.commands
        slack = 0.0 if commands is not None else self.patience
        while (left := began + action.max_seconds + slack - self.pace.clock()) > 0:
            if commands is not None:
                command = self._ending_command(commands, step)
                if command is not None:
                    return ballots.settle(key, json.dumps(to_json(command)), self.patience)
                time.sleep(min(left, PAUSE_LOOK_SECONDS))
            elif (word := ballots.wait(key, min(left, 1.0))) is not None:
                return word
        return ballots.settle(key, json.dumps(""), self.patience)

    def _ending_command(self, commands: Commands, step: int) -> InterventionIssued | None:
        """Rank 0: a `resume` or `stop` that may be obeyed. Everything else waits until the pause is over."""
        command = self._heard(commands, step)
        if command is None or self.orders.is_foreign(command, self.run.identity):
            return None
        if not isinstance(command.action, Resume | Stop):
            self._later.append(command)
            return None
        refusal = self.orders.refusal(command, self.run.identity, step)
        if refusal is not None:
            self._refuse(command, refusal, step)
            return None
        return command
