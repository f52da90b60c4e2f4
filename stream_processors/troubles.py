"""Why a governor ended itself, remembered across the restart: the note in the table, and a copy in the data directory.

The copy is for the case that the table itself comes back stale. `governor` asks before it raises `RestartRequired`:
trouble that is met again at the same record after a restart is a real loss, and going on is right.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from .kept import Trouble

PATIENCE = 3
"""Restarts for one partition without any progress, after which whatever is missing counts as lost."""

_notes = msgspec.json.Decoder(list[Trouble])


class Troubles:
    """The notes that are in force, at most one a partition (`where`: topic/partition)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._by_place = {note.where: note for note in self._read()}

    def learn(self, notes: Iterable[Trouble]) -> None:
        """Add what the table remembers; where both know, the one of more restarts."""
        for note in notes:
            known = self._by_place.get(note.where)
            if known is None or known.times < note.times:
                self._by_place[note.where] = note

    def is_known(self, where: str, epoch: int, offset: int) -> bool:
        """Whether a restart for this was tried already."""
        note = self._by_place.get(where)
        if note is None or note.epoch != epoch:
            return False
        return note.offset == offset or note.times >= PATIENCE

    def note(self, where: str, epoch: int, offset: int, what: str) -> Trouble:
        """Remember this before the process ends."""
        known = self._by_place.get(where)
        times = known.times + 1 if known is not None and known.epoch == epoch else 1
        note = self._by_place[where] = Trouble(where, epoch, offset, what, times)
        self._write()
        return note

    def forget(self, where: str, next_offset: int) -> bool:
        """It got past its trouble; whether there was a note to forget."""
        note = self._by_place.get(where)
        if note is None or next_offset <= note.offset:
            return False
        del self._by_place[where]
        self._write()
        return True

    def _read(self) -> list[Trouble]:
        try:
            return _notes.decode(self._path.read_bytes())
        except (OSError, msgspec.DecodeError):
            return []  # none yet, or torn by a power cut: the table has them too

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".new")
        with draft.open("wb") as file:
            file.write(msgspec.json.encode(list(self._by_place.values())))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
