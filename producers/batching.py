"""From what was appended to records of the log: consecutive rows of one attempt become one columnar `StepBatch`.

Called by `producers.outbox` on its own thread; what comes out is encoded by `events.codec` and sent by
`producers.kafka`. Order is kept exactly: a told fact closes the batch before it. Where a batch ends means nothing to
readers, so edges follow size alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..events.codec import Encoded, encode, encode_fields
from ..events.envelope import TrainerFact
from ..events.telemetry import StepBatch
from ..events.topics import MAX_RECORD_BYTES
from .context import Identity
from .devices import Deferred
from .values import Number

MAX_ROWS = 1_000
BATCH_BYTES = 400_000
"""A batch is closed when it may have grown this long; some 10 bytes a value and 20 a row are counted."""

ENVELOPE_BYTES = 4_096
"""What headers, key and the broker's own framing may add to a body."""

_tuple = tuple.__new__  # a NamedTuple's own constructor is a Python function: three times the cost


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


def entry_of(waiting: Entry | Raw) -> Entry:
    """What waits in the queue, by name."""
    if type(waiting) is not tuple:
        return waiting  # type: ignore[return-value]  # a bare tuple is the Raw
    identity, nanoseconds, step, metrics = waiting  # type: ignore[misc]  # as above
    return _tuple(Row, (identity, nanoseconds // 1_000, step, metrics, (), 0))


def drafts(entries: Iterable[Entry]) -> Iterator[Draft]:
    """The records that carry `entries`, in their order."""
    rows: list[Row] = []
    columns = _Columns()
    for entry in entries:
        if isinstance(entry, Told):
            if rows:
                yield Draft(rows=tuple(rows))
                rows, columns = [], _Columns()
            yield Draft(told=entry)
            continue
        wide = columns.with_those_of(entry)
        if rows and (_differ(entry.identity, rows[0].identity) or _full(len(rows), wide)):
            yield Draft(rows=tuple(rows))
            rows, columns = [], _Columns()
            columns.with_those_of(entry)
        rows.append(entry)
    if rows:
        yield Draft(rows=tuple(rows))


class _Columns:
    """Which columns the rows of a batch make together. Rows mostly have the same names in the same order: that is
    seen by comparing two lists.
    """

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._last: list[str] = []

    def with_those_of(self, row: Row) -> int:
        """How many there are with this row's."""
        names = list(row.metrics)
        if names != self._last:
            self._names.update(names)
            self._last = names
        return len(self._names)


def _differ(one: Identity, other: Identity) -> bool:
    return one is not other and one != other


def _full(rows: int, columns: int) -> bool:
    return rows >= MAX_ROWS or (rows + 1) * (20 + 10 * columns) > BATCH_BYTES


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
    if len(draft.rows) < 2:
        kind = wire.headers[0][1].decode()
        raise TooLarge(f"{kind} of {len(wire.body)} bytes; a record holds {MAX_RECORD_BYTES}")
    middle = len(draft.rows) // 2
    first = encoded(Draft(rows=draft.rows[:middle]), writer_id, seq)
    return first + encoded(Draft(rows=draft.rows[middle:]), writer_id, first[-1].seq + 1)


def _wire(draft: Draft, writer_id: str, seq: int) -> Encoded:
    if (told := draft.told) is not None:
        event = told.fact(**_signed(told.identity, told.at, writer_id, seq), **told.fields)
        return encode(event)  # type: ignore[arg-type]  # every concrete TrainerFact is a leaf of AnyEvent
    last = draft.rows[-1]
    # What `producers.values` lets through is valid, so that pydantic would only be asked what is known.
    return encode_fields(StepBatch, _signed(last.identity, last.at, writer_id, seq) | columns(draft.rows))


def columns(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows turned on their side, every number a float; None where a row has no such metric."""
    metrics = [row.metrics for row in rows]
    return {
        "steps": [row.step for row in rows],
        "times": [row.at for row in rows],
        "metrics": _alike(metrics) or _various(metrics),
    }


def _alike(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]] | None:
    """The columns of rows that have the same names in the same order, and no name without a number."""
    names = list(rows[0])
    if any(list(row) != names for row in rows):
        return None
    values = zip(*[row.values() for row in rows], strict=True)
    try:
        return {name: list(map(float, column)) for name, column in zip(names, values, strict=True)}
    except TypeError:  # a None: its value was left out
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
