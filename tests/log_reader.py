"""Reads the telemetry topic of a real broker as the governor would: what is in the log, in its order."""

import time
from collections.abc import Callable

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from pilothouse.events.codec import decode
from pilothouse.events.envelope import TrainerFact
from pilothouse.events.telemetry import RunEnded
from pilothouse.events.topics import TELEMETRY, partition_of


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
