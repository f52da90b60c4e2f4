"""What the governor keeps in its table, as bytes: run states, one mark per partition, and a note of trouble.

A partition's mark is written after its states and before anything is acknowledged. So a restored table whose mark is
behind the committed offset is known to be stale (the embedded broker's recovery can be), without guessing. `governor`
writes and reads them; `live_runs` holds what they say.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

import msgspec

from ..events.signing import GENESIS

T = TypeVar("T")

RUN_PREFIX, MARK_PREFIX = b"run/", b"mark/"


class KeptRun(msgspec.Struct, array_like=True, frozen=True):
    """The state of a run; `epoch` is the epoch of the log it was folded from. Everything before `next_offset` is in it
    or was none of its business: a Tick from before the run began, say, which nothing in the state tells from a new one.
    """

    epoch: int
    partition: int
    state: bytes
    next_offset: int = 0
    link: bytes = GENESIS
    """Of the last decision that it led to (`events.signing.link_of`)."""


class Mark(msgspec.Struct, array_like=True, frozen=True):
    """Every record of the partition before `next_offset` is in the states written before this mark."""

    epoch: int
    next_offset: int


class Trouble(msgspec.Struct, frozen=True):
    """Why a worker ended itself to be started again, and how often. Met again at the same record, it is a loss."""

    where: str
    epoch: int
    offset: int
    what: str
    times: int


class Restored(NamedTuple):
    """One partition's part of the table."""

    runs: dict[str, KeptRun]
    mark: Mark | None
    trouble: Trouble | None


encode = msgspec.msgpack.Encoder().encode
_run = msgspec.msgpack.Decoder(KeptRun)
_mark = msgspec.msgpack.Decoder(Mark)
_trouble = msgspec.msgpack.Decoder(Trouble)


def run_key(run_id: str) -> bytes:
    return RUN_PREFIX + run_id.encode()


def mark_key(partition: int) -> bytes:
    return MARK_PREFIX + b"%d" % partition


def trouble_key(partition: int) -> bytes:
    return b"trouble/%d" % partition


def is_overtaken(key: bytes, value: bytes | None, known: bytes | None) -> bool:
    """Whether this entry tells of less of the log than the one that is known: a worker wrote it that had stood still,
    and whose partitions were another's by then. What cannot be read is not judged here.
    """
    if not value or not known or not key.startswith((RUN_PREFIX, MARK_PREFIX)):
        return False
    decoder: msgspec.msgpack.Decoder[KeptRun] | msgspec.msgpack.Decoder[Mark]
    decoder = _run if key.startswith(RUN_PREFIX) else _mark
    try:
        late, now = decoder.decode(value), decoder.decode(known)
    except msgspec.DecodeError:
        return False
    return (late.epoch, late.next_offset) < (now.epoch, now.next_offset)


def restore(table: Mapping[bytes, bytes | None], partitions: Iterable[int]) -> dict[int, Restored]:
    """What the table says of each of these partitions.

    Raises:
        msgspec.DecodeError: the table was written by something else.
    """
    restored = {
        number: Restored(
            {}, _decoded(_mark, table.get(mark_key(number))), _decoded(_trouble, table.get(trouble_key(number)))
        )
        for number in partitions
    }
    for key, value in table.items():
        if key.startswith(RUN_PREFIX) and value is not None:
            run = _run.decode(value)
            if run.partition in restored:
                restored[run.partition].runs[key.removeprefix(RUN_PREFIX).decode()] = run
    return restored


def _decoded(decoder: msgspec.msgpack.Decoder[T], value: bytes | None) -> T | None:
    return decoder.decode(value) if value is not None else None
