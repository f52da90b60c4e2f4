"""Reads the topics of a real broker from their first record, as trainers and the governor do: with `assign`."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from pilothouse.events.codec import Malformed, decode
from pilothouse.events.envelope import LogPlace, TrainerFact
from pilothouse.events.telemetry import RunEnded
from pilothouse.events.topics import TELEMETRY, partition_of
from pilothouse.events.union import AnyEvent

END = b"the end of what this test reads"


@dataclass(frozen=True)
class Read:
    """One record of a topic: an event, or why it is none; and the record as it stood there."""

    place: LogPlace
    event: AnyEvent | Malformed
    key: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    body: bytes | None


class Reader:
    """Follows all partitions of a topic. `Feed.end` marks where a test stops reading."""

    def __init__(self, address: str, topic: str, partitions: int) -> None:
        self._left = set(range(partitions))
        self._consumer = KafkaConsumer(
            bootstrap_servers=address.split(","), enable_auto_commit=False, fetch_max_wait_ms=50, max_poll_records=5_000
        )
        places = [TopicPartition(topic, partition) for partition in range(partitions)]
        self._consumer.assign(places)
        for place in places:
            self._consumer.seek(place, 0)

    def more(self, timeout_ms: int = 100) -> list[Read]:
        """What came since the last call."""
        reads = []
        for records in self._consumer.poll(timeout_ms=timeout_ms).values():
            for record in records:
                if record.value == END:
                    self._left.discard(record.partition)
                else:
                    place = LogPlace(0, record.partition, record.offset)
                    event = decode(record.headers, record.value)
                    reads.append(Read(place, event, record.key, tuple(record.headers), record.value))
        return reads

    def to_the_end(self, seconds: float = 30.0) -> list[Read]:
        """Everything up to the marks."""
        reads = []
        deadline = time.monotonic() + seconds
        while self._left:
            assert time.monotonic() < deadline, f"the ends of partitions {sorted(self._left)} were not reached"
            reads += self.more()
        return reads

    def close(self) -> None:
        self._consumer.close()


def read_all(address: str, topic: str, partitions: int) -> list[Read]:
    """A topic's records, each partition's in their order, up to the marks of `Feed.end`."""
    with closing(Reader(address, topic, partitions)) as reader:
        return reader.to_the_end()


def read_run(
    address: str,
    run_id: str,
    partitions: int,
    *,
    until: Callable[[TrainerFact], bool] | None = None,
    seconds: float = 20.0,
) -> list[TrainerFact]:
    """The facts of one run, each number of a writer once, up to the first that `until` accepts, or its end."""
    done = until or (lambda fact: isinstance(fact, RunEnded))
    deadline = time.monotonic() + seconds
    facts: list[TrainerFact] = []
    last: dict[str, int] = {}
    consumer = KafkaConsumer(bootstrap_servers=address, enable_auto_commit=False, metrics_enabled=False)
    try:
        place = TopicPartition(TELEMETRY.name, partition_of(run_id, partitions))
        consumer.assign([place])
        consumer.seek(place, 0)
        while time.monotonic() < deadline:
            for record in (record for batch in consumer.poll(200).values() for record in batch):
                fact = decode(record.headers, record.value)
                if isinstance(fact, TrainerFact) and fact.run_id == run_id and fact.seq > last.get(fact.writer_id, 0):
                    last[fact.writer_id] = fact.seq
                    facts.append(fact)
                    if done(fact):
                        return facts
    except KafkaError as error:
        raise AssertionError(f"reading {run_id} failed after {[fact.kind for fact in facts]}") from error
    finally:
        consumer.close()
    raise AssertionError(f"{run_id} was not read to its end in {seconds} s: {[fact.kind for fact in facts][-20:]}")
