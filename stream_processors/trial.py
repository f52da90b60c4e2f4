"""The inline tests of a policy, run through the real fold: what was expected, what was seen, what happened on the way.

A made trainer tells the series of a `Trial`, obeys what is issued to it (or does not), and answers for people. Pure:
the same policy and trial give the same `Outcome` everywhere. Called by `pilothouse policy test` and `activate`, and by
the tests of the shipped policies.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

from ..events.actions import LR, LR_MULTIPLIER, Action, ActionKind
from ..events.commands import AdviceGiven, OperatorCommand, PolicyActivated, Tick
from ..events.decisions import (
    InterventionDeclined,
    InterventionExpired,
    InterventionIssued,
    InterventionProposed,
    InterventionVerified,
    Mode,
)
from ..events.envelope import LogPlace, derived_attempt_id
from ..events.telemetry import (
    CheckpointSaved,
    EvalCompleted,
    Heartbeat,
    InterventionReceipt,
    RunEnded,
    RunStarted,
    StepBatch,
)
from ..events.union import AnyDecision, AnyInput, AnyTelemetry, Record
from ..governance.policy import Policy, dump_policy, policy_hash
from ..governance.trials import Expectation, Expected, Trial
from .fold import fold
from .run_state import RunState, new_state

RUN = "policy-test"
SECOND = 1_000_000
START = 1_700_000_000 * SECOND
HEARTBEAT_SECONDS = 5
EVALUATED = "val_loss"
VALUES = {
    LR_MULTIPLIER: 1.0,
    LR: 1e-3,
    "clip": 1.0,
    "weight_decay": 0.1,
    "dropout": 0.1,
    "loss_weight": 1.0,
    "batch_size": 32.0,
}
"""What the made trainer begins with."""


class Seen(NamedTuple):
    """How the run stood behind one entry of the series."""

    at: int
    step: int
    phase: str
    margin: float | None
    conditions: dict[str, str]
    alarms: tuple[str, ...]


@dataclass(slots=True)
class Proposal:
    """One intervention, from its proposal at entry `at` to what became of it."""

    intervention_id: str
    at: int
    rule: str
    action: dict[str, Any]
    outcome: str = "proposed"
    why: str = ""


class Mismatch(NamedTuple):
    """One expectation that was not met: at which entries, about what, and both sides in words."""

    at: str
    what: str
    expected: str
    seen: str


@dataclass(slots=True)
class Outcome:
    """What a trial showed. `said` are all decisions, each with the entry at which it fell."""

    trial: Trial
    seen: dict[int, Seen] = field(default_factory=dict)
    proposals: list[Proposal] = field(default_factory=list)
    said: list[tuple[int, AnyDecision]] = field(default_factory=list)
    mismatches: list[Mismatch] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.mismatches


def run_trials(policy: Policy, text: str) -> Iterator[Outcome]:
    """Every inline test of a policy, in its order."""
    for trial in policy.tests:
        yield run_trial(policy, text, trial)


def run_trial(policy: Policy, text: str, trial: Trial) -> Outcome:
    """One inline test. `text` is the policy's own."""
    training = _Training(policy, text, trial)
    training.run()
    outcome = training.outcome
    for expectation in trial.expect:
        outcome.mismatches += _missed(expectation, outcome)
    return outcome


