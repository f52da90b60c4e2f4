"""The commands that look and order, on a running stack and without one: as a person types them."""

import csv
import io
import json
import math
import signal
import stat
import subprocess
import time
from base64 import b64decode
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pilothouse.events.codec import KIND_HEADER, SCHEMA_HEADER, encode
from pilothouse.events.commands import RunAnnotated
from pilothouse.events.envelope import TrainerFact
from pilothouse.events.telemetry import EvalCompleted, LogLines, RunEnded, RunStarted
from pilothouse.events.topics import DEADLETTER, TELEMETRY, partition_of
from pilothouse.producers.delivery.connection import connected_producer
from pilothouse.producers.delivery.kafka import send_fact
from pilothouse.settings import load_settings
from pilothouse.stream_processors.deadletter import dead_letter
from pilothouse.stream_processors.log import Delivered
from pilothouse.tests.stack_fixture import ANY_PORTS, CLI, RunningStack, cli, refused, typed

RUN, OVER = "acceptance-cli-1", "acceptance-over-1"

ONE_LINE_MISTAKES = {
    "unknown run": (("show", "nobody"), "no run 'nobody'"),
    "events of an unknown run": (("events", "nobody"), "no run 'nobody'"),
    "tail of an unknown run": (("tail", "nobody"), "no run 'nobody'"),
    "interventions of an unknown run": (("interventions", "nobody"), "no run 'nobody'"),
    "a beginning of two names": (("show", "acceptance-"), "'acceptance-' may be acceptance-"),
    "no name at all": (("show", ""), "no run ''"),
    "bad SQL": (("sql", "SELEC 1"), "Syntax error"),
    "unknown table": (("sql", "SELECT * FROM nothing_here"), "nothing_here"),
    "an insert": (("sql", "INSERT INTO event_log (run_id) VALUES ('x')"), "READONLY"),
    "a file": (("sql", "SELECT * FROM file('/etc/passwd', 'LineAsString')"), "(code "),
    "unknown kind": (("events", "nobody", "--kind", "no_such_kind"), "phase_changed"),
    "stop of an unknown run": (("stop", "nobody", "--why", "test"), "no run 'nobody'"),
    "stop of a run that is over": (("stop", OVER, "--why", "test"), f"{OVER} has ended already (completed)"),
    "stop for no reason": (("stop", RUN, "--why", "  "), "say why, in at most"),
    "an answer where nothing waits": (("approve", RUN), f"nothing waits for an answer in run {RUN}"),
    "an answer to nonsense": (
        ("decline", RUN, "zzz", "--why", "no"),
        f"no intervention of run {RUN} begins with 'zzz'",
    ),
    "an action that is none": (("intervene", RUN, "reboot", "--why", "x"), "no action is called 'reboot'; there are: "),
    "an action's value that is none": (("intervene", RUN, "scale_lr", "factor=9", "--why", "x"), "scale_lr factor: "),
    "a checkpoint that is none": (
        ("intervene", RUN, "rollback", "checkpoint=7", "--why", "x"),
        f"run {RUN} has no checkpoint '7' that could be gone back to; steps: none",
    ),
    "a silence without an end": (("silence", RUN, "--why", "x"), "a silence needs an end: --for 200steps"),
    "a pause of no time": (("pause", RUN, "--why", "x", "--for", "long"), "--for 'long' is no span of time"),
    "logs of an unknown run": (("logs", "nobody"), "no run 'nobody'"),
    "a level that is none": (("logs", RUN, "--level", "loud"), "'loud' is not one of"),
    "a fact of an unknown run": (("report-fact", "nobody", "promotion"), "no run 'nobody'"),
    "a fact that is none": (("report-fact", RUN, "deployed"), "no fact is called 'deployed'; there are artifacts, "),
    "a fact without its numbers": (("report-fact", RUN, "latency"), "latency takes p95_ms, p50_ms, p99_ms, requests"),
    "a fact's number that is none": (("report-fact", RUN, "latency", "p95_ms"), "'p95_ms' is no number with its name"),
    "a fact of the future": (("report-fact", RUN, "promotion", "--at", "2999-01-01"), "is not in the past"),
    "a policy for an unknown run": (("policy", "activate", "autonomous", "--run", "nobody"), "no run 'nobody'"),
    "a policy for a run that is over": (
        ("policy", "activate", "autonomous", "--run", OVER),
        f"{OVER} has ended already",
    ),
    "a rule that nobody asked for": (("policy", "explain", "autonomous", "--run", "nobody"), "no run 'nobody'"),
    "unknown worker": (("worker", "cook"), "governor, archiver, advisor, endpoint"),
    "unknown command": (("runz",), "'runs'? (`pilothouse --help`"),
    "unknown option": (("runs", "--colour"), "No such option: --colour (`pilothouse runs --help`"),
    "missing argument": (("show",), "Missing argument 'run' (`pilothouse show --help`"),
    "missing option": (("stop", RUN), "Missing option '--why' (`pilothouse stop --help`"),
    "too much": (("show", RUN, "more"), "more"),
    "a limit of nothing": (("runs", "--limit", "0"), "--limit"),
    "a subcommand that is none": (("topics", "drop"), "No such command 'drop'"),
    "an option of the demo that is none": (("demo", "--colour"), "--colour (`pilothouse demo --help`"),
}

