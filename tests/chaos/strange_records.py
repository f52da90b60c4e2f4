"""Records that are not for whom they are sent to, and the dead letters that must become of them."""

from collections.abc import Iterable
from typing import NamedTuple

from pilothouse.events.codec import KIND_HEADER, SCHEMA_HEADER, Malformed
from pilothouse.events.decisions import RunAssessed
from pilothouse.events.envelope import Decision
from pilothouse.events.topics import CONTROL, TELEMETRY
from pilothouse.stream_processors.deadletter import (
    REASON_HEADER,
    SOURCE_OFFSET_HEADER,
    SOURCE_PARTITION_HEADER,
    SOURCE_TOPIC_HEADER,
)
from pilothouse.tests.archive_events import decided
from pilothouse.tests.broker_fixture import PARTITIONS
from pilothouse.tests.dying_worker import Feed
from pilothouse.tests.log_reader import Read

HEADERS: dict[str, list[tuple[str, bytes]]] = {
    "NotOurs": [("theirs", b"\xff\x00")],
    "UnknownKind": [(KIND_HEADER, b"tea_time"), (SCHEMA_HEADER, b"1")],
    "NewerSchema": [(KIND_HEADER, b"heartbeat"), (SCHEMA_HEADER, b"99")],
    "Undecodable": [(KIND_HEADER, b"heartbeat"), (SCHEMA_HEADER, b"1"), (REASON_HEADER, b"forged")],
}
"""By the reason for which a record with these headers is none of ours."""


NO_ATTEMPT = 2**63
"""An attempt that an event may have, and no column of the archive can hold."""


IMPOSSIBLE = "impossible"
"""The run of such decisions."""


class Letter(NamedTuple):
    """What a person finds of a record that could not be used."""

    reason: str
    key: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    body: bytes | None


Origin = tuple[str, int, int]


def send_strange(feed: Feed, topic: str, number: int) -> None:
    """One that is no event of ours, each time another; its body names the reason."""
    reason = list(HEADERS)[number % len(HEADERS)]
    body = b"\xc1%s/%d" % (reason.encode(), number)
    feed.send_bytes(topic, number % PARTITIONS, body, key=b"key-%d" % number, headers=HEADERS[reason])


def send_impossible(feed: Feed, number: int) -> None:
    """A decision that the archive can never take."""
    decision = decided(IMPOSSIBLE, RunAssessed, number, phase="Normal").model_copy(update={"attempt": NO_ATTEMPT})
    feed.send(decision, CONTROL.name, number % PARTITIONS)


def due_letters(topic: str, reads: Iterable[Read]) -> dict[Origin, Letter]:
    """The letters that must come of what was read from a topic."""
    due = {}
    for read in reads:
        reason = _reason(topic, read)
        if reason:
            kept = tuple(header for header in read.headers if header[0] != REASON_HEADER)
            due[topic, read.place.partition, read.place.offset] = Letter(reason, read.key, kept, read.body)
    return due


def _reason(topic: str, read: Read) -> str:
    if isinstance(read.event, Malformed):
        assert read.body is not None
        told = read.body.removeprefix(b"\xc1").partition(b"/")[0].decode(errors="replace")
        return told if told in HEADERS else read.event.reason
    if isinstance(read.event, Decision):
        if topic == TELEMETRY.name:
            return "NotTelemetry"
        return "ArchiveRefused" if read.event.attempt == NO_ATTEMPT else ""
    return ""


def letters(reads: Iterable[Read]) -> dict[Origin, Letter]:
    """The letters on the dead-letter topic, by what they are of; one that came twice is the same both times."""
    found: dict[Origin, Letter] = {}
    for read in reads:
        of = dict(read.headers)
        origin = of[SOURCE_TOPIC_HEADER].decode(), int(of[SOURCE_PARTITION_HEADER]), int(of[SOURCE_OFFSET_HEADER])
        letter = Letter(of[REASON_HEADER].decode(), read.key, read.headers[5:], read.body)
        assert found.setdefault(origin, letter) == letter
    return found
