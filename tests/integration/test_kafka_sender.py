"""A run against real brokers: absent, killed, restarted. Nothing is lost, order is kept, nobody waits."""

import gc
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

import pilothouse
from pilothouse.cli.brokers import LocalBroker, free_port
from pilothouse.events.commands import OperatorCommand
from pilothouse.events.envelope import TrainerFact
from pilothouse.events.errors import BrokerUnavailable
from pilothouse.events.telemetry import Heartbeat, RunEnded, RunStarted, SampleRecorded, StageChanged, StepBatch
from pilothouse.events.topics import TELEMETRY
from pilothouse.producers.delivery.kafka import send_fact
from pilothouse.producers.delivery.spool import read_folder
from pilothouse.producers.run import Run
from pilothouse.settings import Settings
from pilothouse.tests.broker_fixture import BROKERS, PARTITIONS, NewBroker, broker_of_kind, started
from pilothouse.tests.log_reader import Reader, read_run
from pilothouse.tests.outbox_bench import told, wait_until


@pytest.fixture(autouse=True)
def _sockets_are_collected_here() -> Iterator[None]:
    yield
    gc.collect()


def settings_for(address: str, folder: Path, close_seconds: float = 20.0) -> Settings:
    return Settings(
        kafka=address, data_dir=folder, producer_flush_seconds=0.02, heartbeat_seconds=0.2, close_seconds=close_seconds
    )


def begin(settings: Settings) -> Run:
    return pilothouse.start_run("test", run_id=f"run-{uuid4().hex[:8]}", settings=settings)


def steps_of(facts: list[TrainerFact]) -> list[int]:
    return [step for fact in facts if isinstance(fact, StepBatch) for step in fact.steps]


def numbers_of(facts: list[TrainerFact]) -> list[int]:
    return [fact.seq for fact in facts]


def log_steps(run: Run, first: int, last: int, pause: float = 0.002) -> None:
    for step in range(first, last):
        run.log(step, loss=1.0 / (step + 1), tokens=1_024)
        time.sleep(pause)  # the pace of a training loop


def test_what_a_run_logs_is_in_the_log_in_order(broker: LocalBroker, tmp_path: Path) -> None:
    with begin(settings_for(broker.address, tmp_path)) as run:
        log_steps(run, 0, 200)
        run.stage("evaluate", 199)
        log_steps(run, 200, 400)
    facts = read_run(broker.address, run.identity.run_id, PARTITIONS)
    assert isinstance(facts[0], RunStarted)
    assert isinstance(facts[-1], RunEnded)
    assert steps_of(facts) == list(range(400))
    assert numbers_of(facts) == list(range(1, len(facts) + 1))
    assert any(isinstance(fact, Heartbeat) for fact in facts)
    said = [fact if isinstance(fact, TrainerFact) else fact[2] for fact in told(facts)]
    evaluates = next(place for place, fact in enumerate(said) if isinstance(fact, StageChanged) and fact.step == 199)
    assert said[evaluates - 1 : evaluates + 2] == [199, said[evaluates], 200]
    counts = run.counts()
    assert counts.accepted == counts.sent == len(said)
    assert not list((tmp_path / "spool").glob("*"))


@pytest.mark.parametrize("kind", BROKERS)
def test_a_broker_that_comes_later_gets_everything_in_order(kind: str, tmp_path: Path) -> None:
    broker = broker_of_kind(kind, tmp_path / "broker")
    try:
        run = begin(settings_for(broker.address, tmp_path))
        log_steps(run, 0, 300)
        wait_until(lambda: run.counts().spooled > 0)
        started(broker)
        log_steps(run, 300, 600)
        run.close()
        facts = read_run(broker.address, run.identity.run_id, PARTITIONS)
    finally:
        broker.kill()
    assert steps_of(facts) == list(range(600))
    assert numbers_of(facts) == list(range(1, len(facts) + 1))
    assert run.counts().accepted == run.counts().sent
    assert not (tmp_path / "spool" / run.identity.run_id).exists()


def test_a_broker_that_was_killed_and_comes_back_misses_nothing(new_broker: NewBroker, tmp_path: Path) -> None:
    broker = new_broker()
    run = begin(settings_for(broker.address, tmp_path))
    log_steps(run, 0, 300)
    wait_until(lambda: run.counts().sent >= 200)
    broker.kill()
    log_steps(run, 300, 1_500)
    started(broker)
    log_steps(run, 1_500, 1_800)
    run.close()
    counts = run.counts()
    assert counts.accepted == counts.sent
    facts = read_run(broker.address, run.identity.run_id, PARTITIONS)
    steps = steps_of(facts)
    if broker.keeps_log:
        assert steps == list(range(1_800))
        assert numbers_of(facts) == list(range(1, len(facts) + 1))
    else:  # its log died with it: what it had confirmed is gone, what it had not is there
        assert steps == list(range(steps[0], 1_800)) or began_anew(broker.address, run.identity.run_id)
        assert steps[0] <= 300


