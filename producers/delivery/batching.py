"""From what was appended to records of the log: consecutive rows of one attempt become one columnar `StepBatch`.

Called by `delivery.outbox` on its own thread; what comes out is encoded by `events.codec` and sent by
`delivery.kafka`. Order is kept exactly: a told fact closes the batch before it. Where a batch ends means nothing to
readers, so edges follow size alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...events.codec import Encoded, encode, encode_fields
from ...events.envelope import TrainerFact
from ...events.telemetry import StepBatch
from ...events.topics import MAX_RECORD_BYTES
from ..metrics.devices import Deferred
from ..metrics.values import Number
from ..ranks.context import Identity

MAX_ROWS = 1_000
BATCH_BYTES = 400_000
"""A batch is closed when it may have grown this long; some 10 bytes a value and 20 a row are counted."""

ENTRY_BYTES, VALUE_BYTES = 300, 64
"""Memory of what waits: an entry, and each value in it (a float, and its place in a dictionary)."""

ENVELOPE_BYTES = 4_096
"""What headers, key and the broker's own framing may add to a body."""


class Row(NamedTuple):
    """One `run.log`: who, when (microseconds UTC), which step, what; and how many values the run's rule left out."""

    identity: Identity
    at: int
    step: int
    metrics: Mapping[str, Number | None]
    deferred: tuple[Deferred, ...] = ()
    thinned: int = 0


class Told(NamedTuple):
    """One fact as it was told, not yet numbered."""

    identity: Identity
    at: int
    fact: type[TrainerFact]
    fields: Mapping[str, Any]
    deferred: tuple[Deferred, ...] = ()


Entry = Row | Told
Raw = tuple[Identity, int, int, dict[str, float | int]]
"""A row as `run.log` leaves it, bare: who, when (nanoseconds), which step, floats and ints. A tenth of the cost."""


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


class Rows(NamedTuple):
    """Rows of one rank and attempt, on their side: `metrics[i]` was logged of `steps[i]` at `times[i]`."""

    identity: Identity
    times: Sequence[int]
    steps: Sequence[int]
    metrics: Sequence[Mapping[str, Number | None]]

    def part(self, first: int, last: int) -> "Rows":
        """Rows `first` to `last`, the latter exclusive."""
        return Rows(self.identity, self.times[first:last], self.steps[first:last], self.metrics[first:last])


@dataclass(frozen=True, slots=True)
class Draft:
    """A record before it has a number: either the rows of one batch or one told fact."""

    rows: Rows | None = None
    told: Told | None = None

    @property
    def entries(self) -> int:
        return len(self.rows.steps) if self.rows is not None else 1

    @property
    def identity(self) -> Identity:
        said = self.told or self.rows
        assert said is not None
        return said.identity


class TooLarge(Exception):
    """No record can carry this."""


