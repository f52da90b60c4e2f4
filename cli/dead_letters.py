"""The dead letters as a person reads them: why a record could not be used, where it stood, and its original bytes.

Called by `pilothouse deadletter`; what a dead letter carries is `stream_processors.deadletter`'s to say. A letter is
named by where its record stood, `TOPIC/PARTITION@OFFSET`, as the workers' logs name it; the topic's prefix may be left
out.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..events.codec import Malformed, decode
from ..events.envelope import Decision
from ..events.errors import BrokerUnavailable, UserMistake
from ..events.plain_text import printable
from ..events.topics import CONTROL, DEADLETTER, TELEMETRY
from ..settings import Settings
from ..stream_processors.deadletter import (
    BODY_BYTES_HEADER,
    DETAIL_HEADER,
    OURS,
    REASON_HEADER,
    SOURCE_OFFSET_HEADER,
    SOURCE_PARTITION_HEADER,
    SOURCE_TOPIC_HEADER,
)
from .rendering import Column, clock
from .topic_admin import describe_topics
from .topic_reading import latest_records

SHOWN_BYTES = 48
SEND_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record that could not be used. `at`: microseconds UTC; `topic`, `partition`, `offset`: where it stood.

    What somebody else wrote to the dead-letter topic has no reason and no source. `headers` are the original's, `size`
    is the length of its whole body: of the longest only the beginning is kept.
    """

    at: int
    reason: str
    detail: str
    topic: str
    partition: int | None
    offset: int | None
    key: bytes | None
    body: bytes | None
    size: int
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Empty for what somebody else wrote to the dead-letter topic."""
        return f"{self.topic}/{self.partition}@{self.offset}" if self.topic else ""

    @property
    def is_cut(self) -> bool:
        return self.size != len(self.body or b"")

    def still_wrong(self) -> str:
        """Why its record would be a dead letter again; empty where it could be used now."""
        if self.topic not in (TELEMETRY.name, CONTROL.name) or self.partition is None:
            return "it does not say where it came from"
        if self.is_cut:
            return f"only its beginning is kept: {len(self.body or b'')} of {self.size} bytes"
        event = decode(self.headers, self.body)
        if isinstance(event, Malformed):
            return f"{event.reason}: {event.detail}"
        if isinstance(event, Decision) != (self.topic == CONTROL.name):
            return f"{event.kind} does not belong to {self.topic}"
        return ""

    def as_row(self) -> dict[str, Any]:
        """For a table and for programs: bytes are base64, None stays None."""
        return {
            "at": self.at,
            "name": self.name,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "reason": self.reason,
            "detail": self.detail,
            "size": self.size,
            "cut": self.is_cut,
            "begins": beginning(self.body),
            "body_base64": _base64(self.body),
            "key_base64": _base64(self.key),
            "headers": [{"name": name, "value_base64": _base64(value)} for name, value in self.headers],
        }


COLUMNS: list[Column] = [
    ("time", lambda row: clock(row["at"])),
    ("record", lambda row: printable(row["name"]) or "–"),
    ("reason", lambda row: printable(row["reason"]) or "–"),
    ("detail", lambda row: printable(row["detail"])),
    ("bytes", lambda row: f"{row['size']} (cut)" if row["cut"] else str(row["size"])),
    ("begins", lambda row: row["begins"]),
]


_NAME = re.compile(r"(?P<topic>[\w.]+)/(?P<partition>\d+)@(?P<offset>\d+)")


def chosen(letters: Iterable[DeadLetter], which: Sequence[str], reason: str | None) -> list[DeadLetter]:
    """Those of these names, or of this reason, each record once: a worker that was killed may write two letters of one.

    Raises:
        UserMistake: a word is no name of a letter, or there is none of that name or reason.
    """
    by_name = {letter.name: letter for letter in letters if letter.name}
    if not which:
        found = [letter for letter in by_name.values() if reason in (None, letter.reason)]
        if not found and reason:
            reasons = ", ".join(sorted({letter.reason for letter in by_name.values()}))
            raise UserMistake(
                f"no dead letter has the reason {printable(reason)!r}; there is: {printable(reasons) or 'none'}"
            )
        return found
    return [_named(by_name, word) for word in dict.fromkeys(which)]


def _named(by_name: dict[str, DeadLetter], word: str) -> DeadLetter:
    if _NAME.fullmatch(word) is None:
        raise UserMistake(
            f"{printable(word)!r} names no dead letter: write TOPIC/PARTITION@OFFSET, as `list` shows them"
        )
    for name in (word, f"pilothouse.{word}"):
        if name in by_name:
            return by_name[name]
    raise UserMistake(f"no dead letter is called {word}; `pilothouse deadletter list --limit` shows older ones too")


def replayed(settings: Settings, letters: Sequence[DeadLetter]) -> Iterator[tuple[DeadLetter, str]]:
    """Send each record again as it was, to the end of the partition where it stood, if it can be used now; what became
    of it. Doing it again does no harm: readers know an event by its number or id.

    Raises:
        BrokerUnavailable: the broker cannot be reached, or did not take one.
    """
    from ..producers.delivery.connection import abandon, connected_producer

    producer = None
    try:
        for letter in letters:
            wrong = letter.still_wrong()
            if not wrong:
                producer = producer or connected_producer(settings.log_access, SEND_SECONDS)[0]
                _send(producer, letter)
            yield letter, f"not sent: {wrong}" if wrong else "sent"
    finally:
        if producer is not None:
            abandon(producer)


def _send(producer: Any, letter: DeadLetter) -> None:
    from kafka.errors import KafkaError

    try:
        sent = producer.send(
            letter.topic, letter.body, key=letter.key, headers=letter.headers, partition=letter.partition
        )
        sent.get(SEND_SECONDS)
    except (KafkaError, AssertionError) as error:
        raise BrokerUnavailable(f"the broker did not take {letter.name}: {type(error).__name__}: {error}") from error


def hex_lines(body: bytes) -> Iterator[str]:
    """Offset, sixteen bytes, and what of them is ASCII."""
    for start in range(0, len(body), 16):
        part = body[start : start + 16]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        yield f"{start:08x}  {part.hex(' '):<47}  {shown}"


def read_dead_letters(settings: Settings, limit: int) -> list[DeadLetter]:
    """The latest ones on the broker of these settings, oldest first.

    Raises:
        UserMistake, BrokerUnavailable: the broker cannot be asked.
    """
    states = describe_topics(settings.log_access, settings.partitions, settings.replication)
    partitions = next(state.partitions for state in states if state.name == DEADLETTER.name)
    return [letter_of(record) for record in latest_records(settings.log_access, DEADLETTER, partitions, limit)]


def letter_of(record: Any) -> DeadLetter:
    """What a record of the dead-letter topic says. Ours come first, so nobody's own header can stand in for them."""
    ours: dict[str, str] = {}
    theirs: list[tuple[str, bytes | None]] = []
    for name, value in record.headers:
        if name in OURS and name not in ours and value is not None:
            ours[name] = value.decode(errors="replace")
        else:
            theirs.append((name, value))
    return DeadLetter(
        at=record.timestamp * 1_000,
        reason=ours.get(REASON_HEADER, ""),
        detail=ours.get(DETAIL_HEADER, ""),
        topic=ours.get(SOURCE_TOPIC_HEADER, ""),
        partition=_whole(ours.get(SOURCE_PARTITION_HEADER)),
        offset=_whole(ours.get(SOURCE_OFFSET_HEADER)),
        key=record.key,
        body=record.value,
        size=_whole(ours.get(BODY_BYTES_HEADER)) or len(record.value or b""),
        headers=theirs,
    )


def beginning(body: bytes | None) -> str:
    """The first bytes as text that no terminal obeys: ASCII as it is, all else as escapes."""
    if body is None:
        return ""
    shown = "".join(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in body[:SHOWN_BYTES])
    return shown + ("…" if len(body) > SHOWN_BYTES else "")


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _base64(content: bytes | None) -> str | None:
    return None if content is None else b64encode(content).decode()
