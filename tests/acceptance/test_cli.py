"""The commands that look and order, on a running stack and without one: as a person types them."""

import csv
import io
import json
import math
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from pilothouse.events.commands import RunAnnotated
from pilothouse.events.telemetry import EvalCompleted, RunStarted
from pilothouse.producers.kafka import send_fact
from pilothouse.settings import load_settings
from pilothouse.tests.stack_fixture import CLI, RunningStack, cli

ONE_LINE_MISTAKES = {
    "unknown run": (("show", "nobody"), "no run 'nobody'"),
    "bad SQL": (("sql", "SELEC 1"), "Syntax error"),
    "unknown table": (("sql", "SELECT * FROM nothing_here"), "nothing_here"),
    "an insert": (("sql", "INSERT INTO event_log (run_id) VALUES ('x')"), "READONLY"),
    "a file": (("sql", "SELECT * FROM file('/etc/passwd', 'LineAsString')"), "(code "),
    "unknown kind": (("events", "nobody", "--kind", "no_such_kind"), "phase_changed"),
    "stop of an unknown run": (("stop", "nobody", "--why", "test"), "no run 'nobody'"),
    "unknown worker": (("worker", "cook"), "governor, archiver, endpoint"),
}


@pytest.fixture(scope="module")
def run_id(stack: RunningStack) -> str:
    """A run that the archive knows."""
    name = "acceptance-cli-1"
    settings = load_settings(stack.environ)
    told = {"at": time.time_ns() // 1_000, "run_id": name, "writer_id": "acceptance", "attempt_id": "attempt-1"}
    told |= {"attempt": 1, "rank": 0}
    began = RunStarted.model_validate(told | {"seq": 1, "reason": "start", "first_step": 0, "world_size": 1})
    evaluated = EvalCompleted.model_validate(told | {"seq": 2, "step": 10, "metrics": {"loss": math.nan}})
    for fact in (began, evaluated):
        send_fact(settings, fact)
    stack.until(lambda: "eval_completed" in stack.cli("events", name).stdout, "the run is archived")
    return name


def one_line(answer: "subprocess.CompletedProcess[str]") -> str:
    """What a mistake looks like: status 2, one line on stderr, no traceback."""
    assert answer.returncode == 2, answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr
    assert answer.stdout == ""
    [line] = answer.stderr.splitlines()
    assert line.startswith("pilothouse: ")
    return line


@pytest.mark.parametrize("mistake", ONE_LINE_MISTAKES)
def test_a_mistake_is_one_line_that_says_what_to_do(stack: RunningStack, mistake: str) -> None:
    command, said = ONE_LINE_MISTAKES[mistake]
    assert said in one_line(stack.cli(*command))


@pytest.mark.parametrize(
    "command",
    [
        ("runs",),
        ("show", "x"),
        ("events", "x"),
        ("tail", "x"),
        ("interventions", "x"),
        ("sql", "SELECT 1"),
        ("migrate",),
    ],
)
def test_without_a_stack_every_query_says_how_to_start_one(command: tuple[str, ...], tmp_path: Path) -> None:
    # The default port may be somebody's real stack: ask where certainly nobody listens.
    nowhere = {"PILOTHOUSE_CLICKHOUSE_URL": "http://127.0.0.1:9/pilothouse"}
    assert "`pilothouse up`" in one_line(cli(*command, data_dir=tmp_path, more=nowhere))


def test_without_a_broker_the_topics_say_so(tmp_path: Path) -> None:
    answer = cli("topics", "list", data_dir=tmp_path, more={"PILOTHOUSE_KAFKA": "127.0.0.1:9"})
    assert "no broker answers at 127.0.0.1:9" in one_line(answer)


def test_every_wrong_setting_is_said_at_once(tmp_path: Path) -> None:
    answer = cli("runs", data_dir=tmp_path, more={"PILOTHOUSE_PARTITIONS": "none", "PILOTHOUSE_COLOUR": "red"})
    assert answer.returncode == 2
    assert "partitions" in answer.stderr
    assert "colour" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_sql_prints_a_table_json_or_csv(stack: RunningStack) -> None:
    sql = "SELECT 1 AS one, nan AS x, NULL AS none, 'a,b' AS word"
    assert stack.query(sql) == [{"one": 1, "x": "NaN", "none": None, "word": "a,b"}]
    assert stack.cli("sql", "--format", "json", sql).stdout == stack.cli("sql", "--json", sql).stdout
    assert list(csv.reader(io.StringIO(stack.cli("sql", "--format", "csv", sql).stdout))) == [
        ["one", "x", "none", "word"],
        ["1", "NaN", "", "a,b"],
    ]
    assert stack.cli("sql", sql).stdout.split() == ["one", "x", "none", "word", "1", "NaN", "–", "a,b"]


def test_a_run_is_found_by_the_beginning_of_its_name(stack: RunningStack, run_id: str) -> None:
    shown = json.loads(stack.cli("show", "acceptance-cli", "--json").stdout)
    assert shown["run_id"] == run_id
    assert shown["attempt_list"][0]["reason"] == "start"
    assert run_id in stack.cli("show", run_id).stdout


def test_events_are_lines_for_people_and_json_for_programs(stack: RunningStack, run_id: str) -> None:
    answer = stack.cli("events", run_id, "--json", "--kind", "eval_completed")
    [event] = [json.loads(line) for line in answer.stdout.splitlines()]
    assert event["body"]["metrics"] == {"loss": "NaN"}
    assert "metrics=loss=NaN" in stack.cli("events", run_id).stdout
    assert stack.cli("interventions", run_id).stdout == "no interventions\n"


def test_tail_follows_a_run_and_ctrl_c_ends_it_well(stack: RunningStack, run_id: str, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    with heard.open("wb") as output:
        following = subprocess.Popen([*CLI, "tail", run_id, "--json"], env=stack.environ, stdout=output, stderr=output)
    try:
        stack.until(lambda: "run_started" in heard.read_text(), "the past is shown")
        note = RunAnnotated(
            at=time.time_ns() // 1_000, run_id=run_id, writer_id="acceptance-note", seq=1, who="me", text="heard?"
        )
        send_fact(load_settings(stack.environ), note)
        stack.until(lambda: "heard?" in heard.read_text(), "the new event is shown")
        following.send_signal(signal.SIGINT)
        assert following.wait(10) == 0
    finally:
        following.kill()
        following.wait()
    lines = [json.loads(line) for line in heard.read_text().splitlines()]
    ids = [line["event_id"] for line in lines]
    assert len(ids) == len(set(ids)), "an event was shown twice"


def test_stop_puts_the_order_with_its_reason_into_the_log(stack: RunningStack, run_id: str) -> None:
    answer = stack.cli("stop", run_id, "--why", "loss looks odd", "--wait", "1", "--json")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["sent"] is True
    stack.until(lambda: "loss looks odd" in stack.cli("events", run_id).stdout, "the order is archived")
    [order] = [
        json.loads(line)["body"]
        for line in stack.cli("events", run_id, "--json", "-k", "operator_command").stdout.splitlines()
    ]
    assert order["verb"] == "stop"
    assert "@" in order["who"]


def test_topics_are_as_declared(stack: RunningStack) -> None:
    for command in ("list", "create"):
        states = [json.loads(line) for line in stack.cli("topics", command, "--json").stdout.splitlines()]
        assert [state["drift"] for state in states] == [[], [], []]


def test_migrate_again_has_nothing_to_do(stack: RunningStack) -> None:
    assert stack.cli("migrate").stdout == "nothing to do: the archive is of this version\n"


def test_nobody_else_may_read_the_passwords(stack: RunningStack) -> None:
    for name in ("stack.json", "access.json"):
        assert stat.S_IMODE((stack.data_dir / name).stat().st_mode) == 0o600
    for pid in stack.pids.values():
        arguments = Path(f"/proc/{pid}/cmdline").read_text()
        assert "token" not in arguments
        assert "@127.0.0.1" not in arguments


def test_curl_reads_the_archive_as_the_banner_says(stack: RunningStack) -> None:
    [line] = [line for line in stack.printed.read_text().splitlines() if line.strip().startswith("curl ")]
    answer = subprocess.run(["sh", "-c", f"{line} -sS"], capture_output=True, text=True, timeout=30, check=False)
    assert "run_id" in answer.stdout, answer.stderr
