"""`pilothouse demo` in a small setting, as a person runs it: the loop closes, and everybody can see that it did.

The demo's own verdict is not taken on trust: what it claims is asked again here, of the archive, in three ways.
"""

import json
import math
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pilothouse.cli.demo.verdict import TOLERANCE
from pilothouse.events.codec import to_json
from pilothouse.settings import load_settings
from pilothouse.storage.connect import connect
from pilothouse.storage.history import read_decisions, read_log
from pilothouse.stream_processors.replay import replay
from pilothouse.tests.stack_fixture import CLI, cli, environ

SMALL = ("--ranks", "2", "--steps", "160", "--keep-stack", "--json")
RANKS = [0, 1]
SECONDS = 300.0
"""Eighty are enough on two idle cores; CI's are shared."""


@dataclass(frozen=True)
class Shown:
    """What a demo said, and where its stack, still up, keeps everything."""

    said: dict[str, Any]
    data_dir: Path

    @property
    def losses(self) -> dict[str, float]:
        return {row["run"]: float(row["validation_loss"]) for row in self.said["runs"]}

    @property
    def governed(self) -> str:
        return str(next(row["run_id"] for row in self.said["runs"] if row["run"] == "governed"))

    def query(self, sql: str) -> list[dict[str, Any]]:
        answer = cli("sql", "--json", sql, data_dir=self.data_dir)
        assert answer.returncode == 0, answer.stderr
        return [json.loads(line) for line in answer.stdout.splitlines()]


@pytest.fixture(scope="module", params=["embedded broker", "Apache Kafka"])
def demo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    options = ["--data-dir", str(data_dir := tmp_path_factory.mktemp("demo"))]
    if request.param == "Apache Kafka":
        options += ["--kafka-home", str(request.getfixturevalue("kafka_launcher"))]
    printed, progress = data_dir / "demo.out", data_dir / "demo.err"
    with printed.open("wb") as output, progress.open("wb") as errors:
        process = subprocess.Popen(
            [*CLI, "demo", *SMALL, *options], env=environ(data_dir), stdout=output, stderr=errors
        )
    try:
        yield Shown(_verdict(process, printed, progress), data_dir)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, progress.read_text()
        assert not (data_dir / "stack.json").exists()
    finally:
        process.kill()
        process.wait()


def _verdict(process: "subprocess.Popen[bytes]", printed: Path, progress: Path) -> dict[str, Any]:
    """The demo's JSON, once it has come to its end."""
    deadline = time.monotonic() + SECONDS
    while not printed.read_bytes().endswith(b"\n"):
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"the demo said nothing (status {process.poll()}):\n{progress.read_text()}")
        time.sleep(0.1)
    said: dict[str, Any] = json.loads(printed.read_text())
    assert said["closed"], progress.read_text()
    return said


def test_the_governed_run_is_saved_and_the_ungoverned_one_is_not(demo: Shown) -> None:
    losses = demo.losses
    assert math.isfinite(losses["fault-free"])
    assert losses["governed"] <= TOLERANCE * losses["fault-free"]
    assert not losses["ungoverned"] <= TOLERANCE * losses["fault-free"]
    asked = demo.query(
        "SELECT run_id, argMax(value, (log_epoch, log_offset)) AS loss FROM evals WHERE metric = 'loss' GROUP BY run_id"
    )
    assert {row["run_id"].rpartition("-")[2]: str(float(row["loss"])) for row in asked} == {
        name.rpartition("-")[2]: str(loss) for name, loss in losses.items()
    }


def test_every_rank_applied_each_intervention_at_the_same_step(demo: Shown) -> None:
    receipts = demo.query(
        "SELECT intervention_id, outcome, groupUniqArray(step) AS steps, arraySort(groupArray(rank)) AS ranks"
        " FROM receipts"
        f" WHERE run_id = '{demo.governed}' GROUP BY intervention_id, outcome"
    )
    assert len(receipts) >= 2
    for receipt in receipts:
        assert (receipt["outcome"], len(receipt["steps"]), receipt["ranks"]) == ("applied", 1, RANKS)


def test_what_was_only_observed_was_not_touched(demo: Shown) -> None:
    touched = demo.query("SELECT DISTINCT run_id FROM receipts")
    assert [row["run_id"] for row in touched] == [demo.governed]
    proposed = demo.query("SELECT DISTINCT run_id FROM interventions")
    assert {row["run_id"].rpartition("-")[2] for row in proposed} == {"governed", "ungoverned"}


def test_replaying_the_archived_log_gives_the_archived_decisions(demo: Shown) -> None:
    client = connect(load_settings(environ(demo.data_dir)))
    for row in demo.said["runs"]:
        decided = [to_json(decision) for decision in read_decisions(client, row["run_id"])]
        again = [to_json(decision) for decision in replay(row["run_id"], read_log(client, row["run_id"]))]
        assert again == decided
        assert len(decided) > 10


def test_sql_clickhouse_connect_and_curl_read_the_same_archive(demo: Shown) -> None:
    question = (
        f"SELECT count() AS steps, uniqExact(rank) AS ranks FROM pilothouse.steps WHERE run_id = '{demo.governed}'"
    )
    by_cli = demo.query(question)
    settings = load_settings(environ(demo.data_dir))
    by_driver = list(connect(settings).query(question).named_results())
    told = json.loads((demo.data_dir / "stack.json").read_text())
    address = told["reader_url"].rpartition("/")[0]
    by_curl = subprocess.run(
        [
            "curl",
            "--silent",
            "--fail-with-body",
            address,
            "-d",
            f"{question} FORMAT JSONEachRow",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert by_cli == by_driver
    assert {name: int(value) for name, value in json.loads(by_curl.stdout).items()} == by_cli[0]
    assert by_cli[0]["ranks"] == len(RANKS)
