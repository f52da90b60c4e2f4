"""The spool as a whole, bounded: what all processes together keep below one root, the dead ones included.

`Budget.allows` is asked by a `delivery.spool` as it grows. What nobody sent goes first: the oldest leftover of a dead
process gives way to a *stand-in*, one `TelemetryGap` under its last number that says how many calls went, so that
`pilothouse spool push` still tells the log. A process that lives is never touched: where the dead have nothing more,
the spool takes nothing more.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ...events.telemetry import TelemetryGap
from ..ranks.context import Identity
from ..voice import logger
from .batching import Draft, Outgoing, Told, encoded
from .spool import SUFFIX, frame_of, heads_in, read_folder, segment_files
from .spool_lock import LOCK_FILE, SpoolLock

LOOK_BYTES = 4 * 1024 * 1024
"""So much more is written between two looks at the root."""

LOOK_SECONDS = 10.0
"""How long a root that is full is not looked at again."""

BLOCK_BYTES = 4_096
"""What a file takes at least."""

_body = msgspec.msgpack.Decoder(dict[str, Any]).decode


class Budget:
    """How much may lie below `root`, in bytes. `clock` counts seconds."""

    def __init__(self, root: Path, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._limit = limit
        self._clock = clock
        self._unseen = LOOK_BYTES
        self._look_at = 0.0
        self._fits = True

    def allows(self, size: int) -> bool:
        """Whether so many more bytes may be written; where they may not, the dead have made what room they can."""
        self._unseen += size
        if (self._unseen > LOOK_BYTES) if self._fits else (self._clock() >= self._look_at):
            self._unseen = size
            self._look_at = self._clock() + LOOK_SECONDS
            self._fits = make_room(self._root, self._limit - size)
        return self._fits


class _Writer(NamedTuple):
    """One writer's folder: what it takes on disk, and when it was last written to."""

    size: int
    last_at: float
    folder: Path


def make_room(root: Path, limit: int) -> bool:
    """Let what dead processes left give way, oldest first, until all below `root` takes `limit` bytes at most."""
    writers = sorted(_writers(root), key=lambda writer: writer.last_at)
    total = sum(writer.size for writer in writers)
    for give_way in (_to_stand_in, _to_nothing):
        for index, writer in enumerate(writers):
            if total <= limit:
                return True
            left = _if_dead(writer.folder, give_way)
            total -= writer.size - left if left is not None else 0
            writers[index] = writer._replace(size=left if left is not None else writer.size)
    return total <= limit


def _writers(root: Path) -> Iterator[_Writer]:
    for folder in root.glob("*/*"):
        with suppress(OSError):  # its process has sent it meanwhile
            seen = [path.stat() for path in segment_files(folder)]
            if seen:
                size = sum(-(-one.st_size // BLOCK_BYTES) * BLOCK_BYTES for one in seen)
                yield _Writer(size, max(one.st_mtime for one in seen), folder)


def _if_dead(folder: Path, give_way: Callable[[Path], int]) -> int | None:
    """Do it to the folder of a dead process; how many bytes are left there. None: nothing was done."""
    try:
        lock = SpoolLock.take(folder)
    except OSError:  # it lives, or is being sent, or nobody can tell
        return None
    try:
        left = give_way(folder)
    except OSError as error:
        logger.warning("%s cannot give way to newer telemetry: %s", folder, error)
        return None
    finally:
        lock.release()
    return left


def _to_stand_in(folder: Path) -> int:
    files = segment_files(folder)
    heads = [head for path in files for head in heads_in(path)]
    stand_in = _stand_in_for(folder, heads)
    if stand_in is None:
        return _to_nothing(folder)
    if len(files) == 1 and files[0].stat().st_size <= BLOCK_BYTES:
        return BLOCK_BYTES  # a stand-in, or no more than one
    last = folder / f"{stand_in.seq:020d}{SUFFIX}"
    new = folder / "stand-in"
    new.write_bytes(frame_of(stand_in))
    new.replace(last)
    for path in files:
        if path != last:
            path.unlink()
    logger.warning(
        "the spool is full: %d calls of telemetry in %s, which nobody has pushed, give way to newer ones",
        sum(entries for _, entries in heads),
        folder,
    )
    return BLOCK_BYTES


def _to_nothing(folder: Path) -> int:
    for path in (*segment_files(folder), folder / LOCK_FILE):
        path.unlink(missing_ok=True)
    with suppress(OSError):
        os.rmdir(folder)
        os.rmdir(folder.parent)
    return 0


def _stand_in_for(folder: Path, heads: Sequence[tuple[int, int]]) -> Outgoing | None:
    """What takes the place of all these records; None where nobody can tell whose they are."""
    first = next(iter(read_folder(folder)), None)
    if first is None:
        return None
    try:
        fields = _body(first.body)
        who = Identity(str(fields["run_id"]), str(fields["attempt_id"]), int(fields["attempt"]), int(fields["rank"]), 1)
        at, writer_id = int(fields["at"]), str(fields["writer_id"])
    except (msgspec.DecodeError, LookupError, TypeError, ValueError):
        return None
    last, entries = heads[-1][0], sum(entries for _, entries in heads)
    gap = {"dropped": {"spool_evicted": entries}, "missing": ((first.seq, last - 1),) if last > first.seq else ()}
    return encoded(Draft(told=Told(who, at, TelemetryGap, gap)), writer_id, last)[0]._replace(entries=0)
