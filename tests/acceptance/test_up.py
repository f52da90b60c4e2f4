"""`pilothouse up`, started as a person starts it: it answers, comes back, keeps history, and leaves nothing behind."""

import json
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from pilothouse.tests.stack_fixture import ANY_PORTS, RunningStack, refused, running_stack, typed

PARTS = ("broker", "archive", "governor", "archiver", "control_room")


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
    with running_stack(data_dir := tmp_path_factory.mktemp("up"), "--page-port", "0") as stack:
        stack.note("before-the-stop")
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
        stack.note("after-the-workers")
        _kill_and_await(stack, ("broker",))
        assert stack.told["log_epoch"] == epoch + 1, "an empty log is a new epoch"
        stack.note("after-the-broker")
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
    replaced = {part for part in before if after[part] != before[part]}
    assert replaced == ({"broker", "governor", "archiver"} if "broker" in parts else set(parts))


@pytest.mark.parametrize("option", ["--kafka-port", "--http-port", "--page-port"])
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
        (("--policy", "/nowhere.yaml"), "/nowhere.yaml cannot be read: No such file"),
        (("--policy", "{empty}"), "the folder {empty} has no policies"),
        (("--policy", "{folder}"), "the policies cannot be used: {not_text} cannot be read: a policy is written in"),
        (
            ("--policy", "{not_text}"),
            "{not_text} cannot be read: a policy is written in UTF-8; line 1 has the byte 0xff",
        ),
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
    (empty := tmp_path / "empty").mkdir()
    named = {"folder": str(tmp_path), "not_text": str(not_text), "empty": str(empty)}
    line = refused(typed("up", *ANY_PORTS, *(word.format(**named) for word in options), data_dir=tmp_path / "data"))
    assert said.format(**named) in line
    assert not (tmp_path / "data" / "stack.json").exists()


@pytest.mark.parametrize(
    "setting, said",
    [
        ("CLICKHOUSE_URL=https://ph:secret@ch.example:8443/pilothouse", "runs an archive of its own: unset it; or run"),
        ("ARCHIVE_CERTIFICATE=cert.pem", "speaks no TLS"),
        ("ARCHIVE_HOST=192.0.2.7", "needs 127.0.0.1 or 0.0.0.0"),
    ],
)
def test_an_archive_that_it_could_not_use_is_refused_in_one_line(setting: str, said: str, tmp_path: Path) -> None:
    name, _, value = setting.partition("=")
    line = refused(typed("up", *ANY_PORTS, data_dir=tmp_path, more={f"PILOTHOUSE_{name}": value}))
    assert said in line
    assert "secret" not in line
    assert not list(tmp_path.glob("logs/*")), "nothing was begun"
