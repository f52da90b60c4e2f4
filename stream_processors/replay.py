"""History through the same core: the decisions that a log leads to, and whether they are those that were told.

`replay` of the archived log of a run gives exactly the decisions on the control topic; where it does not, the core has
changed, or the history is not whole. `prove` compares decision by decision and keeps account of what the log lacks.
Called by `pilothouse replay` and by tests over committed histories.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..events.codec import to_json
from ..events.commands import PolicyActivated, Tick
from ..events.decisions import PhaseChanged
from ..events.envelope import LogPlace
from ..events.errors import PolicyInvalid
from ..events.union import AnyDecision, Record
from ..governance.policy import load_policy, policy_hash
from .fold import Folded, fold
from .run_state import new_state

ABSENT = "absent"
"""What stands for a field that one side does not have."""


class Turn(NamedTuple):
    """One record, and what folding it gave. `missing` of its writer's records were never seen before it."""

    record: Record
    folded: Folded
    missing: int


def turns(run_id: str, records: Iterable[Record]) -> Iterator[Turn]:
    """One run's records (its facts and its partition's Ticks) through the fold, in log order.

    Records that are missing from the history count as lost for good: a replay cannot look again.
    """
    state = new_state(run_id)
    for record in records:
        lost = state.lost_records
        folded = fold(state, record, accept_gap=True)
        state = folded.state
        yield Turn(record, folded, state.lost_records - lost)


def replay(run_id: str, records: Iterable[Record]) -> Iterator[AnyDecision]:
    """The decisions for one run's records, in the order in which they were taken."""
    for turn in turns(run_id, records):
        yield from turn.folded.decisions


class Change(NamedTuple):
    """One field, by its dotted name, in which two versions of a decision differ."""

    field: str
    was: Any
    now: Any


@dataclass(frozen=True)
class Difference:
    """The first decision in which log and archive part. `was` is what was told (None: nothing), `now` what the log
    leads to today (None: nothing). `number` counts decisions from 1.
    """

    number: int
    was: AnyDecision | None
    now: AnyDecision | None

    @property
    def decision(self) -> AnyDecision:
        """Either version, for what names it: kind, step and basis."""
        either = self.was or self.now
        assert either is not None, "a difference has two sides, of which one may be missing"
        return either

    @property
    def changes(self) -> list[Change]:
        """Field by field; all fields where one side is missing altogether."""
        was, now = _flat(self.was), _flat(self.now)
        names = list(dict.fromkeys((*was, *now)))
        found = [Change(name, was.get(name, ABSENT), now.get(name, ABSENT)) for name in names]
        return [change for change in found if not _same(change.was, change.now)]

    @property
    def unknown_then(self) -> list[str]:
        """What differs because the version that told the decision did not know such a field: it was another one."""
        unset = set(type(self.was).model_fields) - self.was.model_fields_set if self.was is not None else set()
        return sorted(unset & {change.field.partition(".")[0] for change in self.changes})


@dataclass
class Account:
    """What a log holds and lacks. `missing_*` are numbers that were given and whose records are not there; `untimed`
    is how long (microseconds) the run had told of itself before the first tick, all its life where there is none.
    """

    records: int = 0
    ticks: int = 0
    last_step: int = -1
    missing_facts: int = 0
    missing_ticks: int = 0
    first_hole: LogPlace | None = None
    untimed: int = 0
    policies: list[str] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    last_place: LogPlace | None = None
    _began: int = -1

    def enter(self, turn: Turn) -> None:
        """One more record of the log, as it was folded."""
        record, event = turn.record, turn.record.event
        self.records += 1
        self.last_place = record.place
        if turn.missing and self.first_hole is None:
            self.first_hole = record.place
        if turn.folded.fault:
            self.faults.append(turn.folded.fault)
        if turn.folded.state.ledger.judged and turn.folded.state.current is not None:
            self.last_step = max(self.last_step, turn.folded.state.current.judged)
        match event:
            case Tick():
                self.ticks += 1
                self.missing_ticks += turn.missing
            case PolicyActivated():
                self.missing_facts += turn.missing
                self._note_policy(event.text)
            case _:
                self.missing_facts += turn.missing
        self._note_time(event.at)

    def _note_time(self, at: int) -> None:
        self._began = at if self._began < 0 else min(self._began, at)
        if self.ticks == 0:
            self.untimed = max(self.untimed, at - self._began)

    def _note_policy(self, text: str) -> None:
        known = policy_hash(text)
        if known not in self.policies:
            self.policies.append(known)
        try:
            load_policy(text)
        except PolicyInvalid as error:
            self.unusable[known] = str(error)


@dataclass(frozen=True)
class Proof:
    """What a replay of one run showed. `same` decisions are alike, bit for bit, before the first `difference`.

    Of a run that goes on, the archive's two halves need not reach equally far: `ahead` decisions were told on records
    that are not archived yet, `untold` ones follow from the log and were not archived yet.
    """

    run_id: str
    told: int
    same: int
    ended: bool
    account: Account
    difference: Difference | None = None
    ahead: int = 0
    untold: int = 0


def prove(run_id: str, records: Iterable[Record], told: Sequence[AnyDecision]) -> Proof:
    """Fold the log and compare with what was `told`, which stands in the order of the records it was decided on.

    The comparison ends at the first difference, for what follows from it differs too. The log is read to its end all
    the same: what is missing in it shows only behind the hole.
    """
    account, ended = Account(), _has_ended(told)
    same = untold = 0
    found: Difference | None = None
    for turn in turns(run_id, records):
        account.enter(turn)
        for now in turn.folded.decisions if found is None else ():
            if same == len(told) and not ended:
                untold += 1
            elif same < len(told) and alike(told[same], now):
                same += 1
            else:
                found = _difference(told, same, now)
                break
    rest = told[same:] if found is None else ()
    if rest and not _is_behind(account.last_place, rest[0].basis):
        found = Difference(same + 1, rest[0], None)
    return Proof(run_id, len(told), same, ended, account, found, 0 if found else len(rest), untold)


def alike(was: AnyDecision, now: AnyDecision) -> bool:
    """Whether two decisions say the same to the last bit of each number; all NaN are one."""
    return to_json(was) == to_json(now) or not Difference(0, was, now).changes


def _difference(told: Sequence[AnyDecision], index: int, now: AnyDecision) -> Difference:
    """Pairs the two versions of one decision, or says that one side has one more."""
    was = told[index] if index < len(told) else None
    if was is None or was.decision_id == now.decision_id or was.kind == now.kind:
        return Difference(index + 1, was, now)
    if any(later.decision_id == now.decision_id for later in told[index + 1 :]):
        return Difference(index + 1, was, None)
    return Difference(index + 1, None, now)


def _has_ended(told: Sequence[AnyDecision]) -> bool:
    phases = [decision.phase for decision in told if isinstance(decision, PhaseChanged)]
    return bool(phases) and phases[-1] == "Ended"


def _is_behind(last: LogPlace | None, basis: LogPlace) -> bool:
    """Whether a decision rests on a record behind the last one of this log."""
    return last is None or last.precedes(basis)


def _flat(decision: AnyDecision | None) -> dict[str, Any]:
    return dict(_leaves("", decision.model_dump(mode="python"))) if decision is not None else {}


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(f"{name}.{key}" if name else str(key), item)
    else:
        yield name, value


def _same(was: Any, now: Any) -> bool:
    return repr(was) == repr(now)
