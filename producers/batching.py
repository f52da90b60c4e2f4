"""From what was appended to records of the log: consecutive rows of one attempt become one columnar `StepBatch`.

Called by `producers.outbox` on its own thread; what comes out is encoded by `events.codec` and sent by
`producers.kafka`. Order is kept exactly: a told fact closes the batch before it. Where a batch ends means nothing to
readers, so edges follow size alone.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..events.codec import encode
from ..events.envelope import TrainerFact
from ..events.telemetry import StepBatch
from ..events.topics import MAX_RECORD_BYTES
from .context import Identity
from .values import Deferred, Number

MAX_ROWS = 1_000
BATCH_BYTES = 400_000
"""A batch is closed when it may have grown this long; some 10 bytes a value and 20 a row are counted."""

ENVELOPE_BYTES = 4_096
"""What headers, key and the broker's own framing may add to a body."""


class Row(NamedTuple):
    """One `run.log`: who, when (microseconds UTC), which step, what."""

    identity: Identity
    at: int
    step: int
    metrics: Mapping[str, Number]
    deferred: tuple[Deferred, ...] = ()


class Told(NamedTuple):
    """One fact as it was told, not yet numbered."""

    identity: Identity
    at: int
    fact: type[TrainerFact]
    fields: Mapping[str, Any]
    deferred: tuple[Deferred, ...] = ()


Entry = Row | Told


class Outgoing(NamedTuple):
    """A record ready to be sent. `entries` is how many accepted calls it carries; 0 for what the outbox says of
    itself.
    """

    seq: int
    entries: int
    body: bytes
    headers: list[tuple[str, bytes]]

    @property
    def size(self) -> int:
        return len(self.body) + ENVELOPE_BYTES


@dataclass(frozen=True, slots=True)
class Draft:
    """A record before it has a number: either the rows of one batch or one told fact."""

    rows: tuple[Row, ...] = ()
    told: Told | None = None

    @property
    def entries(self) -> int:
        return len(self.rows) + (self.told is not None)


class TooLarge(Exception):
    """No record can carry this."""


def drafts(entries: Iterable[Entry]) -> Iterator[Draft]:
    """The records that carry `entries`, in their order."""
    rows: list[Row] = []
    names: set[str] = set()
    for entry in entries:
        if rows and (isinstance(entry, Told) or entry.identity != rows[0].identity or _full(rows, names, entry)):
            yield Draft(rows=tuple(rows))
            rows, names = [], set()
        if isinstance(entry, Told):
            yield Draft(told=entry)
        else:
            rows.append(entry)
            names.update(entry.metrics)
    if rows:
        yield Draft(rows=tuple(rows))


def _full(rows: list[Row], names: set[str], entry: Row) -> bool:
    columns = len(names) + sum(name not in names for name in entry.metrics)
    return len(rows) >= MAX_ROWS or (len(rows) + 1) * (20 + 10 * columns) > BATCH_BYTES


def encoded(draft: Draft, writer_id: str, seq: int) -> list[Outgoing]:
    """The draft as records numbered from `seq`: one, or more where one would be too long for the log.

    Raises:
        TooLarge: not even its smallest part fits.
        ValueError: the fact is not valid (pydantic's ValidationError is one) or its text cannot be encoded.
    """
    event = fact_of(draft, writer_id, seq)
    wire = encode(event)  # type: ignore[arg-type]  # every concrete TrainerFact is a leaf of AnyEvent
    record = Outgoing(seq, draft.entries, wire.body, wire.headers)
    if record.size <= MAX_RECORD_BYTES:
        return [record]
    if len(draft.rows) < 2:
        raise TooLarge(f"{event.kind} of {len(wire.body)} bytes; a record holds {MAX_RECORD_BYTES}")
    middle = len(draft.rows) // 2
    first = encoded(Draft(rows=draft.rows[:middle]), writer_id, seq)
    return first + encoded(Draft(rows=draft.rows[middle:]), writer_id, first[-1].seq + 1)


def fact_of(draft: Draft, writer_id: str, seq: int) -> TrainerFact:
    """The event of a draft."""
    if draft.told is None:
        last = draft.rows[-1]
        return StepBatch(**_signed(last.identity, last.at, writer_id, seq), **columns(draft.rows))
    told = draft.told
    return told.fact(**_signed(told.identity, told.at, writer_id, seq), **told.fields)


def columns(rows: tuple[Row, ...]) -> dict[str, Any]:
    """Rows turned on their side; None where a row has no such metric."""
    names = dict.fromkeys(name for row in rows for name in row.metrics)
    return {
        "steps": tuple(row.step for row in rows),
        "times": tuple(row.at for row in rows),
        "metrics": {name: tuple(row.metrics.get(name) for row in rows) for name in names},
    }


def _signed(identity: Identity, at: int, writer_id: str, seq: int) -> dict[str, Any]:
    return {
        "run_id": identity.run_id,
        "attempt_id": identity.attempt_id,
        "attempt": identity.attempt,
        "rank": identity.rank,
        "at": at,
        "writer_id": writer_id,
        "seq": seq,
    }
