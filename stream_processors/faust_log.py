"""The `Log` port over a Faust app: its producer, its table and its consumer. Composed by `app`."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import faust
from aiokafka.errors import KafkaError, KafkaTimeoutError
from faust.exceptions import ProducerSendError

from ..events.errors import BrokerUnavailable
from .kept import is_overtaken
from .log import Kept, Outgoing, Source


class NewestTable(faust.Table[bytes, bytes]):
    """What was written last is not always what is newest: a worker that stood still in the middle of a write ends it
    when it wakes up, behind what the one has written that took its partitions over. Faust believes the last.
    """

    def apply_changelog_batch(self, batch: Iterable[Any]) -> None:
        for event in batch:
            if not is_overtaken(event.key, event.value, self.data.get(event.key)):
                super().apply_changelog_batch([event])


class FaustLog:
    """`table` is absent in the archiver, which keeps nothing. What the client gives up because the broker is away is
    `BrokerUnavailable`; it may do so before anybody else has seen that.
    """

    def __init__(self, app: faust.App, table: Any = None) -> None:
        self._app = app
        self._table = table

    async def publish(self, records: Sequence[Outgoing]) -> list[int]:
        """Send in this order; returns when the broker has all of them.

        Raises:
            BrokerUnavailable: it went away before it had them.
        """
        with _away():
            sent = [
                await self._app.producer.send(
                    record.topic, record.key, record.body, record.partition, None, list(record.headers)
                )
                for record in records
            ]
            return [metadata.offset for metadata in await asyncio.gather(*sent)]

    async def keep(self, partition: int, entries: Kept) -> None:
        """Write to the changelog, delivered, then to the table itself.

        The table's own `[]=` would choose a partition by hashing the key; a state must follow its run's partition, so
        that whoever is assigned the one recovers the other.

        Raises:
            BrokerUnavailable: it went away before it had them.
        """
        topic = self._table.changelog_topic
        with _away():
            sent = [
                await self._app.producer.send(topic.get_topic_name(), key, value, partition, None, None)
                for key, value in entries.items()
            ]
            await asyncio.gather(*sent)
        data = self._table.data
        for key, value in entries.items():
            if value is None:
                data.pop(key, None)
            elif not is_overtaken(key, value, data.get(key)):  # the table may have been recovered meanwhile
                data[key] = value

    def acknowledge(self, positions: Mapping[Source, int]) -> None:
        """Faust's consumer commits these, a moment later."""
        self._app.consumer.acknowledge(positions)  # type: ignore[attr-defined]  # ours: transport.Consumer


@contextmanager
def _away() -> Iterator[None]:
    """A broker that is away is no bug of ours; a record that it refuses would be."""
    try:
        yield
    except (KafkaError, ProducerSendError) as error:
        cause = error.__cause__ if isinstance(error, ProducerSendError) else error
        if not (isinstance(cause, KafkaTimeoutError) or getattr(cause, "retriable", False)):
            raise
        raise BrokerUnavailable(f"the broker did not take a record: {type(cause).__name__}: {cause}") from error
