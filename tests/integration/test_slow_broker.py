"""A broker that is slow, hangs, is none or was away for an hour: the loop goes on, and all that was said arrives."""

import gc
import logging
import math
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

import pilothouse
from pilothouse.events.envelope import TrainerFact
from pilothouse.events.telemetry import RunEnded, StepBatch
from pilothouse.producers.delivery import kafka as kafka_module
from pilothouse.producers.delivery.batching import Row, Told
from pilothouse.producers.delivery.kafka import KafkaSender
from pilothouse.producers.delivery.outbox import Outbox, Pace
from pilothouse.producers.delivery.publisher import Publisher
from pilothouse.producers.delivery.spool import Spool, read_folder
from pilothouse.producers.ranks.context import Identity
from pilothouse.producers.run import Run
from pilothouse.settings import Settings
from pilothouse.tests.broker_fixture import PARTITIONS, broker_of_kind, started
from pilothouse.tests.log_reader import read_run
from pilothouse.tests.outbox_bench import HandClock, wait_until
from pilothouse.tests.slow_network import FarBroker

HOUR = 3_600
LONGEST_CALL = 0.25
"""Seconds. A call takes microseconds; what is looked for here are waits for the network, which take seconds."""


@pytest.fixture(autouse=True)
def _sockets_are_collected_here() -> Iterator[None]:
    yield
    wait_until(lambda: all(thread.name != "pilothouse-connect" for thread in threading.enumerate()), 30)
    gc.collect()


@pytest.fixture
def far_broker(tmp_path: Path) -> Iterator[FarBroker]:
    broker = FarBroker(tmp_path / "broker")
    started(broker)
    yield broker
    broker.network.close()
    broker.kill()


def begin(address: str, folder: Path, close_seconds: float = 20.0) -> Run:
    settings = Settings(
        kafka=address, data_dir=folder, producer_flush_seconds=0.02, heartbeat_seconds=0.2, close_seconds=close_seconds
    )
    return pilothouse.start_run("test", run_id=f"run-{uuid4().hex[:8]}", settings=settings)


def log_steps(run: Run, first: int, last: int) -> float:
    """Log them at the pace of a training loop; the longest that a call took."""
    longest = 0.0
    for step in range(first, last):
        before = time.perf_counter()
        run.log(step, loss=1.0)
        longest = max(longest, time.perf_counter() - before)
        time.sleep(0.002)
    return longest


def steps_of(facts: Sequence[TrainerFact]) -> list[int]:
    return [step for fact in facts if isinstance(fact, StepBatch) for step in fact.steps]


def test_a_slow_broker_slows_no_call_and_gets_everything_in_order(far_broker: FarBroker, tmp_path: Path) -> None:
    far_broker.network.delay = 0.2
    run = begin(far_broker.far_address, tmp_path)
    longest = log_steps(run, 0, 1_000)
    run.close()
    far_broker.network.delay = 0.0
    assert longest < LONGEST_CALL
    facts = read_run(far_broker.address, run.identity.run_id, PARTITIONS)
    assert steps_of(facts) == list(range(1_000))
    assert run.counts().accepted == run.counts().sent


def test_a_broker_that_takes_less_than_is_said_slows_no_call_and_gets_everything(
    far_broker: FarBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_module, "STALL_SECONDS", 1.0)  # in which less passes than one request may hold
    run = begin(far_broker.far_address, tmp_path)
    log_steps(run, 0, 50)
    wait_until(lambda: run.counts().sent >= 50, 30)
    far_broker.network.rate = 100_000
    longest, waiting = 0.0, []
    for step in range(50, 550):
        before = time.perf_counter()
        run.log(step, **{f"layer/{index}": float(step + index) for index in range(200)})
        longest = max(longest, time.perf_counter() - before)
        waiting.append(run.counts().queued)
        time.sleep(0.002)
    counts = run.counts()
    assert counts.spooled > 0, "the broker took everything: nothing was held back"
    assert longest < LONGEST_CALL
    assert max(waiting) < 250, "what the broker does not take waits on disk, not in memory"
    sent = counts.sent
    wait_until(lambda: run.counts().sent >= sent + 100, 30)
    far_broker.network.rate = math.inf
    run.close()
    assert run.counts().accepted == run.counts().sent
    facts = read_run(far_broker.address, run.identity.run_id, PARTITIONS)
    assert steps_of(facts) == list(range(550))
    assert [fact.seq for fact in facts] == list(range(1, len(facts) + 1))


