"""A worker as a process: how it starts, stops, and ends when its broker does."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pilothouse.cli.brokers import EmbeddedBroker, LocalBroker, free_port
from pilothouse.cli.topic_admin import create_topics
from pilothouse.events.errors import RestartRequired, StackNotRunning
from pilothouse.events.topics import CONTROL, TELEMETRY, partition_of
from pilothouse.stream_processors.broker_watch import BrokerWatch
from pilothouse.stream_processors.log import Layout
from pilothouse.tests.broker_fixture import PARTITIONS, NewBroker
from pilothouse.tests.dying_worker import DyingWorker, Feed, fact
from pilothouse.tests.log_reader import read_all

UNAVAILABLE, RESTART = 69, 75


@pytest.fixture
def governor(tmp_path: Path) -> Iterator[Any]:
    """Makes a governor on a broker; killed at the end."""
    made: list[DyingWorker] = []

    def make(broker: LocalBroker, **environ: str) -> DyingWorker:
        tmp_path.joinpath("policy.yaml").write_text("name: none\nrules: []\n")
        settings = {
            "PILOTHOUSE_KAFKA": broker.address,
            "PILOTHOUSE_EMBEDDED_BROKER": str(not broker.keeps_log).lower(),
            "PILOTHOUSE_POLICY_FILE": str(tmp_path / "policy.yaml"),
        }
        made.append(DyingWorker("governor", tmp_path / "data", settings | environ))
        return made[-1]

    yield make
    for worker in made:
        worker.kill()


def feed_run(broker: LocalBroker, run_id: str, first: int, last: int) -> None:
    with closing(Feed(broker.address)) as feed:
        for seq in range(first, last + 1):
            feed.send(fact(run_id, seq), TELEMETRY.name, partition_of(run_id, PARTITIONS))


def at_end(worker: DyingWorker, source: str, offset: int) -> bool:
    return bool(worker.health().get("last_offset", {}).get(source, -1) >= offset)


def test_a_stop_in_order_leaves_nothing_to_be_done_twice(new_broker: NewBroker, governor: Any) -> None:
    broker = new_broker()
    worker = governor(broker)
    for first, last in ((1, 30), (31, 60)):
        feed_run(broker, "run-1", first, last)
        worker.start()
        source = f"{TELEMETRY.name}/{partition_of('run-1', PARTITIONS)}"
        worker.until(lambda last=last, source=source: at_end(worker, source, last), "all is judged")
        assert worker.stop() == 0
    assert worker.health()["state"] == "stopped"
    with closing(Feed(broker.address)) as feed:
        feed.end(CONTROL.name)
    ids = [read.event.event_id for read in read_all(broker.address, CONTROL.name, PARTITIONS)]  # type: ignore[union-attr]  # what was decided is readable
    assert len(ids) == len(set(ids)) > 5


def test_an_idle_log_has_a_clock_and_the_worker_says_how_far_it_is(embedded_broker: LocalBroker, governor: Any) -> None:
    worker = governor(embedded_broker, PILOTHOUSE_TICK_SECONDS="0.1")
    worker.start()
    worker.until_running()
    worker.until(lambda: worker.health()["records"] >= 3 * PARTITIONS, "ticks come")
    health = worker.health()
    assert health.keys() >= {"at", "pid", "records", "lag", "last_offset", "last_error"}
    assert set(health["lag"]) == {f"{TELEMETRY.name}/{number}" for number in range(PARTITIONS)}
    assert abs(time.time() - health["at"] / 1e6) < 30
    assert worker.stop() == 0


def test_a_broker_that_dies_takes_its_workers_along_within_twenty_seconds(new_broker: NewBroker, governor: Any) -> None:
    broker = new_broker()
    worker = governor(broker)
    worker.start()
    worker.until_running()
    broker.kill()
    began = time.monotonic()
    assert worker.ended(60) in (UNAVAILABLE, RESTART)
    assert time.monotonic() - began < 20


def test_another_log_at_the_same_address_ends_the_worker(tmp_path: Path, governor: Any) -> None:
    first = EmbeddedBroker(tmp_path / "first")
    first.start()
    create_topics(first.address, PARTITIONS, 1)
    worker = governor(first)
    worker.start()
    worker.until_running()
    first.kill()
    second = EmbeddedBroker(tmp_path / "second", port=first.port)
    second.start()
    try:
        create_topics(second.address, PARTITIONS, 1)
        assert worker.ended(60) in (UNAVAILABLE, RESTART)
    finally:
        second.kill()


def test_who_waits_for_a_broker_learns_that_there_is_none() -> None:
    watch = BrokerWatch(f"127.0.0.1:{free_port()}")
    with pytest.raises(StackNotRunning, match=r"no broker answers at 127.0.0.1:\d+: start one .* \(waited 0 s\)"):
        asyncio.run(watch.arrive(0.0))


def test_who_waits_for_topics_learns_which_are_missing_and_they_are_not_made(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    broker.start()

    async def scenario() -> Layout:
        watch = BrokerWatch(broker.address)
        try:
            with pytest.raises(StackNotRunning, match=r"has no pilothouse.telemetry.*pilothouse topics create"):
                await watch.arrive(0.0)
            await asyncio.to_thread(create_topics, broker.address, 3, 1)
            return await watch.arrive(5.0)
        finally:
            await watch.close()

    try:
        assert asyncio.run(scenario()) == Layout(3, 3, 3)
    finally:
        broker.kill()


def test_a_log_that_was_begun_anew_is_told_from_the_one_before(tmp_path: Path) -> None:
    first = EmbeddedBroker(tmp_path / "first")
    first.start()

    async def scenario() -> None:
        watch = BrokerWatch(first.address)
        try:
            await watch.check()
            first.kill()
            await watch.check()  # a moment of silence is borne
            second = EmbeddedBroker(tmp_path / "second", port=first.port)
            await asyncio.to_thread(second.start)
            try:
                await watch.check()
            finally:
                second.kill()
        finally:
            await watch.close()

    with pytest.raises(RestartRequired, match="was replaced"):
        asyncio.run(scenario())
