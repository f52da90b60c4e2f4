"""Reads topics as nobody's group: how many records there are, and the latest of them. Changes nothing on the broker.

Called by `pilothouse topics`. Where a partition ends is taken from what a fetch brings along: the embedded broker
answers a question for end offsets wrongly.
"""

import heapq
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..access import Address, access_of
from ..events.errors import BrokerUnavailable
from ..events.topics import Topic
from ..login import refuse_stranger

ANSWER_SECONDS = 10.0
POLL_MS = 200
LEAST_FETCH = 1
"""Bytes. A broker rounds it up to one batch, and tells where each partition ends all the same."""

Extents = dict[Any, range]
"""By kafka-python's TopicPartition: the offsets that are there."""


def count_records(address: Address, partitions: Mapping[str, int], seconds: float = ANSWER_SECONDS) -> dict[str, int]:
    """How many records each topic holds, by the topic's name; `partitions` says how many parts each one has.

    Raises:
        BrokerUnavailable: the broker does not answer in time.
    """
    counts = dict.fromkeys(partitions, 0)
    for place, offsets in _extents(address, partitions, time.monotonic() + seconds).items():
        counts[place.topic] += len(offsets)
    return counts


def latest_records(
    address: Address, topic: Topic, partitions: int, limit: int, seconds: float = ANSWER_SECONDS
) -> list[Any]:
    """The latest records of a topic that are there now, as kafka-python gives them, oldest first.

    Raises:
        BrokerUnavailable: no record arrives for `seconds`.
    """
    extents = _extents(address, {topic.name: partitions}, time.monotonic() + seconds)
    # The latest of a topic are among the latest of its partitions.
    wanted = {place: offsets[-limit:] for place, offsets in extents.items() if offsets}
    with _consumer(address, 2 * topic.max_record_bytes) as consumer:
        found = _read(consumer, wanted, seconds) if wanted else iter(())
        return sorted(heapq.nlargest(limit, found, key=_age), key=_age)


def _age(record: Any) -> tuple[int, int, int]:
    return record.timestamp, record.partition, record.offset


def _read(consumer: Any, wanted: Extents, seconds: float) -> Iterator[Any]:
    consumer.assign(list(wanted))
    for place, offsets in wanted.items():
        consumer.seek(place, offsets.start)
    deadline = time.monotonic() + seconds
    while any(consumer.position(place) < offsets.stop for place, offsets in wanted.items()):
        polled = consumer.poll(POLL_MS)
        if polled:
            deadline = time.monotonic() + seconds
        elif time.monotonic() > deadline:
            raise BrokerUnavailable(f"the broker sent no record for {seconds:.0f} s; try again")
        for place, records in polled.items():
            yield from (record for record in records if record.offset in wanted[place])


def _extents(address: Address, partitions: Mapping[str, int], deadline: float) -> Extents:
    from kafka import TopicPartition

    places = [TopicPartition(name, number) for name, count in partitions.items() for number in range(count)]
    if not places:
        return {}
    with _consumer(address, LEAST_FETCH) as consumer:
        consumer.assign(places)
        first = consumer.beginning_offsets(places, timeout_ms=_left_ms(deadline))
        for place in places:
            consumer.seek(place, first[place])
        while any(consumer.highwater(place) is None for place in places):
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"the broker at {address} does not tell how much it holds; try again")
            consumer.poll(POLL_MS)
        return {place: range(first[place], max(first[place], consumer.highwater(place))) for place in places}


@contextmanager
def _consumer(address: Address, fetch_bytes: int) -> Iterator[Any]:
    from kafka import KafkaConsumer
    from kafka.errors import KafkaError

    refuse_stranger(access_of(address))
    try:
        consumer = KafkaConsumer(
            **access_of(address).options(),
            enable_auto_commit=False,
            allow_auto_create_topics=False,
            fetch_max_bytes=fetch_bytes,
            max_partition_fetch_bytes=fetch_bytes,
            fetch_max_wait_ms=POLL_MS // 2,
            metrics_enabled=False,
        )
    except (KafkaError, OSError) as error:
        raise BrokerUnavailable(f"the broker at {address} does not answer: {error}") from error
    try:
        yield consumer
    except KafkaError as error:
        raise BrokerUnavailable(f"the broker at {address} failed: {error}") from error
    finally:
        consumer.close()


def _left_ms(deadline: float) -> int:
    return max(500, int((deadline - time.monotonic()) * 1000))
