"""The `Log` port over a Faust app: its producer, its table and its consumer. Composed by `app`."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaError, KafkaTimeoutError
from faust.exceptions import ProducerSendError

from ..events.errors import BrokerUnavailable
from .log import Kept, Outgoing, Source

if TYPE_CHECKING:
    import faust


class FaustLog:
    """`table` is absent in the archiver, which keeps nothing. What the client gives up because the broker is away is
    `BrokerUnavailable`; it may do so before anybody else has seen that.
    """

    def __init__(self, app: "faust.App", table: Any = None) -> None:
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
        for key, value in entries.items():
            if value is None:
                self._table.data.pop(key, None)
            else:
                self._table.data[key] = value

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
