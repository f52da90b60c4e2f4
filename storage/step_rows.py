"""Step batches as one row per value, and back: how a portable file keeps them. Pure.

`portable_format` takes batches apart with `step_rows`, `portable_reading` makes them again with `step_batch`. (The
archive keeps whole columns: `rows`.)
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..events.envelope import LogPlace
from ..events.telemetry import StepBatch
from .rows import NO_METRIC


class StepRow(NamedTuple):
    """One value; or, with `logged` false, what keeps the shape of a batch where a step or a metric has none."""

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


def step_rows(batch: StepBatch, place: LogPlace) -> Iterator[StepRow]:
    """A row per value; a None is no row, unless without it the batch could not be told from a smaller one."""
    head = (*place, batch.attempt_id, batch.attempt, batch.rank, batch.writer_id, batch.seq, batch.at)

    def row(metric: str, column: int, index: int, value: float | None) -> StepRow:
        kept = 0.0 if value is None else value
        return StepRow(*head, index, column, metric, batch.steps[index], batch.times[index], kept, value is not None)

    silent = set(range(len(batch.steps)))
    for column, (metric, values) in enumerate(batch.metrics.items()):
        logged = [index for index, value in enumerate(values) if value is not None]
        silent.difference_update(logged)
        for index in logged or (0,):
            yield row(metric, column, index, values[index])
    for index in sorted(silent):
        yield row(NO_METRIC, 0, index, None)


def step_batch(run_id: str, rows: Sequence[StepRow]) -> StepBatch:
    """The batch that `step_rows` took apart, equal to the last bit."""
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