def began_anew(address: str, run_id: str) -> bool:
    """Whether the log of this broker gives an offset twice: it has lost again what it had confirmed (seen once in 32
    restarts of the embedded one under load, at the time its topics were made; no sender can make that good).
    """
    offsets: list[int] = []
    with closing(Reader(address, TELEMETRY.name, PARTITIONS)) as reader:
        deadline = time.monotonic() + 20.0
        while time.monotonic() < deadline:
            for read in reader.more():
                if isinstance(read.event, TrainerFact) and read.event.run_id == run_id:
                    offsets.append(read.place.offset)
                    if isinstance(read.event, RunEnded):
                        return len(set(offsets)) < len(offsets)
    raise AssertionError(f"the end of {run_id} was not read")


def test_with_no_broker_a_run_ends_soon_and_leaves_its_telemetry_on_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(f"127.0.0.1:{free_port()}", tmp_path, close_seconds=5.0)
    with caplog.at_level(logging.WARNING, logger="pilothouse"):
        run = begin(settings)
        log_steps(run, 0, 50)
        before = time.monotonic()
        run.close()
    assert time.monotonic() - before < 5.0
    (folder,) = (tmp_path / "spool").glob("*/*")
    assert sum(record.entries for record in read_folder(folder)) == run.counts().accepted
    assert str(folder) in caplog.text
    assert len(caplog.records) == 2  # that Kafka cannot be reached, and where the rest is


def test_large_records_pass_and_a_string_of_ten_megabytes_is_cut(broker: LocalBroker, tmp_path: Path) -> None:
    run_id = f"run-{uuid4().hex[:8]}"
    config = {"prompt": "x" * 10_000_000, "lr": 0.1}
    with pilothouse.start_run(
        "t", config=config, run_id=run_id, settings=settings_for(broker.address, tmp_path)
    ) as run:
        for step in range(50):
            run.log(step, **{f"name{index:03d}" + "y" * 150: float(index) for index in range(990)})
        run.tell(SampleRecorded, step=1, name="sample", output="z" * 16_000)
    facts = read_run(broker.address, run_id, PARTITIONS)
    (begun,) = (fact for fact in facts if isinstance(fact, RunStarted))
    assert begun.config["lr"] == 0.1
    assert "cut by pilothouse" in str(begun.config["prompt"])
    assert steps_of(facts) == list(range(50))
    assert run.counts().dropped == 0


def command(run_id: str) -> OperatorCommand:
    return OperatorCommand(run_id=run_id, writer_id=uuid4().hex, seq=1, at=1, verb="stop", who="ada", why="a test")


def test_a_command_is_delivered_before_its_sender_goes_on(broker: LocalBroker, tmp_path: Path) -> None:
    settings = settings_for(broker.address, tmp_path)
    with begin(settings) as run:
        run.log(1, loss=1.0)
    send_fact(settings, command(run.identity.run_id))
    facts = read_run(broker.address, run.identity.run_id, PARTITIONS)
    assert [fact.kind for fact in facts][-1] == "run_ended"


def test_a_command_that_cannot_be_delivered_says_so_in_one_line(tmp_path: Path) -> None:
    settings = settings_for(f"127.0.0.1:{free_port()}", tmp_path)
    with pytest.raises(BrokerUnavailable, match=r"^no Kafka broker listens at 127\.0\.0\.1:\d+.*refused$"):
        send_fact(settings, command("run-1"), timeout=3)


def test_a_command_to_a_broker_that_hangs_ends_by_its_deadline(embedded_broker: LocalBroker, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = settings_for(f"127.0.0.1:{silent.getsockname()[1]}", tmp_path)
        before = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="does not answer as a broker"):
            send_fact(settings, command("run-1"), timeout=1.5)
        assert time.monotonic() - before < 6


def test_logging_costs_the_training_thread_little(embedded_broker: LocalBroker, tmp_path: Path) -> None:
    with begin(settings_for(embedded_broker.address, tmp_path)) as run:
        costs = []
        for step in range(2_000):
            before = time.perf_counter_ns()
            run.log(step, loss=1.0, grad_norm=2.0, lr=3e-4, tokens=1_024)
            costs.append(time.perf_counter_ns() - before)
    costs.sort()
    assert costs[len(costs) // 2] < 200_000  # generous: some 4 µs on an idle machine, and others share this one
