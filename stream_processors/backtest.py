"""Another policy over an old run: what it would have said and done beside the policy that was in force.

The log is folded twice, record by record: as it stands, and with the candidate's text in every `PolicyActivated` (from
the run's first word on, where it had none). Conditions and incidents are judged by the same telemetry on both sides.
Pure; called by `cli.backtesting` for each run.

What a backtest cannot know. The first intervention that one side issues and the other does not, or otherwise, parts
them: had the candidate been in force, the telemetry behind that record would have been another. So everything is
counted twice, up to and with that record (`sound`), and behind it (`open_loop`), where the candidate only answers to
what another policy, or none, had made of the run. People are not asked again: a proposal that waits for one gets the
answer of its timeout.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal, NamedTuple, Protocol

from ..events.actions import Action
from ..events.commands import PolicyActivated, RunAnnotated
from ..events.decisions import (
    OPERATOR,
    IncidentOpened,
    IncidentResolved,
    InterventionDeclined,
    InterventionExpired,
    InterventionIssued,
    InterventionProposed,
    InterventionVerified,
)
from ..events.telemetry import RunStarted
from ..events.union import AnyDecision, AnyInput, Record
from ..governance.interventions import touches_trainer
from ..governance.policy import policy_hash
from .fold import fold
from .run_state import RunState, new_state

WRITER = "backtest"
Catch = Literal["same", "earlier", "later", "newly_caught", "missed", "caught_by_neither", "open_loop"]
"""What became of an incident: when the candidate first proposed anything about it, against the policy in force."""
KEPT = (
    IncidentOpened,
    IncidentResolved,
    InterventionProposed,
    InterventionDeclined,
    InterventionIssued,
    InterventionExpired,
    InterventionVerified,
)
Kept = (
    IncidentOpened
    | IncidentResolved
    | InterventionProposed
    | InterventionDeclined
    | InterventionIssued
    | InterventionExpired
    | InterventionVerified
)


class Policy(Protocol):
    """The policy under test, as text that can be loaded: who runs a backtest has seen to that."""

    @property
    def name(self) -> str: ...
    @property
    def text(self) -> str: ...


class Candidates(Protocol):
    """Where the policy under test comes from: one, or the one of several that is for this run."""

    def for_run(self, started: RunStarted, /) -> Policy: ...


class Placed(NamedTuple):
    """A decision, the number of its record in the log, and how many steps had been judged in the run's life."""

    record: int
    judged: int
    decision: Kept

    @property
    def moment(self) -> tuple[int, int]:
        """Orders the decisions of both sides: a record may carry many steps."""
        return self.record, self.decision.step


@dataclass
class Tally:
    """What one policy did over one stretch of a run: alarms by severity, interventions by action, and by rule."""

    alarms: Counter[str] = field(default_factory=Counter)
    proposed: Counter[str] = field(default_factory=Counter)
    issued: Counter[str] = field(default_factory=Counter)
    touching: int = 0
    """Interventions that were issued and change the run."""
    would_touch: int = 0
    """Those that were proposed."""
    waiting: int = 0
    """Proposals that needed a person."""
    rules: dict[str, Counter[str]] = field(default_factory=dict)

    def enter(self, decision: Kept, rule: str) -> None:
        """One more decision about an intervention of this rule."""
        done = decision.kind.removeprefix("intervention_")
        match decision:
            case InterventionProposed():
                self.alarms[decision.severity] += 1
                self.proposed[decision.action.action] += 1
                self.would_touch += touches_trainer(decision.action)
                self.waiting += decision.needs_approval
            case InterventionIssued():
                self.issued[decision.action.action] += 1
                self.touching += touches_trainer(decision.action)
            case InterventionVerified():
                done = decision.outcome
            case _:
                pass
        self.rules.setdefault(rule, Counter())[done] += 1

    def add(self, other: "Tally") -> None:
        """The same of another run."""
        for mine, its in ((self.alarms, other.alarms), (self.proposed, other.proposed), (self.issued, other.issued)):
            mine.update(its)
        self.touching += other.touching
        self.would_touch += other.would_touch
        self.waiting += other.waiting
        for rule, done in other.rules.items():
            self.rules.setdefault(rule, Counter()).update(done)