WITHOUT_A_STACK = [
    ("runs",),
    ("show", "x"),
    ("events", "x"),
    ("tail", "x"),
    ("interventions", "x"),
    ("sql", "SELECT 1"),
    ("stop", "x", "--why", "test"),
    ("approve", "x"),
    ("pending",),
    ("logs", "x"),
    ("report-fact", "x", "promotion"),
    ("migrate",),
]


def told(run_id: str, seq: int) -> dict[str, Any]:
    return {
        "at": time.time_ns() // 1_000,
        "run_id": run_id,
        "writer_id": f"writer-of-{run_id}",
        "seq": seq,
        "attempt_id": "attempt-1",
        "attempt": 1,
        "rank": 0,
    }


@pytest.fixture(scope="module")
def stack_with_runs(stack: RunningStack) -> RunningStack:
    """The stack, whose archive knows two runs: one goes on, one is over."""
    settings = load_settings(stack.environ)
    facts: list[TrainerFact] = [
        RunStarted.model_validate(told(run_id, 1) | {"reason": "start", "first_step": 0, "world_size": 1})
        for run_id in (RUN, OVER)
    ]
    facts.append(EvalCompleted.model_validate(told(RUN, 2) | {"step": 10, "metrics": {"loss": math.nan}}))
    lines = [{"at": told(RUN, 3)["at"], "step": 10, "level": level, "logger": "job", "text": f"{level}\x1b[31m\nline"}
             for level in ("INFO", "ERROR")]  # fmt: skip
    facts.append(LogLines.model_validate(told(RUN, 3) | {"lines": lines, "dropped": {"rate": 5}}))
    facts.append(RunEnded.model_validate(told(OVER, 2) | {"step": 10, "outcome": "completed"}))
    for fact in facts:
        send_fact(settings, fact)
    for run_id, kind in ((RUN, "log_lines"), (OVER, "run_ended")):
        archived = partial(stack.archived, run_id, kind)
        stack.until(archived, f"{run_id} is archived")
    return stack


def one_line(answer: "subprocess.CompletedProcess[str]") -> str:
    """What a mistake looks like: status 2, one line on stderr, no traceback."""
    assert answer.returncode == 2, answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr
    assert answer.stdout == ""
    [line] = answer.stderr.splitlines()
    assert line.startswith("pilothouse: ")
    return line


@pytest.mark.parametrize("mistake", ONE_LINE_MISTAKES)
def test_a_mistake_is_one_line_that_says_what_to_do(stack_with_runs: RunningStack, mistake: str) -> None:
    command, said = ONE_LINE_MISTAKES[mistake]
    assert said in one_line(stack_with_runs.cli(*command))