class _Training:
    """The made trainer. `position` is the next entry of the series, `step` the next step of the run."""

    def __init__(self, policy: Policy, text: str, trial: Trial) -> None:
        self.outcome = Outcome(trial)
        self._policy, self._trial = policy, trial
        self._text = text if trial.mode in (None, policy.mode) else _in_mode(policy, trial.mode)
        self._state: RunState = new_state(RUN)
        self._numbers: dict[str, int] = {}
        self._offset = self._seconds = 0
        self._position = self._step = 0
        self._attempt, self._attempt_id = 1, "attempt-1"
        self._orders: list[InterventionIssued] = []
        self._values = dict(VALUES)
        self._over = False

    def run(self) -> None:
        trial = self._trial
        self._fold(self._activation())
        self._start("start", 0, None)
        values = trial.values
        length = max(map(len, values.values()))
        while self._position < length and not self._over:
            entry = self._position
            row = {name: series[entry] for name, series in values.items() if entry < len(series)}
            self._train({name: value for name, value in row.items() if value is not None})
            self._note(entry)
            self._advise(entry)
            self._answer(entry)
            self._position += 1
            self._obey(entry)
            self._wait()

    def _train(self, row: dict[str, float]) -> None:
        """One step, or silence where nothing is logged."""
        val_loss = row.pop(EVALUATED, None)
        if row:
            columns = {name: (value,) for name, value in row.items()}
            for rank in range(self._trial.ranks):
                self._tell(StepBatch, rank, steps=(self._step,), times=(self._now,), metrics=columns)
        if val_loss is not None:
            self._tell(EvalCompleted, step=self._step, metrics={EVALUATED: val_loss})
        if row:
            if self._trial.checkpoints and self._step % self._trial.checkpoints == 0:
                self._save(self._step)
            self._step += 1

    def _note(self, entry: int) -> None:
        state = self._state
        rules = {rule.name: rule.for_steps for rule in self._policy.rules}
        held = {name: record.held for name, record in state.ledger.rules.items()}
        self.outcome.seen[entry] = Seen(
            at=entry,
            step=self._step - 1,
            phase=state.phase,
            margin=state.margin,
            conditions={name: condition.status for name, condition in state.conditions.items()},
            alarms=tuple(name for name, steps in rules.items() if held.get(name, 0) >= steps),
        )

    def _answer(self, entry: int) -> None:
        for person in self._trial.people:
            waiting = next((known for known in self._state.ledger.in_flight if known.stage == "proposed"), None)
            if person.at == entry and waiting is not None:
                self._fold(
                    OperatorCommand(
                        at=self._now,
                        run_id=RUN,
                        writer_id="person",
                        seq=self._number("person"),
                        verb=person.says,
                        who="person",
                        why="as the test says",
                        intervention_id=waiting.intervention_id,
                    )
                )

    def _advise(self, entry: int) -> None:
        for advised in self._trial.advice:
            question = next(iter(self._state.ledger.advice.open), None)
            if advised.at == entry and question is not None:
                told: dict[str, Any] = {"at": self._now, "run_id": RUN, "seq": 1, "why": "as the test says"}
                told |= {"request_id": question.request_id, "advisor": question.advisor, "action": advised.proposes}
                self._fold(AdviceGiven(writer_id=f"advisor-{question.request_id}", **told))

    def _obey(self, entry: int) -> None:
        orders, self._orders = self._orders, []
        for order in orders if self._trial.obeys else ():
            if order.action.action != "notify":
                self._apply(order, entry)

    def _apply(self, order: InterventionIssued, entry: int) -> None:
        action = order.action
        after = {name: value for name, value in action.leaves(self._values).items() if name in self._values}
        before = {name: self._values[name] for name in after}
        self._values |= after
        for rank in range(self._trial.ranks):
            self._tell(
                InterventionReceipt,
                rank,
                intervention_id=order.intervention_id,
                outcome="applied",
                step=max(0, self._step - 1),
                before=before,
                after=after,
            )
        self._fate(order.intervention_id, "applied", "")
        match action.action:
            case "skip_batches":
                self._position += action.count
            case "rollback" if action.checkpoint is not None:
                self._position += action.skip_batches
                parent, self._attempt = self._attempt_id, self._attempt + 1
                self._attempt_id = derived_attempt_id(parent, order.intervention_id)
                self._step = action.checkpoint.step + 1
                self._start("rollback", self._step, parent)
            case "checkpoint_now":
                self._save(max(0, self._step - 1))
            case "stop":
                self._tell(RunEnded, step=max(0, self._step - 1), outcome="stopped")
                self._over = True
                self._note(entry)
            case _:
                pass

    def _wait(self) -> None:
        for second in range(1, self._trial.interval + 1):
            if second % HEARTBEAT_SECONDS == 0:
                self._tell(Heartbeat, stage="train", step=max(0, self._step - 1))
            self._seconds += 1
            self._fold(Tick(at=self._now, partition=0, writer_id="ticker", seq=self._number("ticker")))

    def _start(self, reason: str, first_step: int, parent: str | None) -> None:
        steers = self._trial.steers if self._trial.steers is not None else get_args(ActionKind)
        self._tell(
            RunStarted,
            world_size=self._trial.ranks,
            steers=steers,
            reason=reason,
            first_step=first_step,
            parent_attempt_id=parent,
        )

    def _save(self, step: int) -> None:
        self._tell(
            CheckpointSaved,
            step=step,
            checkpoint_id=f"checkpoint-{self._attempt}-{step}",
            path=f"/checkpoints/{step}",
            manifest_sha256="0" * 64,
            size_bytes=1,
            took_s=0.1,
        )

    @property
    def _now(self) -> int:
        return START + self._seconds * SECOND

    def _number(self, writer: str) -> int:
        self._numbers[writer] = self._numbers.get(writer, 0) + 1
        return self._numbers[writer]

    def _activation(self) -> PolicyActivated:
        return PolicyActivated(
            at=self._now,
            run_id=RUN,
            writer_id="policy",
            seq=1,
            name=self._policy.name,
            text=self._text,
            policy_hash=policy_hash(self._text),
            who="policy test",
        )

    def _tell(self, kind: Callable[..., AnyTelemetry], rank: int = 0, **fields: Any) -> None:
        writer = f"rank-{rank}"
        identity = {"run_id": RUN, "writer_id": writer, "seq": self._number(writer), "at": self._now}
        lineage = {"attempt_id": self._attempt_id, "attempt": self._attempt, "rank": rank}
        self._fold(kind(**identity, **lineage, **fields))

    def _fold(self, event: AnyInput) -> None:
        folded = fold(self._state, Record(LogPlace(0, 0, self._offset), event))
        self._offset += 1
        self._state = folded.state
        if folded.fault:
            raise RuntimeError(folded.fault)
        for decision in folded.decisions:
            self.outcome.said.append((self._position, decision))
            self._follow(decision)

    def _follow(self, decision: AnyDecision) -> None:
        match decision:
            case InterventionProposed():
                action = plain_action(decision.action)
                proposal = Proposal(decision.intervention_id, self._position, decision.rule, action)
                self.outcome.proposals.append(proposal)
            case InterventionIssued():
                self._orders.append(decision)
                self._fate(decision.intervention_id, "issued", "")
            case InterventionDeclined():
                self._fate(decision.intervention_id, "declined", decision.why)
            case InterventionExpired():
                self._fate(decision.intervention_id, "expired", decision.reason)
            case InterventionVerified():
                self._fate(decision.intervention_id, decision.outcome, decision.reason)
            case _:
                pass

    def _fate(self, intervention_id: str, outcome: str, why: str) -> None:
        for proposal in self.outcome.proposals:
            if proposal.intervention_id == intervention_id:
                proposal.outcome, proposal.why = outcome, why


