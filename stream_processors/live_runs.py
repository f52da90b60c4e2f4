"""The runs of one partition, folded record by record; which of them must be written, and whether a gap may be accepted.

Pure. `governor` owns one `LivePartition` per assigned partition; it asks `judge` for every record and `unwritten` when
it is time to write. The fold itself comes as a `Core`, so that delivery can be tested with a fold of two lines.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..events.codec import Encoded
from ..events.codec import encode as encode_event
from ..events.commands import Tick
from ..events.signing import GENESIS, link_of, linked
from ..events.union import AnyDecision, Record
from .admission import Verdict
from .kept import KeptRun, Mark, encode, mark_key, run_key

KEEP_ENDED = 500
"""States of ended runs kept per partition: what comes late for them is still told apart from a new run."""


class State(Protocol):
    """What the governor must know of a run's state; all else is the fold's."""

    @property
    def ended(self) -> bool: ...

    @property
    def policy_hash(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Core:
    """The fold and the life of its state: `fold(state, record, accept_gap=...)` answers as `fold.Folded`."""

    new_state: Callable[[str], Any]
    dump_state: Callable[[Any], bytes]
    load_state: Callable[[bytes], Any]
    fold: Callable[..., Any]


@dataclass(slots=True)
class Judged:
    """What one record led to. `gap` says what is missing; then folding stopped there."""

    decisions: list[AnyDecision] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    gap: str = ""

    def continued(self, rest: "Judged") -> None:
        """The gap was accepted: what the record led to after it."""
        self.decisions += rest.decisions
        self.faults += rest.faults
        self.gap = ""


class LivePartition:
    """The states of a partition's runs.

    `accepts_gaps` once it is known that what is missing will never come; `unreadable` records, gone to the dead
    letters since this began, each explain one gap.
    """

    def __init__(self, core: Core, partition: int, epoch: int) -> None:
        self.partition = partition
        self.epoch = epoch
        self.accepts_gaps = False
        self.unreadable = 0
        self._core = core
        self._states: dict[str, Any] = {}
        self._restored_to: dict[str, int] = {}
        self._dirty: set[str] = set()
        self._links: dict[str, bytes] = {}

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._states

    def __len__(self) -> int:
        return len(self._states)

    def load(self, run_id: str, kept: KeptRun) -> None:
        """Take over a state as it was written; what it has seen by then does not concern it again."""
        self._states[run_id] = self._core.load_state(kept.state)
        self._restored_to[run_id] = kept.next_offset
        self._links[run_id] = kept.link

    def state(self, run_id: str) -> State | None:
        state: State | None = self._states.get(run_id)
        return state

    def judge(self, record: Record, *, accept_gap: bool = False) -> Judged:
        """Fold the record into its run; a `Tick` into every run that has not ended."""
        accept_gap = accept_gap or self.accepts_gaps
        judged = Judged()
        for run_id in self._concerned(record):
            if record.place.offset < self._restored_to.get(run_id, 0):
                continue
            folded = self._fold(run_id, record, accept_gap=accept_gap)
            if folded.verdict is Verdict.GAP:
                judged.gap = _gap(run_id, record)
                return judged
            judged.decisions.extend(folded.decisions)
            if folded.fault:
                judged.faults.append(f"run {run_id}: {folded.fault}")
        return judged

    def rebuild(self, run_id: str, records: Iterable[Record]) -> Iterator[AnyDecision]:
        """Fold a run anew from its history, from nothing; its losses are known and accepted."""
        self._states.pop(run_id, None)
        self._restored_to.pop(run_id, None)
        self._links.pop(run_id, None)
        for record in records:
            state = self._states.get(run_id) or self._core.new_state(run_id)
            folded = self._core.fold(state, record, accept_gap=True)
            self._states[run_id] = folded.state
            self._dirty.add(run_id)
            yield from folded.decisions

    def chained(self, decision: AnyDecision) -> Encoded:
        """The decision with the link to the one before it in its run. Asked once for each, in the order in which they
        were decided.
        """
        encoded = linked(encode_event(decision), self._links.get(decision.run_id, GENESIS))
        self._links[decision.run_id] = link_of(encoded)
        return encoded

    def unwritten(self, next_offset: int) -> dict[bytes, bytes | None]:
        """The entries to write now, the mark last; counted as written from here on."""
        entries: dict[bytes, bytes | None] = dict.fromkeys(map(run_key, self._forget_oldest_ended()))
        for run_id in sorted(self._dirty & self._states.keys()):
            state, link = self._core.dump_state(self._states[run_id]), self._links.get(run_id, GENESIS)
            kept = KeptRun(self.epoch, self.partition, state, next_offset, link)
            entries[run_key(run_id)] = encode(kept)
        self._dirty.clear()
        entries[mark_key(self.partition)] = encode(Mark(self.epoch, next_offset))
        return entries

    def _concerned(self, record: Record) -> list[str]:
        if isinstance(record.event, Tick):
            return [run_id for run_id, state in self._states.items() if not state.ended]
        return [record.event.run_id]

    def _fold(self, run_id: str, record: Record, *, accept_gap: bool) -> Any:
        state = self._states.get(run_id) or self._core.new_state(run_id)
        folded = self._core.fold(state, record)
        if folded.verdict is Verdict.GAP and accept_gap:
            folded = self._core.fold(folded.state, record, accept_gap=True)
        if folded.verdict is Verdict.FOLDED:
            self._states[run_id] = folded.state
            self._dirty.add(run_id)
        return folded

    def _forget_oldest_ended(self) -> list[str]:
        ended = [run_id for run_id, state in self._states.items() if state.ended]
        forgotten = ended[: max(0, len(ended) - KEEP_ENDED)]
        for run_id in forgotten:
            del self._states[run_id]
            self._restored_to.pop(run_id, None)
            self._links.pop(run_id, None)
        return forgotten


def _gap(run_id: str, record: Record) -> str:
    event = record.event
    return f"run {run_id}: writer {event.writer_id} is at {event.seq}, and what came before never reached the state"
