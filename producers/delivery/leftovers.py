"""What dead processes left in the spool: found, described, sent to the log, or dropped.

Called by `pilothouse spool` (`cli.spool`). A leftover is sent by an outbox of its own (`delivery.outbox`), so that
order, numbers, stand-ins and confirmations are those of a run that lives: readers, who go by writer and number, see
each record once, however often it is sent. Nothing of a process that lives is touched.
"""

import math
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ...events.codec import KIND_HEADER
from ...events.errors import BrokerUnavailable, SpoolInUse, UserMistake
from ...settings import Settings
from ..ranks.context import Identity
from .batching import Outgoing
from .kafka import KafkaSender
from .outbox import Outbox, Pace
from .spool import Spool, read_folder, segment_files
from .spool_lock import SpoolLock, owner_of

WAIT_SECONDS = 0.2
NO_HEARTBEAT = math.inf

_body = msgspec.msgpack.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True)
class Leftover:
    """The records of one writer on disk. `calls`: how many calls of the script they carry; `first_at`, `last_at`:
    microseconds UTC; `steps`: the first and last that can be read; `owner`: the process that lives, "" where it is
    dead, "?" where the file system cannot tell.
    """

    folder: Path
    run_id: str
    writer_id: str
    rank: int | None
    attempt: int | None
    records: int
    calls: int
    bytes: int
    first_at: int | None
    last_at: int | None
    steps: tuple[int, int] | None
    owner: str

    def as_row(self) -> dict[str, Any]:
        """For a table and for programs."""
        return {name: getattr(self, name) for name in self.__slots__} | {"folder": str(self.folder)}

    def is_named(self, word: str) -> bool:
        """Whether a person who wrote this means it: its run, or the beginning of its writer."""
        return bool(word) and (word == self.run_id or self.writer_id.startswith(word))


class Sent(NamedTuple):
    """What became of a leftover, in calls: `lost` were damaged on disk or are refused by the broker."""

    calls: int
    lost: int


def find_leftovers(root: Path) -> list[Leftover]:
    """Every writer with records under `root`, the oldest first."""
    found = [_describe(folder) for folder in sorted(root.glob("*/*")) if segment_files(folder)]
    return sorted((one for one in found if one is not None), key=lambda one: (one.first_at or 0, str(one.folder)))


def push(settings: Settings, leftover: Leftover) -> Sent:
    """Send all of it, in order, and forget it as it is confirmed.

    Raises:
        SpoolInUse: its process lives, or somebody else sends it at this moment.
        UserMistake: nothing in it can be read.
        BrokerUnavailable: Kafka cannot be reached; what it did not confirm is still there.
    """
    identity = _identity_of(leftover)
    spool = _owned(leftover)
    sender = KafkaSender(settings.log_access, identity.run_id)
    outbox = Outbox(identity, leftover.writer_id, sender, spool, Pace(WAIT_SECONDS, NO_HEARTBEAT))
    sender.on_news(outbox.wake.set)
    try:
        while not outbox.empty():
            outbox.pump()
            if sender.failures:
                raise BrokerUnavailable(f"{sender.trouble}; what waits in {leftover.folder} is kept: push it again")
            outbox.wake.wait(WAIT_SECONDS)
    finally:
        sender.close()
        spool.close()
    counts = outbox.counts()
    return Sent(counts.sent, counts.dropped)


def drop(leftover: Leftover) -> None:
    """Delete it unsent.

    Raises:
        SpoolInUse: its process lives, or somebody sends it at this moment.
    """
    lock = _locked(leftover)
    for path in segment_files(leftover.folder):
        path.unlink()
    lock.remove()
    shutil.rmtree(leftover.folder, ignore_errors=True)
    with suppress(OSError):
        leftover.folder.parent.rmdir()  # unless another writer of the run is there


def refuse_living(leftover: Leftover) -> None:
    """
    Raises:
        SpoolInUse: its process lives; which one.
    """
    if leftover.owner == "?":
        raise SpoolInUse(
            f"{leftover.folder} is on a file system without locks, so nobody can tell whether its process lives: "
            "move it to a local disk, and name that with PILOTHOUSE_SPOOL_DIR"
        )
    if leftover.owner:
        raise SpoolInUse(
            f"the process of {leftover.folder} lives ({leftover.owner}), and sends or keeps it by itself: "
            "wait for its end, or end it"
        )


def _owned(leftover: Leftover) -> Spool:
    try:
        return Spool.left_in(leftover.folder)
    except OSError as error:
        raise _in_use(leftover, error) from error


def _locked(leftover: Leftover) -> SpoolLock:
    try:
        return SpoolLock.take(leftover.folder)
    except OSError as error:
        raise _in_use(leftover, error) from error


def _in_use(leftover: Leftover, error: OSError) -> SpoolInUse:
    return SpoolInUse(f"{leftover.folder} is in use, or cannot be: {error}")


def _describe(folder: Path) -> Leftover | None:
    """None where it is gone while it is looked at: its process has sent it."""
    try:
        owner = _owner(folder)
        size = sum(path.stat().st_size for path in segment_files(folder))
        ends = _Ends()
        for record in read_folder(folder):
            ends.see(record)
    except FileNotFoundError:
        return None
    first, last = ends.facts()
    return Leftover(
        folder=folder,
        run_id=str(first.get("run_id", folder.parent.name)),
        writer_id=str(first.get("writer_id", folder.name)),
        rank=first.get("rank"),
        attempt=first.get("attempt"),
        records=ends.records,
        calls=ends.calls,
        bytes=size,
        first_at=first.get("at"),
        last_at=last.get("at"),
        steps=ends.steps,
        owner=owner,
    )


class _Ends:
    """The first and the last of many records, the first and the last with steps in them, and what all carry."""

    def __init__(self) -> None:
        self.records = 0
        self.calls = 0
        self._first: Outgoing | None = None
        self._last: Outgoing | None = None
        self._first_batch: Outgoing | None = None
        self._last_batch: Outgoing | None = None

    def see(self, record: Outgoing) -> None:
        self.records, self.calls = self.records + 1, self.calls + record.entries
        self._first, self._last = self._first or record, record
        if (KIND_HEADER, b"step_batch") in record.headers:
            self._first_batch, self._last_batch = self._first_batch or record, record

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The fields of the first and of the last, empty where there are none."""
        first, last = (_fields(record) for record in (self._first, self._last))
        return first, last

    @property
    def steps(self) -> tuple[int, int] | None:
        first, last = (_fields(record).get("steps") for record in (self._first_batch, self._last_batch))
        return (first[0], last[-1]) if first and last else None


def _owner(folder: Path) -> str:
    try:
        return owner_of(folder) or ""
    except OSError:
        return "?"


def _fields(record: Outgoing | None) -> dict[str, Any]:
    """As they were written, by whatever version; empty where the body is no map."""
    if record is not None:
        with suppress(msgspec.DecodeError):
            return _body(record.body)
    return {}


def _identity_of(leftover: Leftover) -> Identity:
    """Who speaks where a record cannot be read; the run decides the partition.

    Raises:
        UserMistake: no record can be read.
    """
    fields = _fields(next(iter(read_folder(leftover.folder)), None))
    try:
        return Identity(
            str(fields["run_id"]), str(fields["attempt_id"]), int(fields["attempt"]), int(fields["rank"]), 1
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserMistake(
            f"nothing in {leftover.folder} can be read: its telemetry is lost; `pilothouse spool drop "
            f"{leftover.writer_id[:8]} --yes` removes it"
        ) from error