def test_a_broker_that_hangs_stops_no_call_and_gets_everything_when_it_goes_on(
    far_broker: FarBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_module, "STALL_SECONDS", 1.0)
    run = begin(far_broker.far_address, tmp_path)
    log_steps(run, 0, 100)
    wait_until(lambda: run.counts().sent >= 50, 30)
    far_broker.network.hold()
    longest = log_steps(run, 100, 1_500)
    wait_until(lambda: run.counts().spooled > 0, 30)
    wait_until(lambda: run._outbox.sender.failures > 0, 5)  # long before the client itself gives up
    far_broker.network.let_pass()
    run.close()
    assert longest < LONGEST_CALL
    assert run.counts().accepted == run.counts().sent
    facts = read_run(far_broker.address, run.identity.run_id, PARTITIONS)
    assert steps_of(facts) == list(range(1_500))
    assert [fact.seq for fact in facts] == list(range(1, len(facts) + 1))


def test_a_run_ends_by_its_deadline_while_the_broker_hangs_and_keeps_what_it_has(
    far_broker: FarBroker, tmp_path: Path
) -> None:
    run = begin(far_broker.far_address, tmp_path, close_seconds=1.0)
    log_steps(run, 0, 100)
    wait_until(lambda: run.counts().sent >= 50, 30)
    far_broker.network.hold()
    log_steps(run, 100, 300)
    before = time.monotonic()
    run.close()
    assert time.monotonic() - before < 2.3
    counts = run.counts()
    assert counts.dropped == counts.queued == 0
    assert counts.accepted == counts.sent + counts.spooled
    (folder,) = (tmp_path / "spool").glob("*/*")
    facts = [record.seq for record in read_folder(folder)]
    assert facts == list(range(facts[0], facts[0] + len(facts)))


def test_a_broker_that_is_back_after_an_hour_gets_the_hour_in_order(tmp_path: Path) -> None:
    """The parts are those of `start_run`; the clock alone is moved by hand."""
    broker = broker_of_kind("embedded", tmp_path / "broker")
    who = Identity(f"run-{uuid4().hex[:8]}", "attempt-1", 1, 0, 1)
    clock = HandClock(time.time())
    sender = KafkaSender(broker.address, who.run_id, clock.seconds)
    spool = Spool(tmp_path / "spool" / "run" / "writer", 10_000_000)
    outbox = Outbox(who, "writer", sender, spool, Pace(0.01, 2.0, clock.seconds, clock.micros))
    sender.on_news(outbox.wake.set)
    publisher = Publisher(outbox)
    publisher.start()
    try:
        for step in range(HOUR // 2):
            outbox.append(Row(who, clock.micros(), step, {"loss": 1.0}))
            clock.now += 2.0
            if step % 100 == 0:
                time.sleep(0.02)  # the thread runs on the machine's time
        wait_until(lambda: sender.failures > 0 and outbox.counts().spooled > 0, 30)
        started(broker)
        clock.now += 60.0
        wait_until(lambda: outbox.counts().sent == HOUR // 2, 30)
        outbox.append(Told(who, clock.micros(), RunEnded, {"outcome": "completed", "step": HOUR // 2 - 1}))
        publisher.close(20.0)
        facts = read_run(broker.address, who.run_id, PARTITIONS)
    finally:
        publisher.close(1.0)
        broker.kill()
    assert steps_of(facts) == list(range(HOUR // 2))
    times = [at for fact in facts if isinstance(fact, StepBatch) for at in fact.times]
    assert times[-1] - times[0] == (HOUR - 2) * 1_000_000, "each step has the time at which it was logged"
    assert outbox.counts().dropped == 0


def test_something_that_is_no_kafka_is_said_once_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_module, "BOOTSTRAP_SECONDS", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as silent, caplog.at_level(logging.WARNING, logger="pilothouse"):
        run = begin(f"127.0.0.1:{silent.getsockname()[1]}", tmp_path, close_seconds=0.5)
        assert log_steps(run, 0, 100) < LONGEST_CALL
        run.close()
    (folder,) = (tmp_path / "spool").glob("*/*")
    assert sum(record.entries for record in read_folder(folder)) == run.counts().accepted
