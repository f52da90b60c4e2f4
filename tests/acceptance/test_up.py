"""`pilothouse up`, started as a person starts it: it answers, comes back, keeps history, and leaves nothing behind."""

import json
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from pilothouse.cli.topic_reading import latest_records
from pilothouse.events.codec import decode
from pilothouse.events.commands import RunAnnotated
from pilothouse.events.topics import TELEMETRY
from pilothouse.producers.kafka import send_fact
from pilothouse.settings import load_settings
from pilothouse.tests.stack_fixture import ANY_PORTS, RunningStack, refused, running_stack, typed

PARTS = ("broker", "archive", "governor", "archiver")


def note(stack: RunningStack, run_id: str) -> None:
    """Tell the log something, and wait until it is history."""
    fact = RunAnnotated(
        at=time.time_ns() // 1_000, run_id=run_id, writer_id=f"note-{run_id}", seq=1, who="me", text="kept?"
    )
    stack.until(lambda: _sent(stack, fact), "the broker takes a fact")
    stack.until(lambda: stack.archived(run_id, fact.kind), f"run {run_id} is archived")


def _sent(stack: RunningStack, fact: RunAnnotated) -> bool:
    send_fact(load_settings(stack.environ), fact)
    return True


def assert_remembers(stack: RunningStack, run_id: str) -> None:
    """The history of a run, as each command tells it."""
    assert run_id in stack.cli("runs").stdout
    [event] = [json.loads(line) for line in stack.cli("events", run_id, "--json").stdout.splitlines()]
    assert (event["kind"], event["body"]["text"]) == ("annotated", "kept?")
    counted = stack.query(f"SELECT count() AS events FROM events WHERE run_id = '{run_id}'")
    assert counted == [{"events": 1}]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@dataclass(frozen=True)
class Stopped:
    """A stack that was up, was told something, and was stopped by Ctrl-C."""

    data_dir: Path
    pids: dict[str, int]
    epoch: int
    status: int
    seconds: float


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    with running_stack(data_dir := tmp_path_factory.mktemp("up")) as stack:
        note(stack, "before-the-stop")
        pids, epoch = stack.pids, stack.told["log_epoch"]
        began = time.monotonic()
        status = stack.stop(signal.SIGINT)
    return Stopped(data_dir, pids, epoch, status, time.monotonic() - began)


def test_ctrl_c_ends_all_of_a_stack_well(stopped: Stopped) -> None:
    assert sorted(stopped.pids) == sorted(PARTS)
    assert all(gone(pid) for pid in stopped.pids.values())
    assert stopped.status == 0
    assert stopped.seconds < 20
    assert not (stopped.data_dir / "stack.json").exists()


def test_history_is_kept_whatever_dies_comes_back_and_a_killed_supervisor_leaves_nothing(stopped: Stopped) -> None:
    with running_stack(stopped.data_dir) as stack:
        assert_remembers(stack, "before-the-stop")
        epoch = stack.told["log_epoch"]
        assert epoch == stopped.epoch + 1, "the embedded log is a new one"
        _kill_and_await(stack, ("archive", "governor", "archiver"))
        note(stack, "after-the-workers")
        _kill_and_await(stack, ("broker",))
        assert stack.told["log_epoch"] == epoch + 1, "an empty log is a new epoch"
        note(stack, "after-the-broker")
        assert_remembers(stack, "before-the-stop")
        assert_remembers(stack, "after-the-workers")
        pids = stack.pids
        stack.process.kill()
        stack.process.wait()
        stack.until(lambda: all(gone(pid) for pid in pids.values()), "no orphan outlives a killed supervisor", 10)
    assert "`pilothouse up`" in typed("runs", data_dir=stopped.data_dir).stderr


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


@pytest.mark.parametrize("option", ["--kafka-port", "--http-port"])
def test_a_taken_port_is_one_line_that_names_the_option(option: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(typed("up", *ANY_PORTS, option, str(port), data_dir=tmp_path))
    assert f"port {port} is taken" in line
    assert option in line


@pytest.mark.parametrize(
    "options, said",
    [
        (("--kafka-port", "99999"), "--kafka-port"),
        (("--http-port", "65536"), "--http-port"),
        (("--kafka-port", "-1"), "--kafka-port"),
        (("--policy", "/nowhere.yaml"), "/nowhere.yaml"),
        (("--policy", "{folder}"), "Is a directory"),
        (("--policy", "{not_text}"), "{not_text} cannot be read: 'utf-8' codec"),
        (("--data-dir", "{not_text}"), "choose another data directory"),
        (("--data-dir", "{not_text}/below"), "choose another data directory"),
        (("--kafka", "127.0.0.1:9"), "no broker answers at 127.0.0.1:9"),
        (("--kafka", "nonsense"), "'nonsense' is no address of a Kafka: write HOST:PORT"),
        (("--kafka-home", "/"), "holds no Apache Kafka"),
        (("--kafka-home", "/", "--kafka", "127.0.0.1:9"), "give one of them"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_started_is_one_line(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    (not_text := tmp_path / "policy.yaml").write_bytes(b"\xff\xfe")
    named = {"folder": str(tmp_path), "not_text": str(not_text)}
    line = refused(typed("up", *ANY_PORTS, *(word.format(**named) for word in options), data_dir=tmp_path / "data"))
    assert said.format(**named) in line
    assert not (tmp_path / "data" / "stack.json").exists()


def test_a_real_kafka_keeps_its_log_and_its_epoch(kafka_home: Path, tmp_path: Path) -> None:
    options = ("--kafka-home", str(kafka_home))
    with running_stack(tmp_path, *options) as stack:
        note(stack, "in-a-kept-log")
        assert stack.stop(signal.SIGTERM) == 0
    with running_stack(tmp_path, *options) as stack:
        assert_remembers(stack, "in-a-kept-log")
        assert texts_in_log(stack) == {"in-a-kept-log": "kept?"}, "the topic itself has kept it"
        os.kill(stack.pids["broker"], signal.SIGKILL)
        stack.until_printed("Apache Kafka is back")
        note(stack, "after-the-kill")
        assert set(texts_in_log(stack)) == {"in-a-kept-log", "after-the-kill"}
        assert stack.told["log_epoch"] == 1


def texts_in_log(stack: RunningStack) -> dict[str, str]:
    """What the telemetry topic holds, asked of the broker: the text of each run's note."""
    records = latest_records(stack.told["kafka"], TELEMETRY, stack.told["partitions"], limit=10_000)
    facts = [decode(record.headers, record.value) for record in records]
    return {fact.run_id: fact.text for fact in facts if isinstance(fact, RunAnnotated)}
