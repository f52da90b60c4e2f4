"""A log in memory behind the workers' port, for tests of their shells: what was done, in which order."""

from collections.abc import Iterator, Mapping, Sequence

from pilothouse.events.codec import Malformed, decode, encode
from pilothouse.events.topics import CONTROL, TELEMETRY, partition_key
from pilothouse.events.union import AnyEvent
from pilothouse.stream_processors.log import Delivered, Kept, Outgoing, Source

Act = tuple[str, object]


class MemoryLog:
    """`acts` is everything in order: ("publish", topic), ("keep", partition), ("acknowledge", {source: offset})."""

    def __init__(self) -> None:
        self.acts: list[Act] = []
        self.sent: list[Outgoing] = []
        self.table: dict[bytes, bytes | None] = {}
        self.acknowledged: dict[Source, int] = {}

    async def publish(self, records: Sequence[Outgoing]) -> list[int]:
        self.acts += [("publish", record.topic) for record in records]
        self.sent += records
        return list(range(len(self.sent) - len(records), len(self.sent)))

    async def keep(self, partition: int, entries: Kept) -> None:
        self.acts.append(("keep", partition))
        self.table |= entries

    def acknowledge(self, positions: Mapping[Source, int]) -> None:
        self.acts.append(("acknowledge", dict(positions)))
        self.acknowledged |= positions

    def events(self, topic: str = CONTROL.name) -> list[AnyEvent]:
        """What was sent to a topic, decoded as a reader would."""
        return list(self._events(topic))

    def _events(self, topic: str) -> Iterator[AnyEvent]:
        for record in self.sent:
            if record.topic == topic:
                event = decode(record.headers, record.body)
                assert not isinstance(event, Malformed), event.detail
                yield event

    def headers(self, topic: str) -> list[dict[str, bytes]]:
        return [dict(record.headers) for record in self.sent if record.topic == topic]


def delivered(event: AnyEvent, offset: int, partition: int = 0, topic: str = TELEMETRY.name) -> Delivered:
    """The event as a broker would deliver it."""
    wire = encode(event)
    return Delivered(topic, partition, offset, partition_key(event), tuple(wire.headers), wire.body)
