"""A broker that answers and lets us do nothing: it wants a password, or TLS, or has no topic. Nothing is lost, and what
to do is said once. On a real Apache Kafka the same is in `test_slow_broker` and `test_kafka_security`.
"""

import gc
import logging
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import pilothouse
from pilothouse.events.telemetry import RunEnded, RunStarted, StepBatch
from pilothouse.events.topics import TELEMETRY
from pilothouse.producers.delivery import kafka as kafka_module
from pilothouse.producers.delivery.spool import read_folder
from pilothouse.producers.run import Run
from pilothouse.settings import Settings
from pilothouse.tests.kafka_stub import KafkaStub
from pilothouse.tests.outbox_bench import wait_until


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A refusal shows as a time-out; and who was refused is collected here."""
    monkeypatch.setattr(kafka_module, "BOOTSTRAP_SECONDS", 1.0)
    yield
    wait_until(lambda: all(thread.name != "pilothouse-connect" for thread in threading.enumerate()), 30)
    gc.collect()


def begin(stub: KafkaStub, folder: Path, close_seconds: float) -> Run:
    settings = Settings(
        kafka=stub.address,
        data_dir=folder,
        producer_flush_seconds=0.02,
        close_seconds=close_seconds,
        resources_seconds=0,
    )
    run = pilothouse.start_run("test", run_id="run-1", settings=settings)
    for step in range(100):
        run.log(step, loss=1.0)
    return run


@pytest.mark.parametrize("demands", ["a password", "TLS"])
def test_a_broker_that_demands_what_we_do_not_give_is_said_and_everything_waits_on_disk(
    demands: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if demands == "TLS" else None
    stub = KafkaStub(TELEMETRY.name, password="" if tls else "a secret", tls=tls)
    try:
        with caplog.at_level(logging.WARNING, logger="pilothouse"):
            run = begin(stub, tmp_path, close_seconds=1.5)
            wait_until(lambda: "cannot be reached" in caplog.text, 30)
            run.close()
    finally:
        stub.close()
    assert stub.refused > 0
    assert "without a password and without TLS" in caplog.text
    assert caplog.text.count("cannot be reached") == 1
    (folder,) = (tmp_path / "spool").glob("*/*")
    assert sum(record.entries for record in read_folder(folder)) == run.counts().accepted


def test_a_topic_that_is_missing_is_said_and_gets_everything_when_it_is_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stub = KafkaStub()
    try:
        with caplog.at_level(logging.WARNING, logger="pilothouse"):
            run = begin(stub, tmp_path, close_seconds=20.0)
            wait_until(lambda: "pilothouse topics create" in caplog.text, 30)
        assert run.counts().spooled > 0
        stub.topics.add(TELEMETRY.name)
        run.close()
        facts = stub.facts()
    finally:
        stub.close()
    assert isinstance(facts[0], RunStarted)
    assert isinstance(facts[-1], RunEnded)
    assert [step for fact in facts if isinstance(fact, StepBatch) for step in fact.steps] == list(range(100))
    assert [fact.seq for fact in facts] == list(range(1, len(facts) + 1))
    assert run.counts().accepted == run.counts().sent
