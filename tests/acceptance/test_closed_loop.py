"""`pilothouse demo` in a small setting, as a person runs it: the loop closes, and everybody can see that it did.

The demo's own verdict is not taken on trust: what it claims is asked again here, of the archive, in three ways. Its
stack stays up, and every query command answers about real runs on it.
"""

import json
import math
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pilothouse.cli.demo.verdict import TOLERANCE
from pilothouse.cli.topic_reading import latest_records
from pilothouse.events.codec import decode, to_json
from pilothouse.events.envelope import Fact
from pilothouse.events.topics import TELEMETRY
from pilothouse.producers.delivery.connection import connected_producer
from pilothouse.settings import load_settings
from pilothouse.storage.connect import connect
from pilothouse.storage.history import read_decisions, read_log
from pilothouse.stream_processors.replay import replay
from pilothouse.tests.replay.history import on_control_topic
from pilothouse.tests.stack_fixture import CLI, cli, environ, running_stack, typed

SMALL = ("--ranks", "2", "--steps", "160", "--width", "48", "--layers", "1", "--json")
RANKS = [0, 1]
SECONDS = 300.0
"""Eighty are enough on two idle cores; CI's are shared."""
ALL_THREE, GOVERNED = "three runs, embedded broker", "the governed run, Apache Kafka"
all_three = pytest.mark.parametrize("demo", [ALL_THREE], indirect=True)
on_kafka = pytest.mark.parametrize("demo", [GOVERNED], indirect=True)


@dataclass(frozen=True)
class Shown:
    """What a demo said, and where its stack, still up, keeps everything."""

    said: dict[str, Any]
    progress: str
    data_dir: Path
    stop: Callable[[], None]
    """Ends the demo, and its stack with it."""

    @property
    def live(self) -> str:
        """What a person saw while it ran."""
        return self.progress.partition("\nTimeline of ")[0]

    @property
    def report(self) -> str:
        """What a person read at the end."""
        return self.progress.partition("\nTimeline of ")[2]

    @property
    def losses(self) -> dict[str, float]:
        return {row["run"]: float(row["validation_loss"]) for row in self.said["runs"]}

    @property
    def governed(self) -> str:
        return str(next(row["run_id"] for row in self.said["runs"] if row["run"] == "governed"))

    @property
    def applied(self) -> list[dict[str, Any]]:
        """The governed run's interventions that its ranks carried out."""
        return [row for row in self.said["interventions"] if row["applied_steps"]]

    def query(self, sql: str) -> list[dict[str, Any]]:
        return self.ask("sql", sql)

    def ask(self, *words: str) -> list[dict[str, Any]]:
        """The answer of a query command, for programs: each line one object of strict JSON."""
        answer = typed(*words, "--json", data_dir=self.data_dir)
        assert answer.returncode == 0, answer.stderr
        return [json.loads(line, parse_constant=pytest.fail) for line in answer.stdout.splitlines()]


@pytest.fixture(scope="module", params=[ALL_THREE, GOVERNED])
def demo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    options = ["--keep-stack", "--data-dir", str(data_dir := tmp_path_factory.mktemp("demo"))]
    if request.param == GOVERNED:
        options += ["--governed-only", "--kafka-home", str(request.getfixturevalue("kafka_home"))]
    printed, progress = data_dir / "demo.out", data_dir / "demo.err"
    with printed.open("wb") as output, progress.open("wb") as errors:
        process = subprocess.Popen(
            [*CLI, "demo", *SMALL, *options], env=environ(data_dir), stdout=output, stderr=errors
        )

    def stop() -> None:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, progress.read_text()
        assert not (data_dir / "stack.json").exists()

    try:
        yield Shown(_verdict(process, printed, progress), progress.read_text(), data_dir, stop)
        stop()
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


@all_three
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


@all_three
def test_what_was_only_observed_was_not_touched(demo: Shown) -> None:
    touched = demo.query("SELECT DISTINCT run_id FROM receipts")
    assert [row["run_id"] for row in touched] == [demo.governed]
    proposed = demo.query("SELECT DISTINCT run_id FROM interventions")
    assert {row["run_id"].rpartition("-")[2] for row in proposed} == {"governed", "ungoverned"}