def entry_of(waiting: Entry | Raw) -> Entry:
    """What waits in the queue, by name."""
    if type(waiting) is not tuple:
        return waiting  # type: ignore[return-value]  # a bare tuple is the Raw
    identity, nanoseconds, step, metrics = waiting  # type: ignore[misc]  # as above
    return Row(identity, nanoseconds // 1_000, step, metrics)


def weight(entry: Entry | Raw) -> int:
    """The memory that an entry takes while it waits, in bytes, roughly."""
    if isinstance(entry, Told):
        return ENTRY_BYTES + _weight_of(entry.fields)
    metrics = entry.metrics if isinstance(entry, Row) else entry[3]
    return ENTRY_BYTES + VALUE_BYTES * len(metrics)


def _weight_of(value: object) -> int:
    match value:
        case str() | bytes():
            return VALUE_BYTES + len(value)
        case Mapping():
            return VALUE_BYTES + sum(VALUE_BYTES + _weight_of(item) for item in value.values())
        case list() | tuple():
            return VALUE_BYTES + sum(map(_weight_of, value))
        case _:
            return VALUE_BYTES


def rows_of(raws: Sequence[Raw]) -> Rows | None:
    """Many at once; None where not all are of one identity."""
    identities, nanoseconds, steps, metrics = zip(*raws, strict=True)
    if len(set(map(id, identities))) > 1:
        return None
    return Rows(identities[0], [at // 1_000 for at in nanoseconds], steps, metrics)


def drafts(entries: Iterable[Entry | Rows]) -> Iterator[Draft]:
    """The records that carry `entries`, in their order."""
    rows: list[Row] = []
    names: set[str] = set()
    for entry in entries:
        if rows and (not isinstance(entry, Row) or entry.identity != rows[0].identity or _full(rows, names, entry)):
            yield _draft(rows)
            rows, names = [], set()
        if isinstance(entry, Row):
            rows.append(entry)
            names.update(entry.metrics)
        elif isinstance(entry, Told):
            yield Draft(told=entry)
        else:
            yield from _parts(entry)
    if rows:
        yield _draft(rows)


def _draft(rows: list[Row]) -> Draft:
    times, steps, metrics = zip(*[(row.at, row.step, row.metrics) for row in rows], strict=True)
    return Draft(Rows(rows[0].identity, times, steps, metrics))


def _full(rows: list[Row], names: set[str], entry: Row) -> bool:
    columns = len(names) + sum(name not in names for name in entry.metrics)
    return len(rows) >= MAX_ROWS or (len(rows) + 1) * _row_bytes(columns) > BATCH_BYTES


def _parts(rows: Rows) -> Iterator[Draft]:
    widest = len(set().union(*set(map(tuple, rows.metrics))))
    most = max(1, min(MAX_ROWS, BATCH_BYTES // _row_bytes(widest)))
    for first in range(0, len(rows.steps), most):
        yield Draft(rows.part(first, first + most))


def _row_bytes(columns: int) -> int:
    return 20 + 10 * columns


def encoded(draft: Draft, writer_id: str, seq: int) -> list[Outgoing]:
    """The draft as records numbered from `seq`: one, or more where one would be too long for the log.

    Raises:
        TooLarge: not even its smallest part fits.
        ValueError: the fact is not valid (pydantic's ValidationError is one) or its text cannot be encoded.
    """
    wire = _wire(draft, writer_id, seq)
    record = Outgoing(seq, draft.entries, wire.body, wire.headers)
    if record.size <= MAX_RECORD_BYTES:
        return [record]
    if draft.rows is None or draft.entries < 2:
        kind = wire.headers[0][1].decode()
        raise TooLarge(f"{kind} of {len(wire.body)} bytes; a record holds {MAX_RECORD_BYTES}")
    middle = draft.entries // 2
    first = encoded(Draft(draft.rows.part(0, middle)), writer_id, seq)
    return first + encoded(Draft(draft.rows.part(middle, draft.entries)), writer_id, first[-1].seq + 1)


def _wire(draft: Draft, writer_id: str, seq: int) -> Encoded:
    if (told := draft.told) is not None:
        event = told.fact(**_signed(told.identity, told.at, writer_id, seq), **told.fields)
        return encode(event)  # type: ignore[arg-type]  # every concrete TrainerFact is a leaf of AnyEvent
    assert draft.rows is not None
    # What `metrics.values` lets through is valid, so that pydantic would only be asked what is known.
    signed = _signed(draft.rows.identity, draft.rows.times[-1], writer_id, seq)
    return encode_fields(StepBatch, signed | columns(draft.rows))


def columns(rows: Rows) -> dict[str, Any]:
    """The columns of a `StepBatch`: every number a float, None where a row has no such metric."""
    shapes = set(map(tuple, rows.metrics))
    metrics = _alike(rows.metrics) if len(shapes) == 1 else None
    return {"steps": rows.steps, "times": rows.times, "metrics": metrics or _various(rows.metrics)}


def _alike(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]] | None:
    """The columns of rows with the same names in the same order; None where a number was left out."""
    values = zip(*[row.values() for row in rows], strict=True)
    try:
        return {name: list(map(float, column)) for name, column in zip(rows[0], values, strict=True)}
    except TypeError:  # a None
        return None


def _various(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    names = dict.fromkeys(name for row in rows for name in row)
    found = {name: [row.get(name) for row in rows] for name in names}
    return {name: [None if value is None else float(value) for value in column] for name, column in found.items()}


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
