"""A StepBatch taken apart into its columns, and put together again, equal to the last bit. Pure.

A column is one metric of one batch: how the archive keeps steps (`step_block`, read by `history`) and how a portable
file does (`portable_format`). So the lineage, the place and the identity cost once a batch, and a long run is few rows.
"""

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..events.envelope import LogPlace
from ..events.telemetry import StepBatch

NO_METRIC = ""
"""The metric of the column that keeps the steps of which nothing was logged. (A metric's name is never empty.)"""


class Column(NamedTuple):
    """`rows` says which rows of the batch have a value, and is empty where all have and where none has."""

    metric: str
    number: int
    rows: Sequence[int]
    values: "array[float]"


def columns_of(batch: StepBatch) -> Iterator[Column]:
    """A column per metric; where nothing at all was logged of some steps, one more that keeps them."""
    silent: set[int] | None = None
    for index, (metric, values) in enumerate(batch.metrics.items()):
        dense = without_holes(values)
        if dense is not None:
            silent = set()
            yield Column(metric, index, (), dense)
            continue
        logged = [row for row, value in enumerate(values) if value is not None]
        silent = (set(range(len(values))) if silent is None else silent).difference(logged)
        yield Column(metric, index, logged, array("d", [value for value in values if value is not None]))
    if silent:
        yield Column(NO_METRIC, 0, sorted(silent), array("d", bytes(8 * len(silent))))


def without_holes(values: Sequence[float | None]) -> "array[float] | None":
    """The values, where there is one for every step. (An array of doubles refuses None faster than Python finds it.)"""
    try:
        return array("d", values)  # type: ignore[arg-type]  # a None is what is asked for
    except TypeError:
        return None


class StepColumn(NamedTuple):
    """A column as it was kept: a row of the query `batch_columns`, or of `steps.parquet`."""

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
    """The batch of these columns, in whatever order they come.

    Raises:
        ValueError: they are not those of one batch.
    """
    first = columns[0]
    lines: dict[int, tuple[int, int]] = {}
    for column in columns:
        lines.update(zip(column.indices, zip(column.steps, column.times, strict=True), strict=True))
    if sorted(lines) != list(range(len(lines))):
        raise ValueError("a row of the batch is in none of its columns")
    metrics = {
        column.metric: _spread(column, len(lines))
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
        steps=tuple(lines[row][0] for row in range(len(lines))),
        times=tuple(lines[row][1] for row in range(len(lines))),
        metrics=metrics,
    )


def _spread(column: StepColumn, length: int) -> tuple[float | None, ...]:
    if len(column.values) == length:
        return tuple(column.values)
    spread: list[float | None] = [None] * length
    for index, value in zip(column.indices, column.values, strict=True):
        spread[index] = value
    return tuple(spread)
