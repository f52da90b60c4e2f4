"""Puts an imported run into the archive, in order, so that it can be cut off anywhere and goes on when it comes again.

Records go in batches whose edges depend on nothing but the records. The next batch begins when the last is in the
archive: so the greatest offset there says which batches need not go again. `import_log` says what was begun with which
log, and what was finished. Called by `cli.importing`.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...events.commands import Tick
from ...events.errors import FileRefused
from ...events.telemetry import StepBatch
from ...events.topics import TELEMETRY
from ..archive import Archive
from ..connect import refusals
from ..named import ask
from ..rows import Archived
from .telling import PARTITION

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

BATCH_ROWS = 10_000
"""Rows of the archive in one insert."""
TICK_COLUMNS = {
    "run_id": "String",
    "log_offset": "UInt64",
    "partition": "UInt32",
    "writer_id": "LowCardinality(String)",
    "seq": "UInt64",
    "at": "DateTime64(6, 'UTC')",
}
LOG_COLUMNS = {
    **dict.fromkeys(("run_id", "format", "digest", "recipe", "path"), "String"),
    "began_at": "DateTime64(6, 'UTC')",
    "finished": "UInt8",
}


class Begun(NamedTuple):
    """An import as the archive remembers it. `recipe` is what its records depend on besides the log; times are
    microseconds.
    """

    run_id: str
    format: str
    digest: str
    recipe: str
    path: str
    began_at: int
    finished: bool = False


class Keeper:
    """The imports of one archive; one import at a time."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._archive = Archive(client)

    def known(self, run_id: str) -> Begun | None:
        """What is remembered of an import of this run."""
        rows = ask(self._client, "import_of", run=run_id)
        return Begun(run_id, **rows[0]) if rows else None

    def is_taken(self, run_id: str) -> bool:
        """Whether the archive knows anything of a run of this name."""
        [answer] = ask(self._client, "is_known", run=run_id)
        return bool(answer["known"])

    def content_of(self, run_id: str) -> str:
        """The digest of a run's history as an export would tell it."""
        from ..portable_writing import content_of

        return content_of(self._client, run_id)

    def note(self, begun: Begun) -> None:
        """Remember that it was begun, or, as `finished`, that all of it is there."""
        with refusals():
            self._client.insert(
                "import_log",
                [list(begun)],
                column_names=list(LOG_COLUMNS),
                column_type_names=list(LOG_COLUMNS.values()),
            )

    def keep(self, run_id: str, records: Iterable[Archived]) -> None:
        """Write what is not there yet.

        Raises:
            FileRefused: the archive cannot hold a record.
            ArchiveUnavailable: it is not known what was written; keep the same records again.
        """
        reached = self.reached(run_id)
        for batch in batches(records):
            if _last_offset(batch) >= reached:
                self._write(run_id, batch)

    def reached(self, run_id: str) -> int:
        """The greatest offset that is in the archive; 0 for none, too."""
        asked = {"run": run_id, "partition": PARTITION, "topic": TELEMETRY.name}
        [row] = ask(self._client, "import_reached", **asked)
        # ClickHouse's max of nothing is 0: the first batch goes again then, which does no harm.
        return int(row["reached"])

    def _write(self, run_id: str, batch: Sequence[Archived]) -> None:
        poisons = self._archive.insert([record for record in batch if not isinstance(record.event, Tick)])
        if poisons:
            kind, reason = poisons[0].record.event.kind, poisons[0].reason
            raise FileRefused(f"run {run_id}: the archive cannot hold one of its records ({kind}): {reason}")
        ticks = [
            [run_id, record.place.offset, record.event.partition, record.event.writer_id, record.event.seq,
             record.event.at]
            for record in batch
            if isinstance(record.event, Tick)
        ]  # fmt: skip
        if ticks:
            with refusals():
                self._client.insert(
                    "imported_tick_log",
                    ticks,
                    column_names=list(TICK_COLUMNS),
                    column_type_names=list(TICK_COLUMNS.values()),
                )


def batches(records: Iterable[Archived]) -> Iterator[list[Archived]]:
    """The records in batches of some `BATCH_ROWS` rows, each beginning with a record of the log."""
    batch: list[Archived] = []
    rows = 0
    for record in records:
        if rows >= BATCH_ROWS and record.topic == TELEMETRY.name:
            yield batch
            batch, rows = [], 0
        batch.append(record)
        rows += rows_in(record)
    if batch:
        yield batch


def rows_in(record: Archived) -> int:
    """How many rows of the archive it makes, about."""
    event = record.event
    return len(event.steps) * len(event.metrics) if isinstance(event, StepBatch) else 1


def _last_offset(batch: Sequence[Archived]) -> int:
    return max(record.place.offset for record in batch if record.topic == TELEMETRY.name)