def test_replaying_the_archived_log_gives_the_decisions_of_the_archive_and_of_the_control_topic(demo: Shown) -> None:
    settings = load_settings(environ(demo.data_dir))
    client = connect(settings)
    for row in demo.said["runs"]:
        decided = [to_json(decision) for decision in read_decisions(client, row["run_id"])]
        again = [to_json(decision) for decision in replay(row["run_id"], read_log(client, row["run_id"]))]
        assert again == decided
        assert len(decided) > 10
        if row["run_id"] == demo.governed:
            assert again == [to_json(decision) for decision in on_control_topic(settings, demo.governed)]


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


CHANGE = re.compile(
    r"^  step +-?\d+  phase changed +\w+ → (?P<phase>\w+) \(.*?(?:loss (?P<loss>\S+))?\)$", re.MULTILINE
)
STANDING = re.compile(
    r"^  step +-?\d+  (?P<phase>[A-Z]\w+) +margin +(?P<margin>[^–\s]+)  loss (?P<loss>[^–\s]+)$", re.MULTILINE
)


@all_three
def test_a_person_sees_phase_margin_loss_and_interventions_while_it_runs(demo: Shown) -> None:
    """How it stands is sampled; a phase that lasted shorter than a sample has a line of its own."""
    standing = [found.groupdict() for found in STANDING.finditer(demo.live)]
    assert any(0 < float(told["margin"]) <= 1 and math.isfinite(float(told["loss"])) for told in standing)
    before, governed = demo.live.split(f"  {demo.governed}\n")
    _, ungoverned = before.split(f"  {demo.governed.removesuffix('governed')}ungoverned\n")
    changes = [found.groupdict() for found in CHANGE.finditer(ungoverned)]
    assert {"Warmup", "Normal", "Diverged", "Ended"} <= {told["phase"] for told in changes}
    assert any(told["phase"] == "Diverged" and told["loss"] == "NaN" for told in changes)
    for row in demo.applied:
        name, step = row["intervention_id"][:8], row["applied_steps"][0]
        told_as = ("intervention proposed", "intervention issued", "intervention receipt", "intervention verified")
        places = [re.search(rf"{kind} +{name}", governed) for kind in told_as]
        assert all(places), (name, governed)
        assert re.search(rf"^  step +{step}  intervention receipt +{name} applied", governed, re.MULTILINE)


def test_the_report_proves_the_same_step_and_says_what_it_cost(demo: Shown) -> None:
    proof = demo.report.partition("\nProof: ")[2].partition("\nWhat it cost")[0].splitlines()
    for row in demo.applied:
        [line] = [line for line in proof if line.startswith(row["intervention_id"][:8])]
        assert f"step {row['applied_steps'][0]} by ranks 0, 1  " in line
        assert "  2 of 2  " in line
    cost = demo.report.partition("\nWhat it cost\n")[2].partition("\n\n")[0].splitlines()
    for run in demo.said["runs"]:
        [cells] = [line.split() for line in cost if line.startswith(f"{run['run']} ")]
        assert [cells[1], cells[5], cells[6]] == [run["outcome"], str(run["steps_lost"]), str(run["interventions"])]
    assert all((run["steps_lost"] > 0) == (run["run"] == "governed") for run in demo.said["runs"])


def test_the_printed_sql_gives_the_facts_of_the_verdict_when_typed_again(demo: Shown) -> None:
    seen: dict[str, list[str]] = {}
    for finding in demo.said["findings"]:
        assert f"  ✓ {finding['promise']}  ({finding['seen']})" in demo.report
        seen.setdefault(finding["promise"], []).append(finding["seen"])
    incidents, printed = _typed_again(demo, "FROM incidents")
    assert [f"{row['reason']} from step {row['onset_step']}: rollback" for row in incidents] == seen[
        "governed: an incident was answered"
    ]
    assert sum(row["steps_lost"] for row in incidents) == demo.said["runs"][-1]["steps_lost"]
    assert [line.split() for line in printed[1:]] == [[str(value) for value in row.values()] for row in incidents]
    interventions, _ = _typed_again(demo, "FROM interventions")
    assert [f"step {row['applied_steps'][0]}: ranks 0, 1" for row in interventions] == seen[
        "governed: rollback at the same step on all ranks"
    ]
    assert {row["same_step"] for row in interventions} == {1}


