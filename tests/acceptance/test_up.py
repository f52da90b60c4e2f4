"""`pilothouse up`, started as a person starts it: it answers, comes back, keeps history, and leaves nothing behind."""

import os
import signal
import time
from pathlib import Path

import pytest

from pilothouse.cli.brokers import EmbeddedBroker
from pilothouse.events.commands import RunAnnotated
from pilothouse.producers.kafka import send_fact
from pilothouse.settings import load_settings
from pilothouse.tests.stack_fixture import RunningStack, cli, running_stack

PARTS = ("broker", "archive", "governor", "archiver")


def note(stack: RunningStack, run_id: str) -> None:
    """Tell the log something, and wait until it is history."""
    fact = RunAnnotated(
        at=time.time_ns() // 1_000, run_id=run_id, writer_id=f"note-{run_id}", seq=1, who="me", text="kept?"
    )
    stack.until(lambda: _sent(stack, fact), "the broker takes a fact")
    stack.until(lambda: run_id in stack.cli("runs").stdout, f"run {run_id} is archived")


def _sent(stack: RunningStack, fact: RunAnnotated) -> bool:
    send_fact(load_settings(stack.environ), fact)
    return True


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The second test goes on where the first one's supervisor was killed."""
    return tmp_path_factory.mktemp("up")


def test_a_stack_answers_keeps_history_and_leaves_nothing_behind(data_dir: Path) -> None:
    with running_stack(data_dir) as stack:
        assert stack.query("SELECT 1 AS one") == [{"one": 1}]
        assert stack.told["log_epoch"] == 1
        note(stack, "before-the-stop")
        pids = stack.pids
        assert sorted(pids) == sorted(PARTS)
        began = time.monotonic()
        assert stack.stop(signal.SIGINT) == 0
        assert time.monotonic() - began < 20
        assert all(gone(pid) for pid in pids.values())
        assert not (data_dir / "stack.json").exists()
    with running_stack(data_dir) as stack:
        assert "before-the-stop" in stack.cli("runs").stdout
        assert stack.told["log_epoch"] == 2, "the embedded log is a new one"
        pids = stack.pids
        stack.process.kill()
        stack.process.wait()
        stack.until(lambda: all(gone(pid) for pid in pids.values()), "no orphan outlives a killed supervisor", 10)
    assert "`pilothouse up`" in cli("runs", data_dir=data_dir).stderr


def test_whatever_dies_comes_back(data_dir: Path) -> None:
    with running_stack(data_dir) as stack:
        epoch = stack.told["log_epoch"]
        for part in ("archive", "governor", "archiver"):
            before = stack.pids
            os.kill(before[part], signal.SIGKILL)
            stack.until_printed(f"the {part} is back")
            after = stack.pids
            assert after[part] != before[part]
            assert {name: pid for name, pid in after.items() if name != part} == {
                name: pid for name, pid in before.items() if name != part
            }
            note(stack, f"after-{part}")
        before = stack.pids
        os.kill(before["broker"], signal.SIGKILL)
        stack.until_printed("the embedded broker is back")
        stack.until(lambda: stack.told["log_epoch"] == epoch + 1, "an empty log is a new epoch")
        after = stack.pids
        assert after["archive"] == before["archive"]
        assert all(after[part] != before[part] for part in ("broker", "governor", "archiver"))
        note(stack, "after-broker")
        runs = stack.cli("runs").stdout
        assert all(f"after-{part}" in runs for part in PARTS)
        assert stack.stop(signal.SIGTERM) == 0


def test_a_second_up_on_the_same_directory_is_told_who_has_it(stack: RunningStack) -> None:
    answer = cli("up", "--kafka-port", "0", "--http-port", "0", data_dir=stack.data_dir)
    assert answer.returncode == 2
    [line] = answer.stderr.splitlines()
    assert f"already runs on {stack.data_dir} (process {stack.process.pid})" in line
    assert stack.query("SELECT 1 AS one") == [{"one": 1}], "the first one is as it was"


@pytest.mark.parametrize("option", ["--kafka-port", "--http-port"])
def test_a_taken_port_is_one_line_that_names_the_option(
    option: str, embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    ports = {"--kafka-port": "0", "--http-port": "0"} | {option: str(embedded_broker.port)}
    answer = cli("up", *[word for pair in ports.items() for word in pair], data_dir=tmp_path)
    assert answer.returncode == 2
    [line] = answer.stderr.splitlines()
    assert f"port {embedded_broker.port} is taken" in line
    assert option in line


@pytest.mark.parametrize(
    "options, said",
    [
        (("--policy", "/nowhere.yaml"), "/nowhere.yaml"),
        (("--kafka", "127.0.0.1:9"), "no broker answers at 127.0.0.1:9"),
        (("--kafka-home", "/"), "holds no Apache Kafka"),
        (("--kafka-home", "/", "--kafka", "127.0.0.1:9"), "give one of them"),
    ],
)
def test_what_cannot_be_started_is_one_line(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    answer = cli("up", "--kafka-port", "0", "--http-port", "0", *options, data_dir=tmp_path)
    assert answer.returncode == 2
    [line] = answer.stderr.splitlines()
    assert said in line
    assert not (tmp_path / "stack.json").exists()


def test_a_real_kafka_keeps_its_log_and_its_epoch(kafka_launcher: Path, tmp_path: Path) -> None:
    options = ("--kafka-home", str(kafka_launcher))
    with running_stack(tmp_path, *options) as stack:
        note(stack, "in-a-kept-log")
        os.kill(stack.pids["broker"], signal.SIGKILL)
        stack.until_printed("Apache Kafka is back")
        assert stack.told["log_epoch"] == 1
        note(stack, "after-the-kill")
    with running_stack(tmp_path, *options) as stack:
        assert stack.told["log_epoch"] == 1
        runs = stack.cli("runs").stdout
        assert "in-a-kept-log" in runs
        assert "after-the-kill" in runs
