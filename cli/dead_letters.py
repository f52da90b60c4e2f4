"""The dead letters as a person reads them: why a record could not be used, where it stood, and its original bytes.

Called by `pilothouse topics deadletters`. What a dead letter carries is `stream_processors.deadletter`'s to say.
"""

from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any

from ..events.topics import DEADLETTER
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
from .rendering import Column, clock, printable
from .topic_admin import describe_topics
from .topic_reading import latest_records

SHOWN_BYTES = 48


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

    def as_row(self) -> dict[str, Any]:
        """For a table and for programs: bytes are base64, None stays None."""
        return {
            "at": self.at,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "reason": self.reason,
            "detail": self.detail,
            "size": self.size,
            "cut": self.size != len(self.body or b""),
            "begins": beginning(self.body),
            "body_base64": _base64(self.body),
            "key_base64": _base64(self.key),
            "headers": [{"name": name, "value_base64": _base64(value)} for name, value in self.headers],
        }


COLUMNS: list[Column] = [
    ("time", lambda row: clock(row["at"])),
    ("topic", lambda row: printable(row["topic"]) or "–"),
    ("partition", lambda row: _number(row["partition"])),
    ("offset", lambda row: _number(row["offset"])),
    ("reason", lambda row: printable(row["reason"]) or "–"),
    ("detail", lambda row: printable(row["detail"])),
    ("bytes", lambda row: f"{row['size']} (cut)" if row["cut"] else str(row["size"])),
    ("begins", lambda row: row["begins"]),
]


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


def _number(value: int | None) -> str:
    return "–" if value is None else str(value)


def _base64(content: bytes | None) -> str | None:
    return None if content is None else b64encode(content).decode()
