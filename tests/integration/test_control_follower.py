"""Rank 0 hears its commands from a real broker, whatever that broker does in between."""

import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaProducer

from pilothouse.cli.brokers import EmbeddedBroker, LocalBroker, free_port
from pilothouse.cli.topic_admin import admin_client, create_topics
from pilothouse.events.actions import SkipBatches
from pilothouse.events.codec import encode
from pilothouse.events.decisions import InterventionIssued
from pilothouse.events.topics import CONTROL, partition_key, partition_of
from pilothouse.producers.steering.control import Follower, follow
from pilothouse.tests.broker_fixture import PARTITIONS, NewBroker
from pilothouse.tests.pilot_world import issued

Follow = Callable[..., Follower]


@pytest.fixture(autouse=True)
def _sockets_are_collected_here() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def following() -> Iterator[Follow]:
    """Starts followers and closes them."""
    started: list[Follower] = []

    def start(broker: LocalBroker, run_id: str) -> Follower:
        started.append(follow(broker.address, run_id, log_in_memory=isinstance(broker, EmbeddedBroker)))
        return started[-1]

    yield start
    for follower in started:
        follower.close()


def command(run_id: str, number: int) -> InterventionIssued:
    return issued(SkipBatches(count=1), number=number, run_id=run_id)


def write(broker: LocalBroker, *commands: InterventionIssued) -> None:
    producer = KafkaProducer(bootstrap_servers=[broker.address])
    for one in commands:
        encoded = encode(one)
        producer.send(
            CONTROL.name,
            value=encoded.body,
            key=partition_key(one),
            headers=encoded.headers,
            partition=partition_of(one.run_id, PARTITIONS),
        )
    producer.flush(timeout=20)
    producer.close()


def groups(broker: LocalBroker) -> set[str]:
    """The consumer groups that the broker knows."""
    with admin_client(broker.address, seconds=10.0) as client:
        return {group["group_id"] for group in client.list_groups()}


def heard(follower: Follower, count: int, within: float = 30.0) -> list[str]:
    """The ids of the next `count` commands, or of as many as came in time."""
    deadline = time.monotonic() + within
    ids: list[str] = []
    while len(ids) < count and time.monotonic() < deadline:
        one = follower.take()
        if isinstance(one, InterventionIssued):
            ids.append(one.intervention_id)
        else:
            time.sleep(0.02)
    return ids


def test_commands_are_heard_in_order_those_from_before_the_start_too(broker: LocalBroker, following: Follow) -> None:
    write(broker, command("follow-1", 1), command("another", 2), command("follow-1", 3))
    follower = following(broker, "follow-1")
    assert heard(follower, 2) == ["i-1", "i-3"]
    write(broker, command("follow-1", 4))
    assert heard(follower, 1) == ["i-4"]


def test_followers_of_one_run_both_hear_everything_for_they_are_in_no_group(
    broker: LocalBroker, following: Follow
) -> None:
    known = groups(broker)
    write(broker, command("follow-both", 1))
    followers = [following(broker, "follow-both") for _ in range(2)]
    assert [heard(follower, 1) for follower in followers] == [["i-1"], ["i-1"]]
    write(broker, command("follow-both", 2), command("follow-both", 3))
    assert [heard(follower, 2) for follower in followers] == [["i-2", "i-3"], ["i-2", "i-3"]]
    assert groups(broker) <= known


def test_a_broker_that_is_not_there_yet_is_waited_for(following: Follow, tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path, free_port())
    follower = following(broker, "follow-2")
    assert heard(follower, 1, within=1.0) == []
    broker.start()
    try:
        create_topics(broker.address, PARTITIONS, replication=1)
        write(broker, command("follow-2", 1))
        assert heard(follower, 1) == ["i-1"]
    finally:
        broker.kill()


def test_after_a_broker_was_killed_nothing_is_missed_and_nothing_heard_twice(
    new_broker: NewBroker, following: Follow
) -> None:
    broker = new_broker()
    follower = following(broker, "follow-3")
    write(broker, *(command("follow-3", number) for number in range(1, 6)))
    assert heard(follower, 5) == [f"i-{number}" for number in range(1, 6)]
    broker.kill()
    broker.start()
    create_topics(broker.address, PARTITIONS, replication=1)
    # Where the log is lost, its offsets begin anew: fewer records than before stand in it, at places already read.
    write(broker, command("follow-3", 6), command("follow-3", 7))
    assert heard(follower, 2) == ["i-6", "i-7"]
    assert heard(follower, 1, within=4.0) == []
