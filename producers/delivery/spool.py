"""The spool: where records wait on disk, in order, while the broker is away.

Owned by one writer of one run (`delivery.backlog`, on the outbox's thread): `<spool>/<run>/<writer>/<first
seq>.spool`, files that are only ever appended to. A frame is length, CRC-32C, sequence number, weight and the record; a
torn or damaged frame ends its file for the reader, who is told which numbers are lost with it. Where a key was given
records are encrypted (`delivery.spool_sealing`). Bounded in bytes on
disk, by itself and, where `allows` is asked, together with all others (`delivery.spool_budget`): when full it takes
nothing more, so that what it holds has no holes, and it is *new* rows that are dropped, before they get a number
(`queue_full`).

While its process lives the folder is locked (`delivery.spool_lock`); what a dead one left is opened again by
`Spool.left_in`, for `delivery.leftovers`.

Frames are handed to the kernel at once but not synced: they survive the process, which is what dies here, not the
machine.
"""

import os
import re
import struct
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import IO, NamedTuple
from zlib import crc32

import msgspec
from crc32c import crc32c

from ...events.topics import MAX_RECORD_BYTES
from .batching import Outgoing
from .spool_lock import SpoolLock
from .spool_sealing import plain_of, stored

SEGMENT_BYTES = 4 * 1024 * 1024
SUFFIX = ".spool"
HEAD = struct.Struct("<IIQI")
"""Length of the payload, CRC-32C of seq, entries and payload, seq, entries."""

_COVERED_FROM = 8
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[list[tuple[str, bytes]], bytes]).decode


class Lost(NamedTuple):
    """Records that were spooled and cannot be read: first and last number, and how many calls they carried."""

    seq: int
    last: int
    entries: int


@dataclass(slots=True)
class _Segment:
    path: Path
    first: int
    last: int = 0
    size: int = 0
    entries: int = 0
    released: int = 0


class _Ahead(NamedTuple):
    """A frame that was read and not yet released."""

    segment: _Segment
    seq: int
    length: int
    entries: int


def spool_folder(root: Path, run_id: str, writer_id: str) -> Path:
    """Where this writer's records wait. A run id may be no file name: its letters are kept, a checksum tells equals
    apart.
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", run_id)[:100].lstrip(".") or "run"
    return root / (plain if plain == run_id else f"{plain}-{crc32(run_id.encode()):08x}") / writer_id


def read_folder(folder: Path) -> Iterator[Outgoing]:
    """What an earlier process left in `folder`, in order, each file up to its first damaged frame."""
    for path in segment_files(folder):
        with path.open("rb") as file:
            while (record := _read_frame(file)) is not None:
                yield record


def heads_in(path: Path) -> Iterator[tuple[int, int]]:
    """The number of each record in a file, and how many calls it carries, without a look at what it says."""
    with path.open("rb") as file:
        while len(head := file.read(HEAD.size)) == HEAD.size:
            length, _, seq, entries = HEAD.unpack(head)
            if length > 2 * MAX_RECORD_BYTES:
                return
            yield seq, entries
            file.seek(length, os.SEEK_CUR)


def segment_files(folder: Path) -> list[Path]:
    """The files of a writer, in order."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if path.stem.isdecimal())


