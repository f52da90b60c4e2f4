"""The topics: who writes and reads them, how a run finds its partition, how long and how large records live.

Declared once, here; created by `pilothouse topics create` and the supervisor, named by everything else. Nobody else may
compute a partition: `partition_of` is the only way from a run to its partition.
"""

from dataclasses import dataclass
from typing import assert_never
from zlib import crc32

from .commands import Tick
from .envelope import Decision, Fact
from .union import AnyEvent

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
MAX_RECORD_BYTES = 1_000_000
"""Largest record of an event, key, headers and framing included; the codec's users split or truncate before it."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of the log. `partitions` is the default for a new cluster; the broker's answer is what counts."""

    name: str
    partition_by: str
    partitions: int
    retention_ms: int
    max_record_bytes: int
    written_by: tuple[str, ...]
    read_by: tuple[str, ...]


TELEMETRY = Topic(
    name="pilothouse.telemetry",
    partition_by="run",
    partitions=4,
    retention_ms=7 * DAY_MS,
    max_record_bytes=MAX_RECORD_BYTES,
    written_by=("trainer", "person", "advisor", "governor's ticker"),
    read_by=("governor", "archiver"),
)
CONTROL = Topic(
    name="pilothouse.control",
    partition_by="run",
    partitions=4,
    retention_ms=7 * DAY_MS,
    max_record_bytes=MAX_RECORD_BYTES,
    written_by=("governor",),
    read_by=("trainer", "advisor", "archiver", "control room"),
)
DEADLETTER = Topic(
    name="pilothouse.deadletter",
    partition_by="run, where known",
    partitions=4,
    retention_ms=30 * DAY_MS,
    max_record_bytes=2 * MAX_RECORD_BYTES,  # the largest record of another topic fits whole, and why it is here
    written_by=("governor", "archiver"),
    read_by=("person",),
)
TOPICS = (TELEMETRY, CONTROL, DEADLETTER)


def partition_key(event: AnyEvent) -> bytes:
    """The record key: the run's id, or the partition itself for what belongs to no run."""
    match event:
        case Fact() | Decision():
            return event.run_id.encode()
        case Tick():
            return b"partition-%d" % event.partition
        case _ as unreachable:
            assert_never(unreachable)


def partition_of(run_id: str, partitions: int) -> int:
    """The partition of a run among `partitions`; every writer and every follower of a run asks here."""
    return crc32(run_id.encode()) % partitions
