"""Events as rows of ClickHouse, and StepBatches back from theirs. Pure.

`archive` inserts what `rows_of` returns; `history` rebuilds batches with `step_batch`. The columns and their types are
those of `migrations/0001_log.sql`, named here so that an insert needs not ask for them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, assert_never

from ..events.codec import to_json
from ..events.commands import PipelineReported, Tick
from ..events.envelope import Decision, Fact, LogPlace, TrainerFact
from ..events.telemetry import RunStarted, StepBatch
from ..events.union import AnyEvent


class Archived(NamedTuple):
    """A record on its way into the archive."""

    topic: str
    place: LogPlace
    event: AnyEvent


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
    | {"writer_id": _WORD, "seq": "UInt64", "body": "String"},
)
STEP_LOG = Table(
    "step_log",
    {"run_id": "String", "metric": _WORD, "step": "Int64", "writer_id": _WORD, "seq": "UInt64"}
    | {"row_index": "UInt16", "column_index": "UInt16", "attempt_id": _WORD, "attempt": "Int64", "rank": "Int32"}
    | {"at": _TIME, "value": "Float64", "logged": "Bool", "batch_at": _TIME}
    | _PLACE,
)
TICK_LOG = Table("tick_log", {"partition": "UInt32", "writer_id": _WORD, "seq": "UInt64", "at": _TIME} | _PLACE)

Row = tuple[Any, ...]
NO_METRIC = ""
"""The metric of the row that stands for a step of which nothing was logged. (A metric's name is never empty.)"""


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
                rows.events.append(_event_row(record))
            case _ as unreachable:
                assert_never(unreachable)
    return rows


def _event_row(record: Archived) -> Row:
    event = record.event
    attempt_id, attempt, rank = _lineage(event)
    writer_id, seq = (event.writer_id, event.seq) if isinstance(event, Fact) else ("", 0)
    run_id = event.run_id if isinstance(event, Fact | Decision) else ""
    head = (run_id, event.kind, event.event_id, attempt_id, attempt, rank, event.at, _step(event), record.topic)
    return (*head, *record.place, writer_id, seq, to_json(event))


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
    """A row per value; a None is no row, unless without it the batch could not be told from a smaller one."""
    lineage = (batch.attempt_id, batch.attempt, batch.rank)
    told = (batch.at, *place)

    def row(metric: str, column: int, index: int, value: float | None) -> Row:
        identity = (batch.run_id, metric, batch.steps[index], batch.writer_id, batch.seq, index, column)
        return (*identity, *lineage, batch.times[index], 0.0 if value is None else value, value is not None, *told)

    silent = set(range(len(batch.steps)))
    for column, (metric, values) in enumerate(batch.metrics.items()):
        logged = [index for index, value in enumerate(values) if value is not None]
        silent.difference_update(logged)
        for index in logged or (0,):
            yield row(metric, column, index, values[index])
    for index in sorted(silent):
        yield row(NO_METRIC, 0, index, None)


class StepRow(NamedTuple):
    """A row of the query `batch_rows`."""

    log_epoch: int
    log_partition: int
    log_offset: int
    attempt_id: str
    attempt: int
    rank: int
    writer_id: str
    seq: int
    batch_at: int
    row_index: int
    column_index: int
    metric: str
    step: int
    at: int
    value: float
    logged: bool

    @property
    def place(self) -> LogPlace:
        return LogPlace(self.log_epoch, self.log_partition, self.log_offset)


def step_batch(run_id: str, rows: Sequence[StepRow]) -> StepBatch:
    """The batch that `_step_rows` took apart, equal to the last bit."""
    first = rows[0]
    lines = {row.row_index: (row.step, row.at) for row in rows}
    names = {row.column_index: row.metric for row in rows if row.metric != NO_METRIC}
    columns: dict[str, list[float | None]] = {names[column]: [None] * len(lines) for column in sorted(names)}
    for row in rows:
        if row.logged:
            columns[row.metric][row.row_index] = row.value
    ordered = [lines[index] for index in sorted(lines)]
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
        metrics={metric: tuple(values) for metric, values in columns.items()},
    )
