"""Records that cannot be used go to the dead-letter topic with the reason and their original bytes; nothing is lost.

Malformed telemetry is reported by the governor alone and malformed control by the archiver, so that each stands there
once; what the archive refuses is reported by the archiver, a bug of the fold by the governor. Called by both shells.
"""

from ..events.topics import DEADLETTER, MAX_RECORD_BYTES
from .log import Delivered, Outgoing

REASON_HEADER = "ph-reason"
DETAIL_HEADER = "ph-detail"
SOURCE_TOPIC_HEADER = "ph-source-topic"
SOURCE_PARTITION_HEADER = "ph-source-partition"
SOURCE_OFFSET_HEADER = "ph-source-offset"
HEADER_BYTES = 64 * 1024
"""Foreign headers beyond this are left out: what is kept must fit any broker's limit."""


def dead_letter(record: Delivered, reason: str, detail: str, partitions: int) -> Outgoing:
    """The record as a dead letter: body and key as they were, its headers after ours, which it cannot forge."""
    ours = [
        (REASON_HEADER, reason.encode()),
        (DETAIL_HEADER, detail[:1_000].encode(errors="replace")),
        (SOURCE_TOPIC_HEADER, record.topic.encode()),
        (SOURCE_PARTITION_HEADER, b"%d" % record.partition),
        (SOURCE_OFFSET_HEADER, b"%d" % record.offset),
    ]
    taken = {name for name, _ in ours}
    theirs: list[tuple[str, bytes]] = []
    size = 0
    for name, value in record.headers:
        size += len(name.encode(errors="replace")) + len(value or b"")
        if name not in taken and size <= HEADER_BYTES:
            theirs.append((name, value))
    body = record.body[:MAX_RECORD_BYTES] if record.body is not None else None
    # The source's own partition: one run's letters stay together, whether or not the run can be read from them.
    return Outgoing(DEADLETTER.name, record.partition % partitions, record.key, [*ours, *theirs], body)
