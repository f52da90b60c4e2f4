"""What a run tells besides its steps: found, sampled, profiled, captured and reported, in the order of its attempts."""

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

import pilothouse
from pilothouse.cli.brokers import free_port
from pilothouse.events.codec import decode
from pilothouse.events.commands import PipelineReported
from pilothouse.events.telemetry import (
    DataProfiled,
    LogLines,
    ResourcesSampled,
    RunEnded,
    RunStarted,
    StageChanged,
    StepBatch,
    TelemetryGap,
)
from pilothouse.producers import beside
from pilothouse.producers.beside import Beside, Finding
from pilothouse.producers.delivery.accounts import Counts
from pilothouse.producers.delivery.outbox import CAPACITY
from pilothouse.producers.delivery.spool import read_folder
from pilothouse.producers.run import Run
from pilothouse.producers.surroundings import environment
from pilothouse.producers.surroundings.resources import Numbers, Sampler
from pilothouse.settings import Settings
from pilothouse.tests.outbox_bench import MemoryLog, open_run, wait_until


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def run(log: MemoryLog, tmp_path: Path) -> Run:
    return open_run(tmp_path, log)


def test_a_loader_that_is_timed_puts_its_times_into_the_rows(run: Run, log: MemoryLog) -> None:
    with run:
        run.log(0, loss=1.0)
        for step, _ in enumerate(run.timed([1, 2, 3]), start=1):
            run.log(step, loss=1.0, compute_s=7.0 if step == 3 else 0.5)
            run.log(step, accuracy=0.5)
    rows = {(step, name): column[index] for batch in log.of(StepBatch) for name, column in batch.metrics.items()
            for index, step in enumerate(batch.steps) if column[index] is not None}  # fmt: skip
    assert (0, "data_wait_s") not in rows
    assert rows[1, "data_wait_s"] >= 0
    assert rows[3, "compute_s"] == 7.0  # the script's own word wins
    assert len([step for step, name in rows if name == "data_wait_s"]) == 3


def test_a_call_that_says_nothing_is_still_said_so_when_a_loader_is_timed(run: Run, log: MemoryLog) -> None:
    with run:
        for _ in run.timed([1]):
            run.log(1)
    assert log.of(TelemetryGap)[0].refused == {"no_metrics": 1}


def test_a_profile_is_told_at_the_end_with_what_it_saw(run: Run, log: MemoryLog) -> None:
    with run:
        run.log(7, loss=1.0)
        for _ in range(3):
            run.profile("length", [1.0, 2.0, 3.0], schema="v2", window=2)
        run.profile("length", "no numbers")
        run.profile("length", [1.0], step=-1)
    one, two = log.of(DataProfiled)
    assert (one.feature, one.data_schema, one.step, one.batches, one.values_seen) == ("length", "v2", 7, 2, 6)
    assert two.batches == 1
    assert log.of(TelemetryGap)[0].refused == {"profile": 1, "step": 1}
    assert isinstance(log.facts()[-1], RunEnded)


def test_lines_of_the_job_carry_the_attempt_and_step_at_which_they_were_logged(run: Run, log: MemoryLog) -> None:
    job = logging.getLogger("beside-test")
    with run:
        run.capture_logs(logging.WARNING, "beside-test")
        run.log(3, loss=1.0)
        job.warning("careful")
        job.info("fine")
        run.begin_attempt("rollback", first_step=2)
        job.error("again")
        wait_until(lambda: not run._beside._captures[0][1]._lines)
        job.error("the last")
    lines = [(told.attempt, line.step, line.level, line.text) for told in log.of(LogLines) for line in told.lines]
    assert lines == [(1, 3, "WARNING", "careful"), (2, 3, "ERROR", "again"), (2, 3, "ERROR", "the last")]
    job.error("after the end")
    assert job.handlers == []


def test_a_level_that_is_none_is_counted_and_captures_nothing(run: Run, log: MemoryLog) -> None:
    with run:
        assert run.capture_logs("LOUD") is None
    assert log.of(TelemetryGap)[0].refused == {"capture_logs": 1}