def _in_mode(policy: Policy, mode: Mode | None) -> str:
    return dump_policy(policy.model_copy(update={"mode": mode, "tests": ()}))


def plain_action(action: Action) -> dict[str, Any]:
    """An action's fields, a checkpoint by its step."""
    fields = {name: value for name, value in action.model_dump().items() if value is not None}
    if "checkpoint" in fields and isinstance(fields["checkpoint"], dict):
        fields["checkpoint"] = fields["checkpoint"]["step"]
    return fields


def _missed(expectation: Expectation, outcome: Outcome) -> Iterator[Mismatch]:
    told = [outcome.seen[entry] for entry in expectation.span if entry in outcome.seen]
    if not told:
        why = "the series are shorter, or skipped batches left it out"
        yield Mismatch(expectation.at, "entry", "to be trained", f"never was: {why}")
        return
    for seen in told:
        if expectation.phase is not None and seen.phase != expectation.phase:
            yield Mismatch(str(seen.at), "phase", expectation.phase, seen.phase)
        for name, status in expectation.conditions.items():
            known = seen.conditions.get(name, "not judged")
            if known != status:
                yield Mismatch(str(seen.at), f"condition {name}", status, known)
        if expectation.alarms is not None and set(seen.alarms) != set(expectation.alarms):
            yield Mismatch(str(seen.at), "alarms", _listed(expectation.alarms), _listed(seen.alarms))
    if expectation.interventions is not None:
        yield from _interventions_missed(expectation, expectation.interventions, outcome)


def _interventions_missed(
    expectation: Expectation, expected: tuple[Expected, ...], outcome: Outcome
) -> Iterator[Mismatch]:
    proposed = [proposal for proposal in outcome.proposals if proposal.at in expectation.span]
    same = len(proposed) == len(expected) and all(map(_is, proposed, expected))
    if not same:
        wanted = _listed([_in_words(one) for one in expected])
        yield Mismatch(expectation.at, "interventions", wanted, _listed([words_of(one) for one in proposed]))


def _is(proposal: Proposal, expected: Expected) -> bool:
    return (
        proposal.rule == expected.rule
        and proposal.action["action"] == expected.action
        and all(_equal(proposal.action.get(name), value) for name, value in expected.having.items())
        and expected.outcome in (None, proposal.outcome)
    )


def _equal(seen: Any, expected: Any) -> bool:
    both_numbers = isinstance(seen, int | float) and isinstance(expected, int | float)
    return math.isclose(seen, expected) if both_numbers else bool(seen == expected)


def _in_words(expected: Expected) -> str:
    having = [f"{name}={value}" for name, value in expected.having.items()]
    fate = f"({expected.outcome})" if expected.outcome else ""
    return " ".join(filter(None, [f"{expected.rule}: {expected.action}", *having, fate]))


def words_of(proposal: Proposal) -> str:
    """`loss-unstable: rollback checkpoint=40 lr_factor=0.7 (recovered)`."""
    fields = [f"{name}={value}" for name, value in proposal.action.items() if name != "action"]
    why = f": {proposal.why}" if proposal.outcome == "declined" else ""
    return " ".join([f"{proposal.rule}: {proposal.action['action']}", *fields, f"({proposal.outcome}{why})"])


def _listed(words: Any) -> str:
    return "; ".join(words) or "none"
