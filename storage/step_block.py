"""Rows of `step_log`, gathered column by column in the bytes of ClickHouse's Native format. Pure.

`rows` fills blocks, `archive` sends them. The driver's own writer packs every element of every array by itself, which
for steps is nearly all the time an insert takes. Here what a batch's metrics share (its steps, its times, its identity)
is packed once and copied, and a double's bytes are the bits that the archive keeps.
"""

from array import array
from collections.abc import Mapping, Sequence

from ..events.envelope import LogPlace
from ..events.telemetry import StepBatch
from .native import Arrays, native_block, packed
from .step_columns import columns_of, without_holes

_TIME = "DateTime64(6, 'UTC')"
_WORD = "LowCardinality(String)"
NAME = "step_log"
COLUMNS: Mapping[str, str] = (
    {"run_id": "String", "metric": _WORD, "first_step": "Int64", "writer_id": _WORD, "seq": "UInt64"}
    | {"column_index": "UInt16", "attempt_id": _WORD, "attempt": "Int64", "rank": "Int32", "batch_at": _TIME}
    | {"log_epoch": "UInt32", "log_partition": "UInt32", "log_offset": "UInt64"}
    | {"rows": "Array(UInt16)", "steps": "Array(Int64)", "times": f"Array({_TIME})", "bits": "Array(UInt64)"}
)
"""By name, their types; those of `migrations/0001_log.sql`."""


class StepBlock:
    """Grows batch by batch. `values` counts what was logged in it; `columns` are what it holds, by name."""

    def __init__(self) -> None:
        self.values = 0
        self._rows, self._steps, self._times, self._bits = (Arrays() for _ in range(4))
        self._alone: dict[str, list[str | int]] = {name: [] for name in COLUMNS if "Array" not in COLUMNS[name]}

    def __len__(self) -> int:
        return len(self._bits)

    @property
    def columns(self) -> dict[str, Sequence[str | int] | Arrays]:
        arrays = {"rows": self._rows, "steps": self._steps, "times": self._times, "bits": self._bits}
        return {**self._alone, **arrays}

    def native(self) -> bytes:
        """The block as it is sent.

        Raises:
            OverflowError, TypeError, UnicodeEncodeError: a value does not fit its column.
        """
        return native_block(COLUMNS, self.columns)

    def add(self, batch: StepBatch, place: LogPlace) -> None:
        """A row per metric. Where it raises (as `native`), the block is of no more use."""
        before = len(self)
        columns = [column for column in map(without_holes, batch.metrics.values()) if column is not None]
        if len(columns) == len(batch.metrics):
            self._add_whole(batch, columns)
        else:
            self._add_parts(batch)
        shared: dict[str, str | int] = {"run_id": batch.run_id, "writer_id": batch.writer_id, "seq": batch.seq}
        shared |= {"attempt_id": batch.attempt_id, "attempt": batch.attempt, "rank": batch.rank, "batch_at": batch.at}
        shared |= {"log_epoch": place.epoch, "log_partition": place.partition, "log_offset": place.offset}
        for name, value in shared.items():
            self._alone[name] += [value] * (len(self) - before)

    def _add_whole(self, batch: StepBatch, columns: "list[array[float]]") -> None:
        """A batch in which every metric has every value, as nearly all are: many rows at a time."""
        length, count = len(batch.steps), len(columns)
        self._alone["metric"] += batch.metrics
        self._alone["column_index"] += range(count)
        self._alone["first_step"] += [min(batch.steps)] * count
        self._rows.extend(0, count, b"")
        self._steps.extend(length, count, packed(array("q", batch.steps)) * count)
        self._times.extend(length, count, packed(array("q", batch.times)) * count)
        self._bits.extend(length, count, b"".join(map(packed, columns)))
        self.values += count * (1 + length)

    def _add_parts(self, batch: StepBatch) -> None:
        for metric, index, rows, values in columns_of(batch):
            kept = rows or range(len(values))
            steps = array("q", [batch.steps[row] for row in kept])
            self._alone["metric"].append(metric)
            self._alone["column_index"].append(index)
            self._alone["first_step"].append(min(steps or batch.steps))
            self._rows.extend(len(rows), 1, packed(array("H", rows)))
            self._steps.extend(len(steps), 1, packed(steps))
            self._times.extend(len(steps), 1, packed(array("q", [batch.times[row] for row in kept])))
            self._bits.extend(len(values), 1, packed(values))
            self.values += 1 + len(values)
