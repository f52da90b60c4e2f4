"""The brokers start, answer, keep or lose their log, and die with their parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pilothouse.cli.brokers import EmbeddedBroker, LocalBroker, free_port
from pilothouse.cli.topic_admin import cluster_id, create_topics, describe_topics
from pilothouse.events.errors import BrokerUnavailable, UserMistake
from pilothouse.events.topics import TOPICS
from pilothouse.tests.broker_fixture import PARTITIONS, NewBroker


def test_the_topics_are_as_declared(broker: LocalBroker) -> None:
    states = describe_topics(broker.address, PARTITIONS, 1)
    assert [state.name for state in states] == [topic.name for topic in TOPICS]
    assert [state.partitions for state in states] == [PARTITIONS] * len(TOPICS)
    assert [state.retention_ms for state in states] == [topic.retention_ms for topic in TOPICS]
    assert [state.drift for state in states] == [()] * len(TOPICS)


def test_creating_again_changes_nothing_and_reports_another_partition_count(broker: LocalBroker) -> None:
    states = create_topics(broker.address, PARTITIONS + 3, 1)
    assert {state.drift for state in states} == {(f"partitions is {PARTITIONS}, declared {PARTITIONS + 3}",)}


def test_a_restart_after_sigkill_is_the_same_log_only_where_the_broker_keeps_it(new_broker: NewBroker) -> None:
    one = new_broker()
    before = one.cluster_id
    one.kill()
    one.start()
    assert cluster_id(one.address) == one.cluster_id
    assert (one.cluster_id == before) is one.keeps_log
    kept = [state.partitions for state in describe_topics(one.address, PARTITIONS, 1)]
    assert kept == [PARTITIONS if one.keeps_log else 0] * len(TOPICS)


def test_a_taken_port_is_one_clear_line(embedded_broker: LocalBroker, tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match=rf"port {embedded_broker.port} is taken.*--kafka-port"):
        EmbeddedBroker(tmp_path, embedded_broker.port).start()


def test_nobody_at_the_address_is_said_at_once() -> None:
    with pytest.raises(BrokerUnavailable, match="no broker answers at"):
        describe_topics(f"127.0.0.1:{free_port()}", PARTITIONS, 1)


def test_a_broker_dies_with_its_parent_even_when_that_was_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from pilothouse.cli.brokers import EmbeddedBroker\n"
        "broker = EmbeddedBroker(Path(sys.argv[1])); broker.start(); print(broker.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        orphan = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{orphan}").exists():
        if time.monotonic() > deadline:
            os.kill(orphan, signal.SIGKILL)
            pytest.fail("the broker outlived its parent")
        time.sleep(0.02)
