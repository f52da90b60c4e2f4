"""Whether the archive still says what was said: every decision and order against its signature and its place in the
chain. Called by `pilothouse audit`.

A signature shows what was changed or put in, the chain what was taken out of a run's middle, an answer without its
order and a policy's hash without its policy what was taken out of the facts, and heads that somebody kept elsewhere
what was cut off a run's end. Telemetry bears no signature: `pilothouse replay` shows whether the signed decisions still
follow from it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import ValidationError

from ..events.codec import PREVIOUS_HEADER, Encoded, Malformed, decode, from_json, to_json
from ..events.decisions import OrderAnswered
from ..events.envelope import Decision, LogPlace
from ..events.signing import GENESIS, PublicKey, Trust, Untrusted, link_of, who_may_say
from ..events.union import AnyEvent
from .imports.telling import PARTITION as IMPORTED
from .named import Row, ask
from .rows import EVENT_LOG, Archived, event_row, unsealed

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

Fault = Literal[
    "Altered",
    "BadSignature",
    "DecisionMissing",
    "Forked",
    "HeadMissing",
    "NoSeal",
    "NotItsToSay",
    "OrderMissing",
    "PolicyMissing",
    "RunMissing",
    "UnknownKey",
    "Unreadable",
    "Unsigned",
]
Note = Literal["Imported", "BegunAnew", "LostWithItsLog", "Unanswered"]
COMPARED = tuple(name for name in EVENT_LOG.columns if name not in ("body", "seal"))

FIRST = ("time", "run_id", "kind", "what", "who")
"""Of the trail's columns."""


class Finding(NamedTuple):
    """Something that is not as it was said, or (a note) that a reader should know."""

    run_id: str
    what: Fault | Note
    is_fault: bool
    event_id: str
    place: LogPlace | None
    detail: str


class Head(NamedTuple):
    """The last link of a run's chain, and how many decisions lead to it. Kept elsewhere, it shows what is cut off."""

    link: str
    decisions: int


@dataclass(slots=True)
class Audit:
    """What was looked at, and what was found. `signers` counts events by who signed them."""

    runs: int = 0
    events: int = 0
    findings: list[Finding] = field(default_factory=list)
    heads: dict[str, Head] = field(default_factory=dict)
    signers: dict[str, int] = field(default_factory=dict)

    @property
    def faults(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.is_fault]


def audited(client: "Client", trust: Trust, run_id: str = "", kept: Mapping[str, Head] | None = None) -> Audit:
    """Hold one run, or all of them, against their signatures; `kept` are heads of an earlier time.

    Raises:
        QueryRefused, StackNotRunning: the archive cannot be asked.
    """
    audit = Audit()
    runs = [run_id] if run_id else [row["run_id"] for row in ask(client, "audited_runs")]
    for one in runs:
        rows = ask(client, "audited", run=one)
        audit.runs, audit.events = audit.runs + 1, audit.events + len(rows)
        _RunAudit(one, trust, audit).look(rows, (kept or {}).get(one))
    for lost in sorted((kept or {}).keys() - set(runs)):
        if not run_id:
            audit.findings.append(Finding(lost, "RunMissing", True, "", None, "its head was kept, and it is not here"))
    return audit