@pytest.mark.parametrize("command", WITHOUT_A_STACK, ids=lambda command: command[0])
def test_without_a_stack_every_query_says_how_to_start_one(command: tuple[str, ...], tmp_path: Path) -> None:
    # The default port may be somebody's real stack: ask where certainly nobody listens.
    nowhere = {"PILOTHOUSE_CLICKHOUSE_URL": "http://127.0.0.1:9/pilothouse"}
    assert "`pilothouse up`" in one_line(typed(*command, data_dir=tmp_path, more=nowhere))


def test_a_process_of_its_own_ends_with_the_same_line_and_status(tmp_path: Path) -> None:
    nowhere = {"PILOTHOUSE_CLICKHOUSE_URL": "http://127.0.0.1:9/pilothouse"}
    assert "`pilothouse up`" in one_line(cli("runs", data_dir=tmp_path, more=nowhere))


@pytest.mark.parametrize("command", ["topics list", "topics create", "deadletter list"])
@pytest.mark.parametrize(
    "address, said",
    [
        (
            "127.0.0.1:9",
            "no broker answers at 127.0.0.1:9 ([Errno 111] Connection refused): start one with",
        ),
        ("nonsense", "'nonsense' is no address of a Kafka: write HOST:PORT"),
        ("here:99999", "'here:99999' is no address of a Kafka"),
        ("127.0.0.1:9,:9092", "is no address of a Kafka"),
    ],
)
def test_without_a_broker_the_topics_say_what_to_do(command: str, address: str, said: str, tmp_path: Path) -> None:
    assert said in one_line(typed(*command.split(), data_dir=tmp_path, more={"PILOTHOUSE_KAFKA": address}))


def test_every_wrong_setting_is_said_at_once(tmp_path: Path) -> None:
    answer = typed("runs", data_dir=tmp_path, more={"PILOTHOUSE_PARTITIONS": "none", "PILOTHOUSE_COLOUR": "red"})
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


def test_a_policy_is_activated_for_a_run_with_its_mode_and_who_and_is_in_force_then(
    stack_with_runs: RunningStack, tmp_path: Path
) -> None:
    stack = stack_with_runs

    def policy(*words: str) -> list[dict[str, Any]]:
        answer = stack.cli("policy", *words, "--json")
        assert answer.returncode == 0, answer.stderr
        return [json.loads(line) for line in answer.stdout.splitlines()]

    def governs() -> str:
        return str(next(row["policy"] for row in policy("list", "--runs") if row["run"] == RUN))

    stack.until(lambda: governs() == "observe-only", "the run was given a policy when it started")
    [done] = policy("activate", "conservative", "--run", RUN)
    assert (done["sent"], done["before"]["mode"], done["now"]["mode"]) == (True, "observe", "enforce")
    assert "@" in done["who"]
    stack.until(lambda: governs() == "conservative", "another policy governs it")
    assert policy("diff", "conservative", "--run", RUN) == []
    [again] = [row for row in policy("activate", "conservative", "--all") if row["run_id"] == RUN]
    assert (again["sent"], again["left_out"]) == (False, "it governs the run already")
    [explained] = policy("explain", "conservative", "--run", RUN)
    assert {row["rule"]: row["holds"] for row in explained["now"]}["nonfinite"] == "no"
    elsewhere = tmp_path / "elsewhere.yaml"
    elsewhere.write_text("name: elsewhere\napplies_to: {team: vision}\nrules: []\n")
    said = one_line(stack.cli("policy", "activate", str(elsewhere), "--run", RUN))
    assert f"policy elsewhere does not apply to run {RUN}: team must be vision, the run says nothing" in said
    words = stack.cli("policy", "activate", "autonomous", "--run", RUN).stdout
    assert f"run {RUN}: conservative → autonomous" in words


def test_a_run_is_found_by_the_beginning_of_its_name(stack_with_runs: RunningStack) -> None:
    shown = json.loads(stack_with_runs.cli("show", "acceptance-cli", "--json").stdout)
    assert shown["run_id"] == RUN
    assert shown["attempt_list"][0]["reason"] == "start"
    assert RUN in stack_with_runs.cli("show", RUN).stdout


