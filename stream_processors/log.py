"""The log as the workers see it: records in, and a port through which everything they do leaves.

`governor` and `archiver` are written against this protocol and know no Faust; `faust_log` implements it over the app's
producer, table and consumer, and tests put their own in front of it (one that dies at a named point, one in memory).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ..events.codec import Encoded, encode
from ..events.signing import OPEN, Trust, Untrusted
from ..events.topics import partition_key
from ..events.union import AnyEvent


class Delivered(NamedTuple):
    """One record as it came from the broker."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    body: bytes | None
    sent_at: float = 0.0
    """By the sender's clock, in seconds since the epoch; 0 where the broker does not say."""

    @property
    def encoded(self) -> Encoded:
        """Its event as it travelled."""
        return Encoded(self.body or b"", list(self.headers))


class Outgoing(NamedTuple):
    """One record to be sent, with its partition: nobody else may choose one."""

    topic: str
    partition: int
    key: bytes | None
    headers: Sequence[tuple[str, bytes]]
    body: bytes | None


class Source(NamedTuple):
    """A partition of a topic that this worker reads."""

    topic: str
    partition: int


Kept = Mapping[bytes, bytes | None]
"""Entries of the durable state by key; None removes one."""


class Layout(NamedTuple):
    """How many partitions the topics have, as the broker says."""

    telemetry: int
    control: int
    deadletter: int


class Log(Protocol):
    """Where a worker's effects go. Every coroutine returns when the broker has what it was given, or raises."""

    async def publish(self, records: Sequence[Outgoing]) -> list[int]:
        """Send in this order; the offsets the records got."""

    async def keep(self, partition: int, entries: Kept) -> None:
        """Write durable state of a partition, in this order."""

    def acknowledge(self, positions: Mapping[Source, int]) -> None:
        """Everything before these offsets is done: the only thing that is ever committed."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Whom a worker believes, asked anew each time, and how it signs what it says (`keyring`). By itself it believes
    everything and signs nothing. To one that only remembers (`past`) retired keys may tell what they told.
    """

    trust: Callable[[], Trust] = lambda: OPEN
    seal: Callable[[Encoded], Encoded] = lambda encoded: encoded
    past: bool = False

    def objection(self, event: AnyEvent, record: Delivered) -> Untrusted | None:
        """Why this event of the record is not believed, where it is one that can steer."""
        return self.trust().objection(event, record.encoded, past=self.past)


NO_GUARD = Guard()


def outgoing(event: AnyEvent, topic: str, partition: int, guard: Guard = NO_GUARD) -> Outgoing:
    """The event's record, signed, for a partition that the caller got from `partition_of`."""
    encoded = guard.seal(encode(event))
    return Outgoing(topic, partition, partition_key(event), encoded.headers, encoded.body)