def test_a_fact_of_the_pipeline_is_told_with_who_and_where(run: Run, log: MemoryLog) -> None:
    with run:
        run.report_fact("data_freshness", age_hours=3.5, subject="clicks")
        run.report_fact("promotion", who="ci", subject="gpt-7", note="passed")
        run.report_fact("latency", p50_ms=3.0)
        run.report_fact("nonsense")  # type: ignore[arg-type]  # the mistake
    fresh, promoted = log.of(PipelineReported)
    assert (fresh.fact, fresh.numbers, fresh.subject, fresh.attempt, fresh.rank) == (
        "data_freshness", {"age_hours": 3.5}, "clicks", 1, 0)  # fmt: skip
    assert "@" in fresh.who
    assert promoted.who == "ci"
    assert log.of(TelemetryGap)[0].refused == {"invalid PipelineReported": 2}


class Watched(Sampler):
    """The sampler, which remembers on which threads it was used."""

    threads: ClassVar[set[str]] = set()

    def __init__(self, *sources: Any) -> None:
        self.threads.add(threading.current_thread().name)
        super().__init__(*sources)

    def read(self, seconds: float | None = None) -> Numbers:
        self.threads.add(threading.current_thread().name)
        return super().read(seconds)

    def close(self) -> None:
        self.threads.add(threading.current_thread().name)
        super().close()


def test_resources_are_sampled_at_the_set_interval_off_the_training_thread_and_never_when_it_is_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "Sampler", Watched)
    log, quiet = MemoryLog(), MemoryLog()
    for into, seconds in ((log, 0.05), (quiet, 0.0)):
        opened = open_run(tmp_path / str(seconds), into)
        opened.settings = Settings(resources_seconds=seconds)
        opened._beside.close()
        opened._beside = Beside(opened, opened._outbox.bad_calls)
        opened._beside.sample_resources()
        with opened:
            if seconds:
                wait_until(lambda: len(log.of(ResourcesSampled)) >= 2)
    sampled = log.of(ResourcesSampled)[-1]
    assert sampled.values["process_memory_bytes"] > 0
    assert sampled.values["host_cpu_util"] >= 0
    assert sampled.host == socket.gethostname()
    assert quiet.of(ResourcesSampled) == []
    assert Watched.threads == {"pilothouse-beside"}


