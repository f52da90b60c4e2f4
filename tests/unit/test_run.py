"""A run as its script sees it: order, attempts, stages, ends; and no call that raises into the training loop."""

import logging
from pathlib import Path
from typing import Any

import pytest

import pilothouse
from pilothouse.events.envelope import TrainerFact
from pilothouse.events.errors import UserMistake
from pilothouse.events.telemetry import (
    EvalCompleted,
    RecipeChanged,
    RunEnded,
    RunStarted,
    StageChanged,
    StepBatch,
    TelemetryGap,
)
from pilothouse.producers.run import Run
from pilothouse.tests.outbox_bench import MemoryLog, open_run, told


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def run(log: MemoryLog, tmp_path: Path) -> Run:
    return open_run(tmp_path, log)


def facts(log: MemoryLog, kind: type[TrainerFact]) -> list[Any]:
    return [fact for fact in log.facts() if isinstance(fact, kind)]


def test_a_run_is_announced_first_and_ended_last(run: Run, log: MemoryLog) -> None:
    with run:
        run.log(0, loss=2.0)
    first, *_, last = log.facts()
    assert isinstance(first, RunStarted)
    assert (first.config, first.reason, first.world_size) == ({"lr": 0.1}, "start", 1)
    assert isinstance(last, RunEnded)
    assert last.outcome == "completed"
    assert log.closed


def test_rows_and_facts_keep_their_order(run: Run, log: MemoryLog) -> None:
    with run:
        run.log(1, loss=1.0)
        run.tell(RecipeChanged, step=2, what="batch_size")
        run.log(2, loss=2.0)
        run.log(3, loss=3.0)
        run.evaluated(3, loss=2.5)
    said = [fact.kind if isinstance(fact, TrainerFact) else fact[2] for fact in told(log.facts())]
    assert said == ["run_started", "stage_changed", 1, "recipe_changed", 2, 3, "eval_completed", "run_ended"]


def test_an_evaluation_is_a_stage_and_goes_back_to_the_stage_before(run: Run, log: MemoryLog) -> None:
    with run:
        run.stage("train", 0)
        run.log(7, loss=1.0)
        with run.evaluating():
            run.evaluated(7, split="test", loss=1.5)
    assert [(fact.stage, fact.step) for fact in facts(log, StageChanged)] == [
        ("train", 0),
        ("evaluate", 7),
        ("train", 7),
    ]
    (evaluated,) = facts(log, EvalCompleted)
    assert (evaluated.split, evaluated.metrics) == ("test", {"loss": 1.5})


def test_what_is_told_after_a_new_attempt_began_belongs_to_it(run: Run, log: MemoryLog) -> None:
    with run:
        run.log(10, loss=1.0)
        old = run.identity
        new = run.begin_attempt("rollback", first_step=5, attempt_id="second")
        run.log(5, loss=0.5)
    assert (new.attempt, new.attempt_id) == (2, "second")
    one, two = facts(log, StepBatch)
    assert (one.attempt_id, two.attempt_id) == (old.attempt_id, "second")
    _, again = facts(log, RunStarted)
    assert (again.reason, again.first_step, again.parent_attempt_id) == ("rollback", 5, old.attempt_id)
    assert again.config == {"lr": 0.1}


def test_what_a_pilot_can_steer_is_announced_for_the_same_attempt(run: Run, log: MemoryLog) -> None:
    with run:
        run.steers(("scale_lr", "stop"))
        run.steers(("scale_lr", "stop"))
    started = facts(log, RunStarted)
    assert [fact.steers for fact in started] == [(), ("scale_lr", "stop")]
    assert len({fact.attempt_id for fact in started}) == 1


@pytest.mark.parametrize(
    "error,outcome,text",
    [
        (ValueError("bad batch"), "crashed", "ValueError: bad batch"),
        (MemoryError(), "out_of_memory", "MemoryError"),
        (KeyboardInterrupt(), "stopped", ""),
        (SystemExit(0), "stopped", ""),
        (SystemExit(3), "crashed", "exit status 3"),
    ],
)
def test_how_a_script_ends_is_how_its_run_ends(
    run: Run, log: MemoryLog, error: BaseException, outcome: str, text: str
) -> None:
    def script() -> None:
        with run:
            raise error

    with pytest.raises(type(error)):
        script()
    (ended,) = facts(log, RunEnded)
    assert ended.outcome == outcome
    assert text in ended.error


def test_an_error_text_of_megabytes_is_bounded_and_keeps_its_end(run: Run, log: MemoryLog) -> None:
    run.close("crashed", "x" * 5_000_000 + "the end")
    (ended,) = facts(log, RunEnded)
    assert ended.error.endswith("the end")


def test_a_pilot_that_stopped_the_run_decides_how_it_ended(run: Run, log: MemoryLog) -> None:
    with run:
        run.ending("stopped")
    (ended,) = facts(log, RunEnded)
    assert ended.outcome == "stopped"


def test_bad_calls_do_not_raise_and_are_counted_before_the_end(run: Run, log: MemoryLog) -> None:
    with run:
        run.log(1, loss="high")
        run.log(-1, loss=1.0)
        run.log()
        run.log(1)
        run.log(1, {"loss": 1.0})
        run.log(loss=1.0)
        run.log(1, loss=1.0, self=2.0)
        run.evaluated(1, loss=None)
    (gap,) = facts(log, TelemetryGap)
    assert gap.dropped == {"metric_type": 2, "step": 3, "no_metrics": 1, "call": 1}
    assert run.counts().accepted == run.counts().sent == 4  # one row, RunStarted, StageChanged and RunEnded


def test_calls_after_the_end_are_quiet(run: Run, log: MemoryLog) -> None:
    run.close()
    before = len(log.facts())
    run.log(1, loss=1.0)
    run.tell(RecipeChanged, step=2, what="x")
    run.close()
    assert len(log.facts()) == before


def test_with_no_broker_the_end_comes_soon_and_says_where_the_rest_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = open_run(tmp_path, MemoryLog(up=False))
    with caplog.at_level(logging.WARNING, logger="pilothouse"), run:
        run.log(1, loss=1.0)
    assert run.counts() == (4, 0, 0, 4, 0)
    assert str(tmp_path) in caplog.text


@pytest.mark.parametrize(
    "said,message",
    [({"colour": "red"}, "does not know colour"), ({"run_id": "a\nb"}, "printable")],
)
def test_a_mistake_at_the_start_is_one_clear_line(said: dict[str, Any], message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        pilothouse.start_run("gpt", **said)
