"""Puts records of the log into the archive, as often as it takes: the same event any number of times is one for
readers.

The archiver calls `Archive.insert` with a batch, before it acknowledges anything. What it cannot know is whether the
last insert arrived; it inserts again, with other batch edges, and nothing is counted twice (`migrations/0001_log.sql`
says why).
"""

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..events.errors import ArchiveUnavailable, QueryRefused, StackNotRunning
from . import step_block
from .connect import error_code, in_our_words
from .rows import Archived, Rows, rows_of
from .stretches import Stretches

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from clickhouse_connect.driver.exceptions import Error

__all__ = ["Archive", "Archived", "Poison"]

REFUSED_DATA = frozenset({6, 26, 27, 33, 38, 41, 53, 69, 70, 72, 117, 131, 321, 349, 467, 636})
"""ClickHouse's codes that blame the rows: unparsable, out of range, of the wrong type, too large, NULL where none may
be. Every other code blames the archive, its schema or its load, and is worth another try: better to wait than to
lose."""

UNWRITABLE = (struct.error, TypeError, ValueError, OverflowError, AttributeError)
"""What building a native block raises on a value that its column cannot hold."""


class Poison(NamedTuple):
    """A record that the archive cannot take, whatever stands beside it, and why."""

    record: Archived
    reason: str


class Archive:
    """The archive of one ClickHouse; not for several threads at once."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._stretches = Stretches(client)

    def insert(self, records: Sequence[Archived]) -> tuple[Poison, ...]:
        """Writes all of them but those it returns, which are for the dead-letter topic.

        Raises:
            ArchiveUnavailable: it is not known what was written; insert the same records again.
        """
        poisons = self._insert(records)
        poisoned = {id(poison.record.event) for poison in poisons}
        try:
            self._stretches.take(record.event for record in records if id(record.event) not in poisoned)
        except (QueryRefused, StackNotRunning) as error:
            raise ArchiveUnavailable(f"the archive sums up no steps now: {error}") from error
        return poisons

    def _insert(self, records: Sequence[Archived]) -> tuple[Poison, ...]:
        fault = self._try(records)
        if fault is None:
            return ()
        if len(records) == 1:
            return (Poison(records[0], fault),)
        middle = len(records) // 2
        return self._insert(records[:middle]) + self._insert(records[middle:])

    def _try(self, records: Sequence[Archived]) -> str | None:
        """None when all is written, else what is wrong with these records."""
        from clickhouse_connect.driver.exceptions import DataError, Error

        try:
            self._write(rows_of(records))
        except DataError as error:
            return str(error)
        except Error as error:
            if error_code(error) not in REFUSED_DATA:
                raise _unavailable(error) from error
            return str(in_our_words(error, "the archive"))
        except UNWRITABLE as error:
            return f"{type(error).__name__}: {error}"
        return None

    def _write(self, rows: Rows) -> None:
        for table, lines in rows.by_table():
            self._client.insert(
                table.name, lines, column_names=list(table.columns), column_type_names=list(table.columns.values())
            )
        for block in rows.steps:
            self._client.raw_insert(step_block.NAME, list(step_block.COLUMNS), block.native(), fmt="Native")


def _unavailable(error: "Error") -> ArchiveUnavailable:
    return ArchiveUnavailable(f"the archive takes no writes now: {in_our_words(error, 'its address')}")
