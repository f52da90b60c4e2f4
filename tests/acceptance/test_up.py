"""`pilothouse up`, started as a person starts it: it answers, comes back, keeps history, and leaves nothing behind."""

import os
import signal
import time
from pathlib import Path

import pytest

from pilothouse.cli.brokers import EmbeddedBroker
from pilothouse.cli.stack_file import read_epoch
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
    """The second test goes on where the first one stopped."""
    return tmp_path_factory.mktemp("up")


def test_a_stack_answers_and_ctrl_c_ends_all_of_it(data_dir: Path) -> None:
    with running_stack(data_dir) as stack:
        assert stack.query("SELECT 1 AS one") == [{"one": 1}]
        note(stack, "before-the-stop")
        pids = stack.pids
        assert sorted(pids) == sorted(PARTS)
        began = time.monotonic()
        assert stack.stop(signal.SIGINT) == 0
        assert time.monotonic() - began < 20
    assert all(gone(pid) for pid in pids.values())
    assert not (data_dir / "stack.json").exists()


def test_history_is_kept_whatever_dies_comes_back_and_a_killed_supervisor_leaves_nothing(data_dir: Path) -> None:
    memory = read_epoch(data_dir)
    with running_stack(data_dir) as stack:
        assert memory.number == 0 or "before-the-stop" in stack.cli("runs").stdout
        epoch = stack.told["log_epoch"]
        assert epoch == memory.number + 1, "the embedded log is a new one"
        _kill_and_await(stack, ("archive", "governor", "archiver"))
        note(stack, "after-the-workers")
        _kill_and_await(stack, ("broker",))
        assert stack.told["log_epoch"] == epoch + 1, "an empty log is a new epoch"
        note(stack, "after-the-broker")
        assert "after-the-workers" in stack.cli("runs").stdout
        pids = stack.pids
        stack.process.kill()
        stack.process.wait()
        stack.until(lambda: all(gone(pid) for pid in pids.values()), "no orphan outlives a killed supervisor", 10)
    assert "`pilothouse up`" in cli("runs", data_dir=data_dir).stderr


def _kill_and_await(stack: RunningStack, parts: tuple[str, ...]) -> None:
    """Whatever was killed is replaced; what lives on a broker goes with it, and nothing else."""
    before = stack.pids
    for part in parts:
        os.kill(before[part], signal.SIGKILL)
    for part in parts:
        stack.until_printed("the embedded broker is back" if part == "broker" else f"the {part} is back")
    after = stack.pids
    replaced = {part for part in PARTS if after[part] != before[part]}
    assert replaced == ({"broker", "governor", "archiver"} if "broker" in parts else set(parts))


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
    with running_stack(tmp_path, "--kafka-home", str(kafka_launcher)) as stack:
        note(stack, "in-a-kept-log")
        os.kill(stack.pids["broker"], signal.SIGKILL)
        stack.until_printed("Apache Kafka is back")
        note(stack, "after-the-kill")
        assert stack.told["log_epoch"] == 1
        assert "in-a-kept-log" in stack.cli("runs").stdout
        assert stack.stop(signal.SIGTERM) == 0
