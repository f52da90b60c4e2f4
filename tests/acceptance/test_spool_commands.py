"""`pilothouse spool`, as a person types it, with real trainers that died and a real broker."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pilothouse.cli.brokers import LocalBroker, free_port
from pilothouse.tests.broker_fixture import PARTITIONS
from pilothouse.tests.log_reader import read_run
from pilothouse.tests.stack_fixture import cli, refused, typed
from pilothouse.tests.training_script import Script, steps_of

DEAD = """
import os, time
import pilothouse
run = pilothouse.start_run("dead")
for step in range(100):
    run.log(step, loss=1.0)
while run.counts().spooled < run.counts().accepted:
    time.sleep(0.02)
print("spooled", flush=True)
"""


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Script:
    """A trainer that ended by `os._exit` while its broker was away."""
    script = Script(f"127.0.0.1:{free_port()}", tmp_path_factory.mktemp("dead"))
    assert script.run(DEAD + "os._exit(3)").returncode == 3
    return script


@pytest.fixture
def home(dead: Script, tmp_path: Path) -> Path:
    """A data directory with a copy of what it left."""
    shutil.copytree(Path(dead.environ["PILOTHOUSE_DATA_DIR"]) / "spool", tmp_path / "spool")
    return tmp_path


@contextmanager
def living(home: Path) -> Iterator["subprocess.Popen[str]"]:
    """A trainer that lives, and spools into this directory."""
    script = Script(f"127.0.0.1:{free_port()}", home)
    script.environ["PILOTHOUSE_RUN_ID"] = "the-living"
    with script.start(DEAD + "time.sleep(60)") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "spooled\n"
        yield process
        process.kill()


@pytest.fixture(scope="module")
def shared(dead: Script, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory of a dead and a living one. Only to be looked at."""
    home = tmp_path_factory.mktemp("shared")
    shutil.copytree(Path(dead.environ["PILOTHOUSE_DATA_DIR"]) / "spool", home / "spool")
    with living(home):
        yield home


def rows(answer: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    assert answer.returncode == 0, answer.stderr
    return [json.loads(line) for line in answer.stdout.splitlines()]


def test_what_waits_is_listed_for_people_and_for_programs(dead: Script, shared: Path) -> None:
    one, two = rows(typed("spool", "list", "--json", data_dir=shared))
    assert (one["run_id"], one["calls"], one["steps"], one["owner"]) == (dead.run_id, 102, [0, 99], "")
    assert two["run_id"] == "the-living"
    heading, first, second = typed("spool", "list", data_dir=shared).stdout.splitlines()
    assert heading.split() == ["run", "writer", "rank", "records", "calls", "bytes", "steps", "time", "process"]
    assert dead.run_id in first
    assert "0–99" in first
    assert first.split()[-1] == "dead"
    assert f"lives ({two['owner']})" in second


def test_push_sends_what_the_dead_left_and_passes_the_living_over(
    dead: Script, home: Path, embedded_broker: LocalBroker
) -> None:
    address = {"PILOTHOUSE_KAFKA": embedded_broker.address}
    with living(home):
        answer = cli("spool", "push", "--json", data_dir=home, more=address)
        sent, passed = rows(answer)
        assert answer.stderr == ""
        assert (sent["run_id"], sent["result"], sent["sent"], sent["lost"]) == (dead.run_id, "sent", 102, 0)
        assert (passed["run_id"], passed["result"]) == ("the-living", "passed over: its process lives")
        assert [row["run_id"] for row in rows(typed("spool", "list", "--json", data_dir=home))] == ["the-living"]
    facts = read_run(embedded_broker.address, dead.run_id, PARTITIONS, until=lambda fact: 99 in steps_of([fact]))
    assert steps_of(facts) == list(range(100))
    assert "sent" in typed("spool", "push", "the-living", data_dir=home, more=address).stdout
    assert typed("spool", "push", data_dir=home, more=address).stdout == "the spool is empty\n"
    assert typed("spool", "list", data_dir=home).stdout == "the spool is empty\n"


def test_drop_deletes_for_good_and_only_with_yes(dead: Script, home: Path) -> None:
    line = refused(typed("spool", "drop", dead.run_id, data_dir=home))
    assert "this would delete 102 calls of 1 writers for good: say so with --yes" in line
    writer = rows(typed("spool", "list", "--json", data_dir=home))[0]["writer_id"]
    (dropped,) = rows(typed("spool", "drop", writer[:8], "--yes", "--json", data_dir=home))
    assert (dropped["result"], dropped["lost"]) == ("dropped", 102)
    assert list((home / "spool").iterdir()) == []


@pytest.mark.parametrize(
    "command, said",
    [
        (("push", "nobody"), "nothing in the spool is called 'nobody'; there is: run-"),
        (("drop", "nobody", "--yes"), "nothing in the spool is called 'nobody'; there is: run-"),
        (("drop",), "Missing argument 'which' (`pilothouse spool drop --help`"),
        (("burn",), "No such command 'burn'"),
        (("push", "the-living"), "lives ("),
        (("drop", "the-living", "--yes"), "wait for its end, or end it"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, tuple) else "",
)
def test_a_mistake_is_one_line_that_says_what_to_do(command: tuple[str, ...], said: str, shared: Path) -> None:
    assert said in refused(typed("spool", *command, data_dir=shared))


def test_without_a_broker_push_says_so_in_one_line_and_keeps_everything(home: Path) -> None:
    before = rows(typed("spool", "list", "--json", data_dir=home))
    line = refused(typed("spool", "push", data_dir=home, more={"PILOTHOUSE_KAFKA": f"127.0.0.1:{free_port()}"}))
    assert "no Kafka broker listens at" in line
    assert "push it again" in line
    assert rows(typed("spool", "list", "--json", data_dir=home)) == before