@pytest.fixture
def slow_look(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What is looked for is found when the test says so."""
    go = threading.Event()

    def git() -> dict[str, Any]:
        go.wait(30)
        return {"git": {"commit": "c" * 40, "dirty": True}}

    monkeypatch.setattr(beside, "by_looking", lambda _devices: [git])
    monkeypatch.setattr(beside, "FIND_SECONDS", 0.01)
    monkeypatch.setattr("pilothouse.producers.run.FIND_SECONDS", 0.01)
    yield go
    go.set()


def test_what_is_found_late_is_announced_again_for_the_attempt_it_was_looked_for(
    log: MemoryLog, tmp_path: Path, slow_look: threading.Event
) -> None:
    opened = open_run(tmp_path, log)
    finding = Finding({"seed": 3})
    opened._announcement.note("environment", finding.within(0.01))
    opened._announce_attempt()
    opened._beside.await_finding(finding)
    with opened:
        slow_look.set()
        wait_until(lambda: len(log.of(RunStarted)) == 3)
    early, late = log.of(RunStarted)[1:]
    assert "git" not in early.environment
    assert early.environment["seeds"]["seed"] == 3
    assert late.environment["git"] == {"commit": "c" * 40, "dirty": True}
    assert (late.attempt_id, late.first_step, late.config) == (early.attempt_id, early.first_step, early.config)


def test_what_nobody_finds_keeps_no_run_from_its_start_or_end(
    tmp_path: Path, slow_look: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "packages", lambda: 1 / 0)
    settings = Settings(kafka=f"127.0.0.1:{free_port()}", data_dir=tmp_path, close_seconds=1.0)
    with pilothouse.start_run("lost", settings=settings) as opened:
        opened.log(1, loss=1.0)
    assert not slow_look.is_set()
    assert opened.counts().dropped == 0
    assert opened.counts().accepted == 4


def test_a_started_run_says_where_it_runs_and_whether_its_code_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
    script = tmp_path / "code" / "train.py"
    script.parent.mkdir()
    script.write_text("pass\n")
    for words in (("init",), ("add", "."), ("commit", "-m", "x")):
        subprocess.run(["git", *who, *words], cwd=script.parent, check=True, capture_output=True)
    script.write_text("changed\n")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "juno")
    monkeypatch.setattr("pilothouse.producers.run.FIND_SECONDS", 30.0)
    settings = Settings(kafka=f"127.0.0.1:{free_port()}", data_dir=tmp_path / "data", close_seconds=1.0)
    said: Any = {"team": "vision", "model_family": "transformer", "dataset": "clicks", "dataset_version": "v7",
                 "config": {"hub_token": "Zq9x"}}  # fmt: skip
    with pilothouse.start_run("found", settings=settings, **said):
        pass
    (folder,) = (tmp_path / "data" / "spool").glob("*/*")
    started, ended = [decode(record.headers, record.body) for record in read_folder(folder)]
    assert isinstance(started, RunStarted)
    assert isinstance(ended, RunEnded)
    assert started.environment["git"] == {"commit": started.code_version, "branch": "main", "dirty": True}
    assert started.environment["python"]
    assert (started.cluster, started.team, started.model_family, started.dataset, started.dataset_version) == (
        "juno", "vision", "transformer", "clicks", "v7")  # fmt: skip
    assert "Zq9x" not in started.model_dump_json()


def test_a_chore_that_fails_is_said_once_and_the_others_go_on(
    run: Run, log: MemoryLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "PROFILE_SECONDS", 0.01)
    with run:
        run.profile("x", [1.0], window=1)
        monkeypatch.setattr(run._beside._profiles, "take", lambda **_: 1 / 0)
        run._beside._news.set()
        wait_until(lambda: "this is a bug of Pilothouse" in caplog.text)
        run.capture_logs(logging.INFO, "beside-test")
        logging.getLogger("beside-test").warning("still here")
    assert caplog.text.count("this is a bug of Pilothouse") == 1
    assert log.of(LogLines)[0].lines[0].text == "still here"


def test_a_forked_child_keeps_captures_samples_and_profiles_nothing_and_says_nothing(
    run: Run, log: MemoryLog, capfd: pytest.CaptureFixture[str]
) -> None:
    with run:
        run.capture_logs(logging.INFO, "beside-test")
        run.log(1, loss=1.0)
        child = os.fork()
        if child == 0:
            kept, before = 99, len(run._queue)
            logging.getLogger("pilothouse").addHandler(logging.StreamHandler())
            try:
                for step in range(CAPACITY + 1):
                    run.log(step, loss=1.0)
                run.profile("x", [1.0])
                run.report_fact("promotion")
                logging.getLogger("beside-test").warning("from the child")
                run.timed([1])
                run.close()
                kept = len(run._beside._captures[0][1]._lines) + len(run._queue) - before
            finally:
                os._exit(kept)
        assert os.waitpid(child, 0)[1] == 0
    assert "telemetry" not in capfd.readouterr().err
    assert log.of(LogLines) == log.of(DataProfiled) == log.of(PipelineReported) == []
    assert isinstance(log.facts()[-1], RunEnded)


def test_a_run_without_a_loader_that_is_timed_has_the_plain_log(run: Run) -> None:
    with run:
        assert "log" not in vars(run)
        run.timed([])
        assert "log" in vars(run)


def test_nothing_besides_is_counted_as_a_loss(run: Run, log: MemoryLog) -> None:
    with run:
        run.capture_logs(logging.INFO, "beside-test")
        for number in range(3_000):
            logging.getLogger("beside-test").warning("line %d", number)
    assert sum(told.dropped.get("rate", 0) for told in log.of(LogLines)) > 0
    assert log.of(TelemetryGap) == []
    assert isinstance(run.counts(), Counts)
    assert run.counts().dropped == 0
    assert [fact.stage for fact in log.of(StageChanged)] == []
