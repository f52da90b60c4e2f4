"""The file of `pilothouse export`: one run with all that was told and decided of it, to be kept, sent and read.

A zip of four members. `manifest.json` says what it is; `events.jsonl` holds facts and decisions, one object a line,
`steps.parquet` what was logged of steps, one metric of one batch a row (`step_columns`), `ticks.parquet` the clock.
Places in the log of the stack mean nothing elsewhere, so records are numbered anew from 0, in the order in which they
were judged, and the decisions of the run from 0 as well; a decision's `basis` names the record it was made on by its
new number. All else is as it was, to the last bit. `portable_writing` writes it, `portable_reading` reads it and
believes nothing.
"""

from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..events.codec import encode
from ..events.envelope import LogPlace
from ..events.telemetry import StepBatch
from ..events.union import AnyDecision, AnyInput
from .imports.telling import PARTITION
from .step_columns import Column, columns_of

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1
MANIFEST, EVENTS, STEPS, TICKS = "manifest.json", "events.jsonl", "steps.parquet", "ticks.parquet"
MEMBERS = (MANIFEST, EVENTS, STEPS, TICKS)
LOG, CONTROL = "log", "control"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Amount = Annotated[int, Field(ge=0, lt=2**40)]

STEP_COLUMNS = (
    {"offset": "uint64", "attempt_id": "string", "attempt": "int64", "rank": "int32", "writer_id": "string"}
    | {"seq": "uint64", "batch_at": "int64", "column_index": "uint16", "metric": "string", "rows": "list_(uint16)"}
    | {"steps": "list_(int64)", "times": "list_(int64)", "values": "list_(float64)"}
)
"""By name, pyarrow's types: those of `StepColumn`, with one offset for its place. Times are microseconds."""
TICK_COLUMNS = {"offset": "uint64", "partition": "uint32", "writer_id": "string", "seq": "uint64", "at": "int64"}


class Manifest(BaseModel):
    """What the file holds. `content` is the digest of all records and decisions in order, whatever wrote them down;
    `schemas` the version of each kind of event in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["pilothouse-run"] = "pilothouse-run"
    version: Annotated[int, Field(ge=1)] = VERSION
    run_id: Annotated[str, Field(min_length=1, max_length=200)]
    records: Amount
    decisions: Amount
    step_rows: Amount
    ticks: Amount
    content: Digest
    schemas: dict[str, Annotated[int, Field(ge=1)]]


class Content:
    """The digest of a run's history: of every event as it would travel, with its number."""

    def __init__(self) -> None:
        self._digest = sha256()

    def take(self, part: str, offset: int, event: AnyInput | AnyDecision) -> None:
        body = encode(event).body
        self._digest.update(b"%s %d %d\n" % (part.encode(), offset, len(body)))
        self._digest.update(body)

    @property
    def hex(self) -> str:
        return self._digest.hexdigest()


def place(offset: int) -> LogPlace:
    """Where the record of this number stands in an archive that it was brought to."""
    return LogPlace(0, PARTITION, offset)


def schema(columns: dict[str, str]) -> "pa.Schema":
    """Arrow's, from ours."""
    import pyarrow as pa

    def kind(name: str) -> "pa.DataType":
        if name.startswith("list_("):
            return pa.list_(pa.field("element", kind(name[6:-1]), nullable=False))
        return getattr(pa, name)()

    return pa.schema([pa.field(name, kind(told), nullable=False) for name, told in columns.items()])


def step_columns(batch: StepBatch, offset: int) -> list[list[Any]]:
    """A batch as columns of `steps.parquet`, less what every row of the file shares."""
    rows = [_row(batch, column, offset) for column in columns_of(batch)]
    return [list(values) for values in zip(*rows, strict=True)]


def _row(batch: StepBatch, column: Column, offset: int) -> tuple[Any, ...]:
    kept = column.rows or range(len(column.values))
    head = (offset, batch.attempt_id, batch.attempt, batch.rank, batch.writer_id, batch.seq, batch.at)
    steps, times = [batch.steps[row] for row in kept], [batch.times[row] for row in kept]
    return (*head, column.number, column.metric, list(column.rows), steps, times, column.values.tolist())