def _typed_again(demo: Shown, about: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The answer to a question that the report shows, asked again word for word, and the lines that it printed."""
    [typed_line] = [line for line in demo.report.splitlines() if line.startswith("$ ") and about in line]
    printed = demo.report.partition(f"{typed_line}\n")[2].partition("\n\n")[0].splitlines()
    return demo.ask(*shlex.split(typed_line.removeprefix("$ pilothouse "))), printed


@pytest.fixture(scope="module")
def dead_letter(demo: Shown) -> bytes:
    """Bytes that are no event of ours, sent to the telemetry topic, and given up by the governor."""
    junk = b"\xff not an event"
    producer, _ = connected_producer(load_settings(environ(demo.data_dir)).kafka, seconds=10.0)
    producer.send(TELEMETRY.name, junk, partition=0).get(timeout=10)
    producer.close()
    deadline = time.monotonic() + 30
    while not demo.ask("deadletter", "list"):
        assert time.monotonic() < deadline, "no dead letter"
    return junk


QUERIES = {
    "runs": (("runs",), '"phase": "Ended"'),
    "show": (("show", "{governed}"), '"steps_lost": '),
    "events": (("events", "{governed}", "--limit", "10000"), '"NaN"'),
    "interventions": (("interventions", "{governed}"), '"verification": "recovered"'),
    "sql": (("sql", "SELECT * FROM steps WHERE isNaN(value) OR isInfinite(value) LIMIT 9"), '"value": "NaN"'),
    "topics list": (("topics", "list"), '"records": 1'),
    "deadletter list": (("deadletter", "list"), '"body_base64": "/yBub3QgYW4gZXZlbnQ="'),
}


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_answers_programs_in_strict_json(demo: Shown, dead_letter: bytes, query: str) -> None:
    words, holds = QUERIES[query]
    rows = demo.ask(*(word.format(governed=demo.governed) for word in words))
    assert rows
    assert any(holds in json.dumps(row) for row in rows)


@on_kafka
def test_a_real_kafka_keeps_its_log_over_a_restart_and_a_kill(demo: Shown, kafka_home: Path) -> None:
    """The last one: it stops the demo."""
    before = in_log(demo)
    assert {("run_started", demo.governed), ("run_ended", demo.governed)} <= {(kind, run) for kind, run, _ in before}
    demo.stop()
    with running_stack(demo.data_dir, "--kafka-home", str(kafka_home)) as stack:
        assert in_log(demo) >= before, "the topic itself has kept it"
        assert "Ended" in stack.cli("show", demo.governed).stdout
        os.kill(stack.pids["broker"], signal.SIGKILL)
        stack.until_printed("Apache Kafka is back")
        stack.note("after-the-kill")
        after = in_log(demo)
        assert after > before
        assert ("annotated", "after-the-kill") in {(kind, run) for kind, run, _ in after}
        assert stack.told["log_epoch"] == 1


def in_log(demo: Shown) -> set[tuple[str, str, str]]:
    """What the telemetry topic holds of runs, asked of the broker: kind, run and id of each fact."""
    told = json.loads((demo.data_dir / "stack.json").read_text())
    records = latest_records(told["kafka"], TELEMETRY, told["partitions"], limit=10_000)
    facts = [decode(record.headers, record.value) for record in records]
    return {(fact.kind, fact.run_id, fact.event_id) for fact in facts if isinstance(fact, Fact)}


@pytest.mark.chaos_long
def test_without_faults_the_demo_ends_well_and_leaves_its_data_where_it_was_told_to(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    answer = cli("demo", "--no-faults", *SMALL, "--data-dir", str(kept), data_dir=tmp_path, timeout=SECONDS)
    assert answer.returncode == 0, answer.stderr
    said = json.loads(answer.stdout)
    assert [(run["run"], run["interventions"], run["steps_lost"]) for run in said["runs"]] == [("quiet", 0, 0)]
    assert said["interventions"] == []
    assert {row["what"].split()[0] for row in said["timeline"]} == {"phase"}
    assert "mode enforce" in answer.stderr
    assert "intervention " not in answer.stderr.partition("\nTimeline of ")[0]
    assert (kept / "archive").exists()
    assert not (kept / "stack.json").exists(), "nothing runs on"
