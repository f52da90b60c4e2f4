"""Records that cannot be used go to the dead-letter topic with the reason and their original bytes; nothing is lost.

Malformed telemetry is reported by the governor alone and malformed control by the archiver, so that each stands there
once; what the archive refuses is reported by the archiver, a bug of the fold by the governor. Called by both shells.

A record of the largest size that telemetry and control are declared to take fits whole, headers and key included. A
longer one comes in two ways: compressed (a broker limits the bytes it stores), or through the embedded broker (which
limits none). It is kept up to what the dead-letter topic takes, and `ph-body-bytes` says how long it was; the whole
stands at its source for as long as that topic keeps it.
"""

from collections.abc import Iterable
from typing import NamedTuple

from ..events.topics import DEADLETTER
from .log import Delivered, Outgoing

REASON_HEADER = "ph-reason"
DETAIL_HEADER = "ph-detail"
SOURCE_TOPIC_HEADER = "ph-source-topic"
SOURCE_PARTITION_HEADER = "ph-source-partition"
SOURCE_OFFSET_HEADER = "ph-source-offset"
BODY_BYTES_HEADER = "ph-body-bytes"
"""Only where the record was cut: the length of its whole body."""

OURS = frozenset(
    (
        *(REASON_HEADER, DETAIL_HEADER, BODY_BYTES_HEADER),
        *(SOURCE_TOPIC_HEADER, SOURCE_PARTITION_HEADER, SOURCE_OFFSET_HEADER),
    )
)
LETTER_BYTES = DEADLETTER.max_record_bytes - 1_000
"""What key, headers and body may take together; the rest is the broker's framing."""

CUT_KEY_BYTES = 4 * 1024
CUT_HEADER_BYTES = 64 * 1024
"""What is kept of the key and the headers of a record that does not fit: the room is for its body."""

Header = tuple[str, bytes]


class _Carried(NamedTuple):
    """What of a record a letter carries."""

    key: bytes | None
    headers: list[Header]
    body: bytes | None

    @property
    def size(self) -> int:
        return len(self.key or b"") + sum(map(_wire_size, self.headers)) + len(self.body or b"")


def dead_letter(record: Delivered, reason: str, detail: str, partitions: int) -> Outgoing:
    """The record as a dead letter: body and key as they were, its headers after ours, which it cannot forge."""
    ours = [
        (REASON_HEADER, reason.encode()),
        (DETAIL_HEADER, detail[:1_000].encode(errors="replace")),
        (SOURCE_TOPIC_HEADER, record.topic.encode()),
        (SOURCE_PARTITION_HEADER, b"%d" % record.partition),
        (SOURCE_OFFSET_HEADER, b"%d" % record.offset),
    ]
    carried = _Carried(record.key, [header for header in record.headers if header[0] not in OURS], record.body)
    if carried.size > (room := LETTER_BYTES - sum(map(_wire_size, ours))):
        ours.append((BODY_BYTES_HEADER, b"%d" % len(record.body or b"")))
        carried = _cut(carried, room - _wire_size(ours[-1]))
    # The source's own partition: one run's letters stay together, whether or not the run can be read from them.
    partition = record.partition % partitions
    return Outgoing(DEADLETTER.name, partition, carried.key, [*ours, *carried.headers], carried.body)


def _cut(whole: _Carried, room: int) -> _Carried:
    key = whole.key[:CUT_KEY_BYTES] if whole.key is not None else None
    without_body = _Carried(key, list(_first(whole.headers, CUT_HEADER_BYTES)), None)
    body = whole.body[: room - without_body.size] if whole.body is not None else None
    return without_body._replace(body=body)


def _first(headers: Iterable[Header], room: int) -> Iterable[Header]:
    """Those that fit, in their order; a long one does not keep the others out."""
    for header in headers:
        if (size := _wire_size(header)) <= room:
            room -= size
            yield header


def _wire_size(header: Header) -> int:
    """A header's bytes in Kafka's record format (KIP-82): name and value, each after its length."""
    name, value = len(header[0].encode(errors="replace")), len(header[1] or b"")
    return _varint_size(name) + name + _varint_size(value) + value


def _varint_size(number: int) -> int:
    """The bytes of a length as a zigzag varint, seven bits in each."""
    return max(1, ((number << 1).bit_length() + 6) // 7)