@dataclass
class Side:
    """One policy's tallies: what can be compared, and what lies behind the parting."""

    sound: Tally = field(default_factory=Tally)
    open_loop: Tally = field(default_factory=Tally)

    def add(self, other: "Side") -> None:
        """The same of another run."""
        self.sound.add(other.sound)
        self.open_loop.add(other.open_loop)


@dataclass(frozen=True)
class Caught:
    """One incident, as the log has it, and the step at which each policy first proposed anything about it. `change` is
    in steps, negative where the candidate was earlier.
    """

    condition: str
    reason: str
    onset_step: int
    opened_step: int
    in_force: int | None
    candidate: int | None
    catch: Catch
    change: int | None = None


@dataclass(frozen=True)
class Backtest:
    """What a backtest of one run showed: under `policy`, of this hash, beside `policies`.

    `open_loop_from` is the step at which the sides part; None: they never do. `redecided` of the `told` interventions
    and incidents are decided again by today's core.
    """

    run_id: str
    outcome: str
    policy: str
    policy_hash: str
    policies: tuple[str, ...]
    steps: int
    healthy: bool
    incidents: tuple[Caught, ...]
    in_force: Side
    candidate: Side
    open_loop_from: int | None = None
    told: int = 0
    redecided: int = 0
    faults: int = 0


@dataclass
class _Course:
    """The run under one policy, folded so far."""

    state: RunState
    kept: list[Placed] = field(default_factory=list)
    faults: int = 0

    def fold(self, number: int, record: Record) -> None:
        folded = fold(self.state, record, accept_gap=True)
        self.state = folded.state
        self.faults += bool(folded.fault)
        judged = self.state.ledger.judged
        self.kept += [Placed(number, judged, one) for one in folded.decisions if isinstance(one, KEPT)]


class _Substitution:
    """The log as it would have stood had the candidate been the run's policy from its start on."""

    def __init__(self, run_id: str, candidates: Candidates) -> None:
        self._run_id = run_id
        self._candidates = candidates
        self.chosen: Policy | None = None
        self._said: dict[str, Any] = {}

    def of(self, record: Record) -> Iterator[Record]:
        """What stands in the place of this record."""
        event = record.event
        if isinstance(event, PolicyActivated):
            yield record._replace(event=self._instead_of(event))
            return
        if isinstance(event, RunStarted) and self.chosen is None:
            chosen = self.chosen = self._candidates.for_run(event)
            self._said = {"name": chosen.name, "text": chosen.text, "policy_hash": policy_hash(chosen.text)}
            first = PolicyActivated(run_id=self._run_id, writer_id=WRITER, seq=1, at=event.at, who=WRITER, **self._said)
            yield record._replace(event=first)
        yield record

    def _instead_of(self, event: PolicyActivated) -> AnyInput:
        if self.chosen is not None:
            return event.model_copy(update=self._said)
        # Before the run has said what it is: a word without meaning, so that its writer's numbers have no hole.
        who: dict[str, Any] = {
            "run_id": event.run_id,
            "writer_id": event.writer_id,
            "seq": event.seq,
            "at": event.at,
            "who": event.who,
        }
        return RunAnnotated(**who, text="another policy is tested")


def backtest(
    run_id: str, records: Iterable[Record], candidates: Candidates, told: Sequence[AnyDecision] = ()
) -> Backtest:
    """Fold the run's log under both policies. `told` is what was decided when it ran, to be compared with today's
    core.
    """
    was, now = _Course(new_state(run_id)), _Course(new_state(run_id))
    tested = _Substitution(run_id, candidates)
    policies: dict[str, None] = {}
    for number, record in enumerate(records):
        was.fold(number, record)
        if isinstance(record.event, PolicyActivated):
            policies[record.event.name] = None
        for stood in tested.of(record):
            now.fold(number, stood)
    parting = _parting(was.kept, now.kept)
    incidents = tuple(_caught(was.kept, now.kept, parting))
    return Backtest(
        run_id=run_id,
        outcome=was.state.outcome or "Running",
        policy=tested.chosen.name if tested.chosen else "",
        policy_hash=policy_hash(tested.chosen.text) if tested.chosen else "",
        policies=tuple(policies),
        steps=was.state.ledger.judged,
        healthy=not incidents and was.state.outcome == "Completed",
        incidents=incidents,
        in_force=_side(was.kept, parting),
        candidate=_side(now.kept, parting),
        open_loop_from=parting.decision.step if parting else None,
        told=len(essential := _essentials(told)),
        redecided=len(essential & _essentials([placed.decision for placed in was.kept])),
        faults=was.faults + now.faults,
    )


