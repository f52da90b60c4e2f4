"""A script's own Kafka client is heard while ours, on the same broker's trouble, says one line."""

import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaProducer
from kafka.errors import KafkaError

import pilothouse
from pilothouse.producers.delivery.kafka import KafkaSender
from pilothouse.producers.steering.control import follow
from pilothouse.settings import Settings
from pilothouse.tests.outbox_bench import wait_until


@pytest.fixture
def no_kafka() -> Iterator[str]:
    """An address where whoever connects is hung up on."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            try:
                while True:
                    server.accept()[0].close()
            except OSError:
                return

        thread = threading.Thread(target=hang_up)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def test_our_clients_silence_is_no_other_clients(
    no_kafka: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(kafka=no_kafka, data_dir=tmp_path, close_seconds=0.1, resources_seconds=0)
    with caplog.at_level(logging.INFO, logger="kafka"), pilothouse.start_run("quiet", settings=settings) as run:
        follower = follow(no_kafka, run.identity.run_id, log_in_memory=False)
        wait_until(lambda: "commands cannot be heard" in caplog.text, seconds=30)
        follower.close()
        of_the_library = [record for record in caplog.records if record.name.split(".")[0] == "kafka"]
        assert [record.getMessage() for record in of_the_library if record.levelno >= logging.INFO] == []
        with pytest.raises(KafkaError):
            KafkaProducer(bootstrap_servers=no_kafka, bootstrap_timeout_ms=300, client_id="the-scripts-own")
    said = [record for record in caplog.records if record.name.startswith("kafka")]
    assert [record for record in said if record.levelno >= logging.WARNING]
    assert {str(record.threadName) for record in said} <= {"MainThread", "kafka-io-the-scripts-own"}


def test_an_address_that_can_be_none_is_said_in_one_line_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    sender = KafkaSender(f"127.0.0.1:{10**30}", "run")
    wait_until(lambda: not sender.poll() and sender.failures >= 2)
    assert sender.state == "away"
    (said,) = [record.getMessage() for record in caplog.records if record.name == "pilothouse"]
    assert "OverflowError" in said
