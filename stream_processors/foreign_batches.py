"""Batches of records that the Kafka client cannot read: read as far as they go, then stood for, never stuck on.

The protocol lets the name of a header be any bytes. The client decodes it, and a name that is not UTF-8 raises at every
read of its partition, for ever: one foreign record would blind the governor of every run there. A batch is of one
producer, so what cannot be read in it is foreign as a whole. Each of its records becomes one without headers, which the
codec calls `NotOurs`; the first carries the bytes of the whole batch, for the dead letters. `transport` puts this
between the client's fetcher and its parser.
"""

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords

_BATCH_HEADER = struct.Struct(">qi")
"""Base offset, and the length of what follows: the same in every version of the format."""


class StandIn(NamedTuple):
    """In the place of a record that cannot be read, with the fields that the fetcher asks for."""

    offset: int
    timestamp: int
    timestamp_type: int
    value: bytes | None
    key: bytes | None = None
    headers: tuple[()] = ()
    checksum: None = None


class ReadableRecords:
    """The client's `MemoryRecords`, whose batches never fail in the middle."""

    def __init__(self, raw: bytes) -> None:
        self._raw = memoryview(raw)
        self._next = 0
        self._records = MemoryRecords(raw)

    def size_in_bytes(self) -> int:
        return int(self._records.size_in_bytes())

    def has_next(self) -> bool:
        return bool(self._records.has_next())

    def next_batch(self) -> "ReadableBatch | None":
        batch = self._records.next_batch()
        if batch is None:
            return None
        _, length = _BATCH_HEADER.unpack_from(self._raw, self._next)
        begin, self._next = self._next, self._next + _BATCH_HEADER.size + length
        return ReadableBatch(batch, self._raw[begin : self._next])


class ReadableBatch:
    """One batch; whatever else the fetcher asks of it is the client's own."""

    def __init__(self, batch: Any, raw: memoryview) -> None:
        self._batch = batch
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[Any]:
        offset = self._batch.base_offset
        try:
            for record in self._batch:
                yield record
                offset = record.offset + 1
        except (UnicodeDecodeError, CorruptRecordException):
            yield from self._stand_ins(offset)

    def _stand_ins(self, first: int) -> Iterator[StandIn]:
        batch = self._batch
        for offset in range(first, batch.next_offset):
            value = bytes(self._raw) if offset == first else None
            yield StandIn(offset, batch.max_timestamp, batch.timestamp_type, value)


def read_foreign_batches() -> None:
    """From here on, every consumer of this process reads like this."""
    fetcher.MemoryRecords = ReadableRecords