def _parting(was: Sequence[Placed], now: Sequence[Placed]) -> Placed | None:
    """The first command that changes the run on one side and is not the other's as well."""
    for mine, its in zip_longest(_commands(was), _commands(now)):
        if mine is None or its is None:
            return (mine or its or [None])[0]
        if (mine[0].moment, mine[1]) != (its[0].moment, its[1]):
            return min(mine[0], its[0], key=lambda placed: placed.moment)
    return None


def _commands(kept: Sequence[Placed]) -> Iterator[tuple[Placed, Action]]:
    for placed in kept:
        if isinstance(placed.decision, InterventionIssued) and touches_trainer(placed.decision.action):
            yield placed, placed.decision.action


def _side(kept: Sequence[Placed], parting: Placed | None) -> Side:
    side = Side()
    rules: dict[str, str] = {}
    for placed in kept:
        decision = placed.decision
        if isinstance(decision, IncidentOpened | IncidentResolved):
            continue
        if isinstance(decision, InterventionProposed):
            rules[decision.intervention_id] = decision.rule
        rule = rules.get(decision.intervention_id, OPERATOR)
        if rule != OPERATOR:  # what people ordered is no policy's doing
            tally = side.sound if parting is None or placed.moment <= parting.moment else side.open_loop
            tally.enter(decision, rule)
    return side


def _caught(was: Sequence[Placed], now: Sequence[Placed], parting: Placed | None) -> Iterator[Caught]:
    ends = {
        placed.decision.incident_id: placed.record for placed in was if isinstance(placed.decision, IncidentResolved)
    }
    for placed in was:
        opened = placed.decision
        if isinstance(opened, IncidentOpened):
            end = ends.get(opened.incident_id)
            mine, its = (_first_word(kept, placed, opened, end) for kept in (was, now))
            catch, change = _judged(mine, its, (placed, end), parting)
            steps = (mine and mine.decision.step, its and its.decision.step)
            yield Caught(
                opened.condition, opened.reason, opened.onset_step, opened.step, steps[0], steps[1], catch, change
            )


def _first_word(kept: Sequence[Placed], at: Placed, opened: IncidentOpened, end: int | None) -> Placed | None:
    """The first proposal of a rule between the incident's onset and its end."""
    for placed in kept:
        decision = placed.decision
        if not isinstance(decision, InterventionProposed) or decision.rule == OPERATOR:
            continue
        if end is not None and placed.record > end:
            return None
        early = decision.attempt_id == opened.attempt_id and decision.step >= opened.onset_step
        if placed.moment >= at.moment or early:
            return placed
    return None


def _judged(
    mine: Placed | None, its: Placed | None, incident: tuple[Placed, int | None], parting: Placed | None
) -> tuple[Catch, int | None]:
    opened, end = incident
    if parting is not None and _is_past(parting, opened, its, end):
        return "open_loop", None
    if mine is None or its is None:
        return ("caught_by_neither" if its is None else "newly_caught") if mine is None else "missed", None
    alike = mine.decision.attempt_id == its.decision.attempt_id
    change = its.decision.step - mine.decision.step if alike else its.judged - mine.judged
    return ("same" if change == 0 else "earlier" if change < 0 else "later"), change


def _is_past(parting: Placed, opened: Placed, its: Placed | None, end: int | None) -> bool:
    """Whether what the candidate made of an incident lies, or would lie, behind the parting."""
    if opened.moment > parting.moment:
        return True
    return its.moment > parting.moment if its is not None else end is None or end > parting.record


def _essentials(decisions: Iterable[AnyDecision]) -> set[str]:
    """The ids of what is told of incidents and interventions."""
    return {decision.decision_id for decision in decisions if isinstance(decision, KEPT)}