class Spool:
    """Records on disk, first in first out: `append` behind, `read` ahead, `release` from the front. One thread's."""

    def __init__(self, folder: Path, limit: int, allows: Callable[[int], bool] = lambda _: True) -> None:
        self.folder = folder
        self.bytes = 0
        self.entries = 0
        self._limit = limit
        self._allows = allows
        self._segments: deque[_Segment] = deque()
        self._writer: IO[bytes] | None = None
        self._reader: IO[bytes] | None = None
        self._ahead: deque[_Ahead] = deque()
        self._at = _Cursor()
        self._lock: SpoolLock | None = None

    @classmethod
    def left_in(cls, folder: Path) -> "Spool":
        """What a dead process left in `folder`, owned by this one from now on: to be read and released.

        A torn tail is a loss of one record at least, a hole between two files one of all numbers in it.

        Raises:
            BlockingIOError: its process lives, or another one sends it.
            OSError: it cannot be locked or read.
        """
        spool = cls(folder, 0)
        spool._lock = SpoolLock.take(folder)
        try:
            spool._segments.extend(_segments_in(folder))
        except BaseException:
            spool.close()
            raise
        spool.bytes = sum(segment.size for segment in spool._segments)
        spool.entries = sum(segment.entries for segment in spool._segments)
        return spool

    def __bool__(self) -> bool:
        """Whether anything is in it that was not released."""
        return bool(self._segments)

    def append(self, record: Outgoing) -> bool:
        """Keep the record; False where it would not fit or the disk takes no more, and then nothing changed."""
        frame = frame_of(record)
        if self.bytes + len(frame) > self._limit or not self._allows(len(frame)):
            return False
        try:
            segment = self._writable(record.seq)
            assert self._writer is not None
            _write_whole(self._writer, frame)
        except OSError:
            self._close_writer()  # what was half written lies behind the segment's size, where nobody reads
            return False
        segment.last, segment.size, segment.entries = (
            record.seq,
            segment.size + len(frame),
            segment.entries + record.entries,
        )
        self.bytes, self.entries = self.bytes + len(frame), self.entries + record.entries
        return True

    def read(self) -> Outgoing | Lost | None:
        """The next record behind those already read, or what was lost there; None at the end."""
        while self._at.index < len(self._segments):
            segment = self._segments[self._at.index]
            if self._at.offset < segment.size:
                found = self._frame_here(segment)
                length = (
                    HEAD.size + len(_payload(found)) if isinstance(found, Outgoing) else segment.size - self._at.offset
                )
                self._ahead.append(_Ahead(segment, found.seq, length, found.entries))
                self._at.offset += length
                self._at.seq = (found.seq if isinstance(found, Outgoing) else found.last) + 1
                return found
            if self._at.index == len(self._segments) - 1:
                return None
            self._at = _Cursor(self._at.index + 1)
            self._close_reader()
        return None

    def release(self) -> None:
        """The first record that was read is safe elsewhere: forget it, and its file with the last one in it."""
        first = self._ahead.popleft()
        first.segment.released += first.length
        first.segment.entries -= first.entries
        self.entries -= first.entries
        if first.segment.released == first.segment.size:
            self._forget(first.segment)

    def rewind(self) -> None:
        """Read again from the first record that was not released."""
        if self._ahead:
            first = self._ahead[0]
            self._at = _Cursor(self._segments.index(first.segment), first.segment.released, first.seq)
            self._ahead.clear()
            self._close_reader()

    def close(self) -> None:
        """Let go of the files and the folder; what is in them stays."""
        self._close_writer()
        self._close_reader()
        self.forget()

    def forget(self) -> None:
        """In a forked child: the folder is the parent's, also after its death, whatever its children do then."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _writable(self, seq: int) -> _Segment:
        if self._writer is None or self._segments[-1].size >= SEGMENT_BYTES:
            self._close_writer()
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._own()
            path = self.folder / f"{seq:020d}{SUFFIX}"
            self._writer = path.open("wb", buffering=0)
            self._segments.append(_Segment(path, seq))
        return self._segments[-1]

    def _own(self) -> None:
        if self._lock is None:
            try:
                self._lock = SpoolLock.take(self.folder)
            except BlockingIOError:
                raise  # somebody looks whether we live; it takes him a moment
            except OSError:
                return  # a file system without locks: telemetry is kept all the same

    def _frame_here(self, segment: _Segment) -> Outgoing | Lost:
        expected = self._at.seq or segment.first
        with suppress(OSError):
            if self._reader is None:
                self._reader = segment.path.open("rb")
            self._reader.seek(self._at.offset)
            found = _read_frame(self._reader)
            if found is not None and found.seq == expected:
                return found
        read = sum(ahead.entries for ahead in self._ahead if ahead.segment is segment)
        return Lost(expected, segment.last, segment.entries - read)

    def _forget(self, segment: _Segment) -> None:
        self._segments.popleft()
        self.bytes -= segment.size
        self._at = _Cursor(max(0, self._at.index - 1), self._at.offset, self._at.seq) if self._at.index else _Cursor()
        self._close_reader()
        if not self._segments:
            self._close_writer()
        self._delete(segment)

    def _delete(self, segment: _Segment) -> None:
        """Its file, and with the last one the folder: what is there has something in it."""
        if not self._segments and self._lock is not None:
            self._lock.remove()
            self._lock = None
        with suppress(OSError):
            segment.path.unlink()
            if not self._segments:
                self.folder.rmdir()
                self.folder.parent.rmdir()

    def _close_writer(self) -> None:
        if self._writer is not None:
            with suppress(OSError):
                os.ftruncate(self._writer.fileno(), self._segments[-1].size if self._segments else 0)
            with suppress(OSError):
                self._writer.close()
            self._writer = None
            if self._segments and self._segments[-1].size == 0:
                self._delete(self._segments.pop())

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


@dataclass(slots=True)
class _Cursor:
    """Where reading goes on: which segment, which byte, which number is expected there (0: the segment's first)."""

    index: int = 0
    offset: int = 0
    seq: int = 0


def _write_whole(file: IO[bytes], frame: bytes) -> None:
    """All of it or an error: a disk that becomes full takes the beginning of a frame, and calls that a success."""
    view = memoryview(frame)
    while view:
        view = view[file.write(view) :]


def _segments_in(folder: Path) -> Iterator[_Segment]:
    """The files in `folder`, each with what can be read of it and, as a last frame, what cannot."""
    paths = segment_files(folder)
    for path, behind in zip_longest(paths, paths[1:]):
        segment = _Segment(path, _first_of(path), last=_first_of(path) - 1)
        with path.open("rb") as file:
            while (record := _read_frame(file)) is not None:
                segment.last, segment.size = record.seq, file.tell()
                segment.entries += record.entries
            torn = file.seek(0, os.SEEK_END) - segment.size
        last = segment.last + bool(torn) if behind is None else _first_of(behind) - 1
        if last > segment.last:
            segment.entries += last - segment.last  # how many calls they carried is not known: one each at least
            segment.last, segment.size = last, segment.size + max(torn, 1)
        if segment.size:
            yield segment
        else:
            path.unlink()  # its process died before the first frame


def _first_of(path: Path) -> int:
    return int(path.stem)


def _payload(record: Outgoing) -> bytes:
    return stored(_pack((record.headers, record.body)), record.seq)


def frame_of(record: Outgoing) -> bytes:
    """The record as it stands in a file."""
    covered = struct.pack("<QI", record.seq, record.entries) + _payload(record)
    return struct.pack("<II", len(covered) - (HEAD.size - _COVERED_FROM), crc32c(covered)) + covered


def _read_frame(file: IO[bytes]) -> Outgoing | None:
    head = file.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    length, checksum, seq, entries = HEAD.unpack(head)
    if length > 2 * MAX_RECORD_BYTES:
        return None
    payload = file.read(length)
    if len(payload) < length or crc32c(head[_COVERED_FROM:] + payload) != checksum:
        return None
    headers, body = _unpack(plain_of(payload, seq))
    return Outgoing(seq, entries, body, headers)
