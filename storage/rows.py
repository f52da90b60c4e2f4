"""Events as rows of ClickHouse. Pure.

`archive` inserts what `rows_of` returns. The columns and their types are those of `migrations/0001_log.sql`, named here
so that an insert needs not ask for them. Of a batch of steps each metric is a row, with arrays of what was logged
(`step_columns`): there are so many that they are gathered as ClickHouse wants them on the wire (`step_block`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, assert_never

import msgspec

from ..events.codec import PREVIOUS_HEADER, SIGNATURE_HEADER, Encoded, to_json
from ..events.commands import PipelineReported, Tick
from ..events.envelope import Decision, Fact, LogPlace, TrainerFact
from ..events.telemetry import RunStarted, StepBatch
from ..events.union import AnyEvent
from .step_block import StepBlock

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
TICK_LOG = Table("tick_log", {"partition": "UInt32", "writer_id": _WORD, "seq": "UInt64", "at": _TIME} | _PLACE)

Row = tuple[Any, ...]
BLOCK_VALUES = 2_000_000
"""Logged values in one block, about: some 50 MB on the wire, of which a server takes several times as much."""


@dataclass(slots=True)
class Rows:
    """What a batch of records puts into each table; `steps` are blocks, each for one request."""

    events: list[Row] = field(default_factory=list)
    steps: list[StepBlock] = field(default_factory=list)
    ticks: list[Row] = field(default_factory=list)

    def by_table(self) -> Iterator[tuple[Table, list[Row]]]:
        """The tables of single rows that get any."""
        pairs = ((EVENT_LOG, self.events), (TICK_LOG, self.ticks))
        return ((table, rows) for table, rows in pairs if rows)

    def add_steps(self, batch: StepBatch, place: LogPlace) -> None:
        if not self.steps or self.steps[-1].values >= BLOCK_VALUES:
            self.steps.append(StepBlock())
        self.steps[-1].add(batch, place)


def rows_of(records: Sequence[Archived]) -> Rows:
    """The rows of these records. The same record gives the same rows, whatever stands beside it."""
    rows = Rows()
    for record in records:
        match record.event:
            case StepBatch() as batch:
                rows.add_steps(batch, record.place)
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
