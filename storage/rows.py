"""Events as rows of ClickHouse, and StepBatches back from theirs. Pure.

`archive` inserts what `rows_of` returns; `history` rebuilds batches with `batch_of`. The columns and their types are
those of `migrations/0001_log.sql`, named here so that an insert needs not ask for them.

A batch is a row for each of its metrics, with arrays of what was logged: as columnar as it was on the wire. So the
lineage, the place and the identity cost once a batch, and a long run is few rows.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, assert_never

import msgspec

from ..events.codec import PREVIOUS_HEADER, SIGNATURE_HEADER, Encoded, to_json
from ..events.commands import PipelineReported, Tick
from ..events.envelope import Decision, Fact, LogPlace, TrainerFact
from ..events.telemetry import RunStarted, StepBatch
from ..events.union import AnyEvent

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[list[tuple[str, bytes]], bytes]).decode


class Archived(NamedTuple):
    """A record on its way into the archive."""

    topic: str
    place: LogPlace
    event: AnyEvent
    wire: Encoded | None = None
    """As it travelled: kept where it is signed or stands in a chain."""


@dataclass(frozen=True, slots=True)
class Table:
    """Where rows go: the table and, in their order, its columns with their types."""

    name: str
    columns: dict[str, str]


_PLACE = {"log_epoch": "UInt32", "log_partition": "UInt32", "log_offset": "UInt64"}
_TIME = "DateTime64(6, 'UTC')"
_WORD = "LowCardinality(String)"

EVENT_LOG = Table(
    "event_log",
    {"run_id": "String", "kind": _WORD, "event_id": "String", "attempt_id": _WORD, "attempt": "Int64"}
    | {"rank": "Nullable(Int32)", "at": _TIME, "step": "Nullable(Int64)", "topic": _WORD}
    | _PLACE
    | {"writer_id": _WORD, "seq": "UInt64", "body": "String", "seal": "String"},
)
STEP_LOG = Table(
    "step_log",
    {"run_id": "String", "metric": _WORD, "first_step": "Int64", "writer_id": _WORD, "seq": "UInt64"}
    | {"column_index": "UInt16", "attempt_id": _WORD, "attempt": "Int64", "rank": "Int32"}
    | {"rows": "Array(UInt16)", "steps": "Array(Int64)", "times": f"Array({_TIME})", "bits": "Array(UInt64)"}
    | {"batch_at": _TIME}
    | _PLACE,
)
TICK_LOG = Table("tick_log", {"partition": "UInt32", "writer_id": _WORD, "seq": "UInt64", "at": _TIME} | _PLACE)

Row = tuple[Any, ...]
NO_METRIC = ""
"""The metric of the row that keeps the steps of which nothing was logged. (A metric's name is never empty.)"""


@dataclass(slots=True)
class Rows:
    """What a batch of records puts into each table."""

    events: list[Row] = field(default_factory=list)
    steps: list[Row] = field(default_factory=list)
    ticks: list[Row] = field(default_factory=list)

    def by_table(self) -> Iterator[tuple[Table, list[Row]]]:
        """The tables that get any."""
        pairs = ((EVENT_LOG, self.events), (STEP_LOG, self.steps), (TICK_LOG, self.ticks))
        return ((table, rows) for table, rows in pairs if rows)


def rows_of(records: Sequence[Archived]) -> Rows:
    """The rows of these records. The same record gives the same rows, whatever stands beside it."""
    rows = Rows()
    for record in records:
        match record.event:
            case StepBatch() as batch:
                rows.steps.extend(_step_rows(batch, record.place))
            case Tick() as tick:
                rows.ticks.append((tick.partition, tick.writer_id, tick.seq, tick.at, *record.place))
            case Fact() | Decision():
                rows.events.append(event_row(record))
            case _ as unreachable:
                assert_never(unreachable)
    return rows


def event_row(record: Archived) -> Row:
    """The values of `EVENT_LOG`'s columns, in their order."""
    event = record.event
    attempt_id, attempt, rank = _lineage(event)
    writer_id, seq = (event.writer_id, event.seq) if isinstance(event, Fact) else ("", 0)
    run_id = event.run_id if isinstance(event, Fact | Decision) else ""
    head = (run_id, event.kind, event.event_id, attempt_id, attempt, rank, event.at, _step(event), record.topic)
    return (*head, *record.place, writer_id, seq, to_json(event), seal_of(record.wire))


def seal_of(wire: Encoded | None) -> bytes:
    """What is kept of how a record travelled, for whoever audits it; nothing of what was neither signed nor chained."""
    if wire is None or not {PREVIOUS_HEADER, SIGNATURE_HEADER} & {name for name, _ in wire.headers}:
        return b""
    return _pack((wire.headers, wire.body))


def unsealed(seal: bytes) -> Encoded:
    """
    Raises:
        ValueError: it is no seal.
    """
    try:
        headers, body = _unpack(seal)
    except msgspec.DecodeError as error:
        raise ValueError(f"no seal: {error}") from error
    return Encoded(body, headers)


def _lineage(event: AnyEvent) -> tuple[str, int, int | None]:
    match event:
        case TrainerFact() | PipelineReported():
            return event.attempt_id, event.attempt, event.rank
        case Decision():
            return event.attempt_id, event.attempt, None
        case _:
            return "", 0, None


def _step(event: AnyEvent) -> int | None:
    return event.first_step if isinstance(event, RunStarted) else getattr(event, "step", None)


def _step_rows(batch: StepBatch, place: LogPlace) -> Iterator[Row]:
    """A row per metric; where nothing at all was logged of some steps, one more that keeps them."""
    lineage = (batch.attempt_id, batch.attempt, batch.rank)
    first_step = min(batch.steps)

    def row(metric: str, column: int, kept: Sequence[int], values: Sequence[float]) -> Row:
        steps, times = _picked(batch, kept) if kept else ((), ())
        identity = (batch.run_id, metric, min(steps, default=first_step), batch.writer_id, batch.seq, column)
        return (*identity, *lineage, kept, steps, times, _bits(array("d", values)), batch.at, *place)

    def whole(metric: str, column: int, values: "array[float]") -> Row:
        identity = (batch.run_id, metric, first_step, batch.writer_id, batch.seq, column)
        return (*identity, *lineage, (), batch.steps, batch.times, _bits(values), batch.at, *place)

    silent: set[int] | None = None
    for column, (metric, values) in enumerate(batch.metrics.items()):
        dense = _without_holes(values)
        if dense is not None:
            silent = set()
            yield whole(metric, column, dense)
            continue
        logged = [index for index, value in enumerate(values) if value is not None]
        silent = (set(range(len(values))) if silent is None else silent).difference(logged)
        yield row(metric, column, logged, [value for value in values if value is not None])
    if silent:
        yield row(NO_METRIC, 0, sorted(silent), [0.0] * len(silent))


def _without_holes(values: Sequence[float | None]) -> "array[float] | None":
    """The values, where there is one for every step. (An array of doubles refuses None faster than Python finds it.)"""
    try:
        return array("d", values)  # type: ignore[arg-type]  # a None is what is asked for
    except TypeError:
        return None


def _bits(values: "array[float]") -> "array[int]":
    """Each double as the integer of its bits, which the archive stores plane by plane."""
    bits = array("Q")
    bits.frombytes(values.tobytes())
    return bits


def _picked(batch: StepBatch, kept: Sequence[int]) -> tuple[list[int], list[int]]:
    return [batch.steps[index] for index in kept], [batch.times[index] for index in kept]


class StepColumn(NamedTuple):
    """A row of the query `batch_columns`: one metric of one batch. `rows` is empty where every row of the batch has a
    value, and where none has; `values` tells which.
    """

    log_epoch: int
    log_partition: int
    log_offset: int
    attempt_id: str
    attempt: int
    rank: int
    writer_id: str
    seq: int
    batch_at: int
    column_index: int
    metric: str
    rows: Sequence[int]
    steps: Sequence[int]
    times: Sequence[int]
    values: Sequence[float]

    @property
    def place(self) -> LogPlace:
        return LogPlace(self.log_epoch, self.log_partition, self.log_offset)

    @property
    def indices(self) -> Sequence[int]:
        """Of the rows of the batch that have a value here."""
        return self.rows or range(len(self.values))


def batch_of(run_id: str, columns: Sequence[StepColumn]) -> StepBatch:
    """The batch that `_step_rows` took apart, equal to the last bit."""
    first = columns[0]
    lines: dict[int, tuple[int, int]] = {}
    for column in columns:
        lines.update(zip(column.indices, zip(column.steps, column.times, strict=True), strict=True))
    ordered = [lines[index] for index in sorted(lines)]
    metrics = {
        column.metric: _spread(column, len(ordered))
        for column in sorted(columns, key=lambda column: column.column_index)
        if column.metric != NO_METRIC
    }
    return StepBatch(
        run_id=run_id,
        attempt_id=first.attempt_id,
        attempt=first.attempt,
        rank=first.rank,
        writer_id=first.writer_id,
        seq=first.seq,
        at=first.batch_at,
        steps=tuple(step for step, _ in ordered),
        times=tuple(at for _, at in ordered),
        metrics=metrics,
    )


def _spread(column: StepColumn, length: int) -> tuple[float | None, ...]:
    if len(column.values) == length:
        return tuple(column.values)
    spread: list[float | None] = [None] * length
    for index, value in zip(column.indices, column.values, strict=True):
        spread[index] = value
    return tuple(spread)
