"""Where a worker brings what it cannot use: one letter for each record, and an end where nothing else comes any more.

One unreadable record in a busy log is a stranger's mistake. When of the last `limit` records none could be read, the
mistake is ours (an old worker behind new trainers, another service's topic), and to go on would drain the topic into
the dead letters. The worker ends instead, with nothing of its last batch acknowledged, and the note that it leaves
keeps the next one from draining as much again. Ticks count neither way: the governor writes them itself. Owned by
`governor` and `archiver`.
"""

import json
import logging
import os
from pathlib import Path

from ..events.errors import EverythingMalformed
from .deadletter import dead_letter
from .log import Delivered, Outgoing

log = logging.getLogger(__name__)


class DeadLetterOffice:
    """Of one worker. `partitions` of the dead-letter topic; `limit` records in a row, 0 for no limit."""

    def __init__(self, partitions: int, limit: int, note: Path) -> None:
        self._partitions = partitions
        self._limit = limit
        self._note = note
        self._in_a_row = self._noted()

    def readable(self) -> None:
        """Something could be read: whatever was unreadable before it was the exception."""
        if self._in_a_row:
            self._in_a_row = 0
            self._note.unlink(missing_ok=True)

    def unreadable(self, record: Delivered, reason: str, detail: str) -> None:
        """Count a record that is no event of ours.

        Raises:
            EverythingMalformed: it is one too many; the note is written.
        """
        self._in_a_row += 1
        if not self._limit or self._in_a_row < self._limit:
            return
        self._in_a_row = self._limit
        self._write()
        raise EverythingMalformed(
            f"none of the last {self._limit} records could be read; the last is {record.topic}/{record.partition}"
            f"@{record.offset} ({reason}: {detail}). Nothing more is moved to the dead letters until one can be: "
            "upgrade this worker, or stop who sends them (`pilothouse deadletter list` shows what they are); "
            "PILOTHOUSE_DEAD_LETTER_LIMIT=0 lets all of them through"
        )

    def letter(self, record: Delivered, reason: str, detail: str) -> Outgoing:
        """The record as a dead letter, to be sent before it is acknowledged."""
        log.error("%s/%d@%d to dead letters: %s: %s", record.topic, record.partition, record.offset, reason, detail)
        return dead_letter(record, reason, detail, self._partitions)

    def _noted(self) -> int:
        try:
            noted = json.loads(self._note.read_text())["in_a_row"]
        except (OSError, ValueError, LookupError, TypeError):
            return 0  # none, or torn: it counts anew
        return noted if isinstance(noted, int) else 0

    def _write(self) -> None:
        self._note.parent.mkdir(parents=True, exist_ok=True)
        draft = self._note.with_suffix(".new")
        with draft.open("w") as file:
            json.dump({"in_a_row": self._in_a_row}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._note)