class _RunAudit:
    """One run's decisions in their order."""

    def __init__(self, run_id: str, trust: Trust, audit: Audit) -> None:
        self._run_id = run_id
        self._trust = trust
        self._audit = audit
        self._links = {GENESIS: -1}
        self._head, self._epoch, self._decisions = GENESIS, 0, 0

    def look(self, rows: Sequence[Row], kept: Head | None) -> None:
        events = [event for row in rows if (event := self._examined(row)) is not None]
        self._cross_examine(rows, events)
        self._audit.heads[self._run_id] = Head(self._head.hex(), self._decisions)
        if kept is not None and kept.link not in {link.hex() for link in self._links}:
            detail = f"{kept.decisions} decisions led to the head that was kept; it is not here"
            self._find("HeadMissing", None, detail)

    def _examined(self, row: Row) -> AnyEvent | None:
        """The event, if it can be read; with everything that is wrong with it found."""
        if row["log_partition"] == IMPORTED:
            self._note_once("Imported", "taken over from another log: what was imported bears no signatures")
            return _event_of(row["body"])
        if not row["seal"]:
            self._find("NoSeal", row, "nothing shows who said this, nor when: it was put in, or its seal was taken off")
            return _event_of(row["body"])
        try:
            wire = unsealed(bytes.fromhex(row["seal"]))
        except ValueError as error:
            self._find("Unreadable", row, str(error))
            return None
        event = decode(wire.headers, wire.body)
        if isinstance(event, Malformed):
            self._find("Unreadable", row, f"{event.reason}: {event.detail}")
            return None
        self._compare(row, event, wire)
        self._check_signature(row, event, wire)
        if isinstance(event, Decision):
            self._chain(row, wire)
        return event

    def _compare(self, row: Row, event: AnyEvent, wire: Encoded) -> None:
        said = event_row(Archived(row["topic"], _place(row), event, wire))
        told = dict(zip(EVENT_LOG.columns, said, strict=True))
        differing = [name for name in COMPARED if told[name] != row[name]]
        if told["body"] != row["body"] and told["body"] != _renewed(row["body"]):
            differing.append("body")
        if differing:
            self._find("Altered", row, f"what was said differs in {', '.join(differing)}")

    def _check_signature(self, row: Row, event: AnyEvent, wire: Encoded) -> None:
        roles = who_may_say(event)
        if not self._trust.keys or not roles:
            return
        found = self._trust.signer(wire)
        if isinstance(found, Untrusted):
            self._find(found.reason if found.reason != "NoKeys" else "Unsigned", row, found.detail)
        elif found.role not in roles:
            self._find("NotItsToSay", row, f"signed by {found.name}, a key of the {found.role}")
        else:
            self._count(found)

    def _count(self, key: PublicKey) -> None:
        name = f"{key.name} ({key.id})"
        self._audit.signers[name] = self._audit.signers.get(name, 0) + 1

    def _chain(self, row: Row, wire: Encoded) -> None:
        previous = dict(wire.headers).get(PREVIOUS_HEADER, b"")
        if previous != self._head:
            self._find_break(row, previous)
        self._head, self._epoch = link_of(wire), row["log_epoch"]
        self._decisions += 1
        self._links[self._head] = self._decisions

    def _find_break(self, row: Row, previous: bytes) -> None:
        if previous == GENESIS:
            self._note("BegunAnew", row, "the chain begins anew here: the governor knew nothing of the run any more")
        elif previous in self._links and row["log_epoch"] > self._epoch:
            lost = self._decisions - self._links[previous]
            self._note("LostWithItsLog", row, f"{lost} decisions before it rest on records that were lost with the log")
        elif previous in self._links:
            self._find("Forked", row, "another decision follows the same one: two governors, or one moved in the log")
        else:
            self._find("DecisionMissing", row, "the decision before it is not here")

    def _cross_examine(self, rows: Sequence[Row], events: Iterable[AnyEvent]) -> None:
        """What decisions speak of must be there."""
        orders = {row["event_id"] for row in rows if row["kind"] == "operator_command"}
        policies = {_policy_hash(row) for row in rows if row["kind"] == "policy_activated"}
        answered = set()
        unknown: set[str] = set()
        for event in events:
            if isinstance(event, OrderAnswered):
                answered.add(event.order_id)
                if event.order_id not in orders:
                    self._find("OrderMissing", None, f"{event.who}'s {event.verb} was answered, and is not here")
            if isinstance(event, Decision) and event.policy_hash and event.policy_hash not in policies | unknown:
                unknown.add(event.policy_hash)
                self._find("PolicyMissing", None, f"decided by policy {event.policy_hash[:12]}, which is not here")
        for row in rows:
            if row["kind"] == "operator_command" and row["event_id"] not in answered:
                self._note("Unanswered", row, "no governor answered this order")

    def _find(self, fault: Fault, row: Row | None, detail: str) -> None:
        self._say(fault, row, detail, is_fault=True)

    def _note(self, note: Note, row: Row | None, detail: str) -> None:
        self._say(note, row, detail, is_fault=False)

    def _note_once(self, note: Note, detail: str) -> None:
        if not any(found.run_id == self._run_id and found.what == note for found in self._audit.findings[-50:]):
            self._note(note, None, detail)

    def _say(self, what: Fault | Note, row: Row | None, detail: str, *, is_fault: bool) -> None:
        event_id, place = (row["event_id"], _place(row)) if row is not None else ("", None)
        self._audit.findings.append(Finding(self._run_id, what, is_fault, event_id, place, detail))


def audit_trail(client: "Client", trust: Trust, run_id: str = "", limit: int = 1_000) -> Iterator[Row]:
    """Who did what, when, why and from where, the latest last; `signed_by` is what the signature shows."""
    for row in reversed(ask(client, "audit_trail", run=run_id, limit=limit)):
        seal = row.pop("seal")
        signed_by = _signed_by(seal, trust)
        yield {name: row[name] for name in FIRST} | {"signed_by": signed_by} | row


def _signed_by(seal: str, trust: Trust) -> str:
    if not seal:
        return ""
    try:
        found = trust.signer(unsealed(bytes.fromhex(seal)))
    except ValueError:
        return "Unreadable"
    return found.reason if isinstance(found, Untrusted) else f"{found.name} ({found.id})"


def _place(row: Row) -> LogPlace:
    return LogPlace(row["log_epoch"], row["log_partition"], row["log_offset"])


def _event_of(body: str) -> AnyEvent | None:
    try:
        return from_json(body)
    except ValidationError:
        return None


def _renewed(body: str) -> str:
    """The body as this version writes it: fields that came later are there with their defaults."""
    event = _event_of(body)
    return "" if event is None else to_json(event)


def _policy_hash(row: Row) -> Any:
    event = _event_of(row["body"])
    return getattr(event, "policy_hash", "")