def test_events_are_lines_for_people_and_json_for_programs(stack_with_runs: RunningStack) -> None:
    answer = stack_with_runs.cli("events", RUN, "--json", "--kind", "eval_completed")
    [event] = [json.loads(line) for line in answer.stdout.splitlines()]
    assert event["body"]["metrics"] == {"loss": "NaN"}
    assert "metrics=loss=NaN" in stack_with_runs.cli("events", RUN).stdout
    assert stack_with_runs.cli("interventions", RUN).stdout == "no interventions\n"


def test_tail_follows_a_run_and_ctrl_c_ends_it_well(stack_with_runs: RunningStack, tmp_path: Path) -> None:
    stack, heard = stack_with_runs, tmp_path / "heard"
    with heard.open("wb") as output:
        following = subprocess.Popen([*CLI, "tail", RUN, "--json"], env=stack.environ, stdout=output, stderr=output)
    try:
        stack.until(lambda: "run_started" in heard.read_text(), "the past is shown")
        note = RunAnnotated(
            at=time.time_ns() // 1_000, run_id=RUN, writer_id="acceptance-note", seq=1, who="me", text="heard?"
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


def test_stop_puts_the_order_with_its_reason_into_the_log(stack_with_runs: RunningStack) -> None:
    stack = stack_with_runs
    answer = stack.cli("stop", RUN, "--why", "loss looks odd", "--wait", "60", "--json")
    said = json.loads(answer.stdout)
    assert (said["sent"], said["outcome"], answer.returncode) == (True, "refused", 1), answer.stderr
    assert said["reason"] == "this trainer cannot stop; it steers: nothing"
    stack.until(lambda: "loss looks odd" in stack.cli("events", RUN).stdout, "the order is archived")
    [order] = [
        json.loads(line)["body"]
        for line in stack.cli("events", RUN, "--json", "-k", "operator_command").stdout.splitlines()
    ]
    assert order["verb"] == "stop"
    assert "@" in order["who"]


def test_a_silence_is_answered_shown_and_ended(stack_with_runs: RunningStack) -> None:
    stack = stack_with_runs
    silenced = stack.cli("silence", RUN, "--for", "2h", "--why", "known", "--who", "ada", "--wait", "60")
    assert (silenced.returncode, silenced.stdout) == (0, "silence: every rule keeps still for 7200 s\n")
    shown = stack.cli("pending", RUN).stdout
    assert "nothing waits for an answer" in shown
    assert "every rule keeps still for 7200 s, until " in shown
    assert "by ada via " in shown
    assert stack.cli("silence", RUN, "--end", "--wait", "60").returncode == 0
    assert "keeps still" not in stack.cli("pending", RUN).stdout
    assert stack.cli("silence", RUN, "--end", "--wait", "60").returncode == 1


def test_the_lines_of_a_job_are_a_table_for_people_and_json_for_programs(stack_with_runs: RunningStack) -> None:
    answer = stack_with_runs.cli("logs", RUN)
    assert "\x1b" not in answer.stdout
    assert answer.stdout.splitlines()[0].split() == ["time", "attempt", "rank", "step", "level", "logger", "text"]
    assert "INFO\\x1b[31m" in answer.stdout
    assert answer.stderr == "5 lines were over the bounds of what a run may send (rate 5)\n"
    told = [json.loads(line) for line in stack_with_runs.cli("logs", RUN, "--json").stdout.splitlines()]
    assert [(line["level"], line["step"], line["text"]) for line in told] == [
        (level, 10, f"{level}\x1b[31m\nline") for level in ("INFO", "ERROR")
    ]
    assert "INFO" not in stack_with_runs.cli("logs", RUN, "--level", "error").stdout
    assert stack_with_runs.cli("logs", OVER).stdout.startswith("no log lines")


def test_a_fact_of_the_pipeline_is_kept_with_who_and_when_and_a_repetition_counts_once(
    stack_with_runs: RunningStack,
) -> None:
    stack = stack_with_runs
    words = ("report-fact", OVER, "promotion", "--subject", "gpt-7", "--who", "ci", "--once", "build-42")
    for _ in range(2):
        answer = stack.cli(*words)
        assert (answer.returncode, answer.stdout) == (0, f"promotion is in the log of run {OVER}\n"), answer.stderr
    fresh = stack.cli("report-fact", OVER, "data_freshness", "age_hours=3.5", "--at", "2026-01-02T03:04:05Z", "--json")
    assert json.loads(fresh.stdout)["numbers"] == {"age_hours": 3.5}
    stack.until(lambda: "data_freshness" in stack.cli("events", OVER).stdout, "the facts are archived")
    told = stack.query(f"SELECT fact, subject, who, numbers, toString(at) AS at FROM pipeline_facts "
                       f"WHERE run_id = '{OVER}' ORDER BY fact")  # fmt: skip
    assert [(fact["fact"], fact["subject"], fact["numbers"]) for fact in told] == [
        ("data_freshness", "", {"age_hours": 3.5}),
        ("promotion", "gpt-7", {}),
    ]
    assert told[0]["at"].startswith("2026-01-02 03:04:05")
    assert "@" in told[0]["who"]
    assert told[1]["who"] == "ci"
    assert json.loads(stack.cli("show", OVER, "--json").stdout)["outcome"] == "completed", "a fact revives no run"


def test_topics_are_as_declared_and_say_how_much_they_hold(stack_with_runs: RunningStack) -> None:
    for command in ("list", "create"):
        states = [json.loads(line) for line in stack_with_runs.cli("topics", command, "--json").stdout.splitlines()]
        assert [state["drift"] for state in states] == [[], [], []]
    assert _telemetry_records(stack_with_runs) >= 4, "the facts of two runs"


def _telemetry_records(stack: RunningStack) -> int:
    [state] = [
        json.loads(line) for line in stack.cli("topics", "list", "--json").stdout.splitlines() if TELEMETRY.name in line
    ]
    return int(state["records"])


JUNK = b"\x1b[31mnot an event\x00" + bytes(range(256)) * 4
NEWER = encode(RunEnded.model_validate(told("acceptance-newer", 1) | {"step": 1, "outcome": "completed"}))


@pytest.fixture(scope="module")
def dead_letters(stack: RunningStack) -> list[dict[str, Any]]:
    """What became of junk, and of a record of a newer schema: told by the command, for programs."""
    producer, partitions = connected_producer(load_settings(stack.environ).kafka, seconds=10.0)
    headers = [(KIND_HEADER, b"run_ended"), (SCHEMA_HEADER, b"99"), ("sender", b"\xff")]
    place = partition_of("acceptance-newer", partitions)
    for body, more in ((JUNK, []), (NEWER.body, headers)):
        producer.send(TELEMETRY.name, body, key=b"acceptance-newer", headers=more, partition=place).get(timeout=10)
    producer.close()
    stack.until(lambda: len(_letters(stack)) >= 2, "both are dead letters")
    return _letters(stack)


def _letters(stack: RunningStack) -> list[dict[str, Any]]:
    answer = stack.cli("deadletter", "list", "--json")
    assert answer.returncode == 0, answer.stderr
    return [json.loads(line) for line in answer.stdout.splitlines()]


def test_what_cannot_be_used_is_a_dead_letter_with_its_reason_and_all_of_its_bytes(
    dead_letters: list[dict[str, Any]],
) -> None:
    junk, newer = dead_letters
    assert [letter["reason"] for letter in dead_letters] == ["NotOurs", "NewerSchema"]
    assert "run_ended has schema 99, this reader knows up to 1" in newer["detail"]
    assert b64decode(junk["body_base64"]) == JUNK
    assert b64decode(newer["body_base64"]) == NEWER.body
    assert {letter["topic"] for letter in dead_letters} == {TELEMETRY.name}
    assert newer["offset"] == junk["offset"] + 1
    assert newer["headers"][-1] == {"name": "sender", "value_base64": "/w=="}
    assert b64decode(newer["key_base64"]) == b"acceptance-newer"


def test_a_person_reads_the_dead_letters_without_harm_to_the_terminal(
    stack: RunningStack, dead_letters: list[dict[str, Any]]
) -> None:
    shown = stack.cli("deadletter", "list").stdout
    assert "\x1b" not in shown
    heading, junk, newer = shown.splitlines()
    assert heading.split() == ["time", "record", "reason", "detail", "bytes", "begins"]
    assert "NotOurs      no header 'ph-kind'" in junk
    assert f"{len(JUNK)}" in junk
    assert "\\x1b[31mnot an event\\x00" in junk
    assert "upgrade" in newer
    [_, latest] = stack.cli("deadletter", "list", "--limit", "1").stdout.splitlines()
    assert latest.split() == newer.split()


def test_one_letter_is_shown_whole_and_its_original_bytes_are_given_back(
    stack: RunningStack, dead_letters: list[dict[str, Any]]
) -> None:
    junk, newer = dead_letters
    shown = stack.cli("deadletter", "show", newer["name"].removeprefix("pilothouse.")).stdout
    assert "header sender  b'\\xff'" in shown
    assert "now       NewerSchema: run_ended has schema 99" in shown
    whole = cli("deadletter", "show", "--raw", junk["name"], data_dir=stack.data_dir, text=False)
    assert whole.stdout == JUNK
    assert "no dead letter is called telemetry/9@9" in one_line(stack.cli("deadletter", "show", "telemetry/9@9"))
    assert "'junk' names no dead letter" in one_line(stack.cli("deadletter", "replay", "junk"))
    assert "say which" in one_line(stack.cli("deadletter", "replay"))
    said = one_line(stack.cli("deadletter", "replay", "--reason", "Tea"))
    assert said == "pilothouse: no dead letter has the reason 'Tea'; there is: NewerSchema, NotOurs"


def test_what_can_be_used_now_is_sent_again_and_is_one_event_however_often(
    stack: RunningStack, dead_letters: list[dict[str, Any]]
) -> None:
    """A letter as a worker of yesterday wrote it: today's can read the record."""
    run_id = "acceptance-upgraded"
    event = RunAnnotated(at=1, run_id=run_id, writer_id="w", seq=1, who="ada", text="was too new")
    wire = encode(event)
    producer, partitions = connected_producer(load_settings(stack.environ).kafka, seconds=10.0)
    place = partition_of(run_id, partitions)
    record = Delivered(TELEMETRY.name, place, 12_345, run_id.encode(), tuple(wire.headers), wire.body)
    letter = dead_letter(record, "NewerSchema", "annotated has schema 1", partitions)
    producer.send(DEADLETTER.name, letter.body, key=letter.key, headers=letter.headers, partition=place).get(timeout=10)
    producer.close()
    for _ in range(2):
        answer = stack.cli("deadletter", "replay", "--reason", "NewerSchema", "--json")
        results = {row["name"]: row["result"] for row in map(json.loads, answer.stdout.splitlines())}
        assert results.pop(f"{TELEMETRY.name}/{place}@12345") == "sent"
        [left] = results.values()
        assert left.startswith("not sent: NewerSchema: run_ended has schema 99")
    stack.note("acceptance-behind-it")
    stack.until(lambda: stack.archived(run_id, "annotated"), "the event is archived")
    [counted] = stack.query(f"SELECT count() AS events FROM events WHERE run_id = '{run_id}'")
    assert counted == {"events": 1}
    assert len(_letters(stack)) == len(dead_letters) + 1, "nothing came back"


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


def test_a_second_up_on_the_same_directory_is_told_who_has_it(stack: RunningStack) -> None:
    line = refused(cli("up", *ANY_PORTS, data_dir=stack.data_dir))
    assert f"already runs on {stack.data_dir} (process {stack.process.pid})" in line
    assert stack.query("SELECT 1 AS one") == [{"one": 1}], "the first one is as it was"
