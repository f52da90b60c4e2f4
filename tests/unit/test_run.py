"""A run as its script sees it: order, attempts, stages, ends; and no call that raises into the training loop."""

import copy
import logging
import pickle
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy
import pytest
from pydantic import SecretStr

import pilothouse
from pilothouse.cli.brokers import free_port
from pilothouse.events.codec import decode
from pilothouse.events.envelope import TrainerFact
from pilothouse.events.errors import UserMistake
from pilothouse.events.telemetry import (
    DataProfiled,
    EvalCompleted,
    Heartbeat,
    RecipeChanged,
    RunEnded,
    RunStarted,
    StageChanged,
    StepBatch,
    TelemetryGap,
)
from pilothouse.producers.delivery.spool import read_folder
from pilothouse.producers.run import Run
from pilothouse.settings import Settings
from pilothouse.tests.outbox_bench import WHO, Bench, MemoryLog, open_run, told


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def run(log: MemoryLog, tmp_path: Path) -> Run:
    return open_run(tmp_path, log)


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


def test_a_new_recipe_is_told_with_the_step_behind_which_it_holds(run: Run, log: MemoryLog) -> None:
    with run:
        run.log(4, loss=1.0)
        run.recipe_changed("batch_size", batch_size=512, note="as planned")
        run.recipe_changed("data mix", 9)
    changed = [(fact.step, fact.what, fact.numbers, fact.note) for fact in log.of(RecipeChanged)]
    assert changed == [(4, "batch_size", {"batch_size": 512.0}, "as planned"), (9, "data mix", {}, "")]


def test_an_evaluation_is_a_stage_and_goes_back_to_the_stage_before(run: Run, log: MemoryLog) -> None:
    with run:
        run.stage("train", 0)
        run.log(7, loss=1.0)
        with run.evaluating():
            run.evaluated(7, split="test", loss=1.5)
    assert [(fact.stage, fact.step) for fact in log.of(StageChanged)] == [
        ("train", 0),
        ("evaluate", 7),
        ("train", 7),
    ]
    (evaluated,) = log.of(EvalCompleted)
    assert (evaluated.split, evaluated.metrics) == ("test", {"loss": 1.5})


def test_what_is_told_after_a_new_attempt_began_belongs_to_it(run: Run, log: MemoryLog) -> None:
    with run:
        run.log(10, loss=1.0)
        old = run.identity
        new = run.begin_attempt("rollback", first_step=5, attempt_id="second")
        run.log(5, loss=0.5)
    assert (new.attempt, new.attempt_id) == (2, "second")
    one, two = log.of(StepBatch)
    assert (one.attempt_id, two.attempt_id) == (old.attempt_id, "second")
    _, again = log.of(RunStarted)
    assert (again.reason, again.first_step, again.parent_attempt_id) == ("rollback", 5, old.attempt_id)
    assert again.config == {"lr": 0.1}


def test_what_a_pilot_can_steer_is_announced_for_the_same_attempt(run: Run, log: MemoryLog) -> None:
    with run:
        run.steers(("scale_lr", "stop"))
        run.steers(("scale_lr", "stop"))
    started = log.of(RunStarted)
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
    (ended,) = log.of(RunEnded)
    assert ended.outcome == outcome
    assert text in ended.error


def test_an_error_text_of_megabytes_is_bounded_and_keeps_its_end(run: Run, log: MemoryLog) -> None:
    run.close("crashed", "x" * 5_000_000 + "the end")
    (ended,) = log.of(RunEnded)
    assert ended.error.endswith("the end")


def test_a_pilot_that_stopped_the_run_decides_how_it_ended(run: Run, log: MemoryLog) -> None:
    with run:
        run.ending("stopped")
    (ended,) = log.of(RunEnded)
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
    (gap,) = log.of(TelemetryGap)
    assert gap.refused == {"metric_type": 2, "step": 3, "no_metrics": 1, "call": 1}
    assert run.counts().accepted == run.counts().sent == 4  # one row, RunStarted, StageChanged and RunEnded


class Silent:
    """Neither its text nor its number can be had."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    def __index__(self) -> int:
        raise RuntimeError("no number")

    __float__ = __index__


WRONG_CALLS: dict[str, Callable[[Any], object]] = {
    "stage": lambda run: run.stage("foo"),
    "stage's type": lambda run: run.stage(Silent()),
    "stage's step": lambda run: run.stage("train", -1),
    "evaluating": lambda run: enter(run.evaluating(step="seven")),
    "evaluating's arguments": lambda run: enter(run.evaluating(1, 2)),
    "attempt": lambda run: run.begin_attempt("again", 3),
    "attempt's step": lambda run: run.begin_attempt("restart"),
    "capture's arguments": lambda run: run.capture_logs("INFO", "", 3),
    "split": lambda run: run.evaluated(1, split="", loss=1.0),
    "split's type": lambda run: run.evaluated(1, split=Silent(), loss=1.0),
    "metrics in a dict": lambda run: run.evaluated(1, {"loss": 1.0}),
    "no step": lambda run: run.evaluated(loss=1.0),
    "metric": lambda run: run.evaluated(1, loss=Silent()),
    "step": lambda run: run.log(Silent(), loss=1.0),
    "value": lambda run: run.log(1, loss=Silent()),
    "outcome": lambda run: run.ending("done"),
    "fact": lambda run: run.tell("recipe_changed", step=1),
    "recipe": lambda run: run.recipe_changed("", 1),
    "recipe's step": lambda run: run.recipe_changed("mix", "seven"),
    "recipe's number": lambda run: run.recipe_changed("mix", 1, share="half"),
    "fact's field": lambda run: run.tell(RecipeChanged, step=1, what="x" * 201),
    "fact's name": lambda run: run.tell(RecipeChanged, step=1, what="x", rank=3),
    "fact's size": lambda run: run.tell(DataProfiled, step=1, feature="x", edges=(0.0,) * 200_000),
}


def enter(context: AbstractContextManager[None]) -> None:
    with context:
        pass


@pytest.mark.parametrize("call", WRONG_CALLS.values(), ids=WRONG_CALLS)
def test_a_wrong_call_is_said_once_in_one_line_with_the_line_that_made_it(
    call: Callable[[Any], object], run: Run, log: MemoryLog, caplog: pytest.LogCaptureFixture
) -> None:
    with run:
        for _ in range(3):
            call(run)
        run.log(7, loss=1.0)
    (record,) = caplog.records
    line = record.getMessage()
    assert "\n" not in line
    assert line.startswith(f"{__file__}:")
    assert "pydantic" not in line
    (gap,) = log.of(TelemetryGap)
    assert sum(gap.refused.values()) >= 3
    assert run.counts().dropped == 0
    assert log.of(StepBatch)[-1].steps == (7,)
    assert log.of(RunEnded)[0].outcome == "completed"


def test_the_pulse_goes_on_after_a_stage_that_is_none(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    run = Run(WHO, Settings(data_dir=tmp_path), {}, bench.outbox)
    run.stage("foo")  # type: ignore[arg-type]  # the mistake
    bench.clock.now += 10
    bench.settle()
    (beat,) = bench.log.of(Heartbeat)
    assert beat.stage == "prepare"


def test_a_beginning_is_not_lost_for_one_field(
    log: MemoryLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = {"config": {"lr": 0.1}, "cost_per_hour": -1.0, "tags": {"": "x"}, "model": "m" * 20_000}
    with open_run(tmp_path, log, wrong):
        pass
    (started,) = log.of(RunStarted)
    assert (started.config, started.cost_per_hour, started.tags, started.model) == ({"lr": 0.1}, None, {}, "")
    (record,) = caplog.records
    assert "RunStarted goes without" in record.getMessage()


@pytest.mark.parametrize("outcome", ["done", 3, ""])
@pytest.mark.parametrize("error", ["half a pair: \ud800", Silent(), 5])
def test_an_end_is_not_lost_for_what_it_was_given(outcome: Any, error: Any, run: Run, log: MemoryLog) -> None:
    run.ending("stopped")
    run.close(outcome, error)
    (ended,) = log.of(RunEnded)
    assert ended.outcome == "stopped"
    assert run.counts().dropped == 0


def test_calls_after_the_end_are_quiet(run: Run, log: MemoryLog) -> None:
    run.close()
    before = len(log.facts())
    run.log(1, loss=1.0)
    run.tell(RecipeChanged, step=2, what="x")
    run.close()
    assert len(log.facts()) == before


class Model:
    """Whatever holds its run: a model, a callback, a data set."""

    def __init__(self, run: Run) -> None:
        self.run = run


def test_a_copy_of_what_holds_a_run_holds_the_same_run(run: Run, log: MemoryLog) -> None:
    with run:
        model = Model(run)
        for made in (copy.deepcopy(model), copy.copy(model.run)):
            assert (made.run if isinstance(made, Model) else made) is run
        run.log(1, loss=1.0)
    assert log.of(StepBatch)[0].steps == (1,)


def test_what_arrives_by_pickle_knows_who_it_was_takes_every_call_and_publishes_nothing(
    run: Run, log: MemoryLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = threading.active_count()
    with run:
        run.log(7, loss=1.0)
        away = pickle.loads(pickle.dumps(Model(run))).run
        assert (away.identity, away.last_step, away.inert) == (run.identity, 7, True)
        with away:
            for call in (*WRONG_CALLS.values(), *RIGHT_CALLS):
                call(away)
        assert threading.active_count() == before
        again = pickle.loads(pickle.dumps(away))
        assert (again.identity, again.inert) == (away.identity, True)
    said = [record.getMessage() for record in caplog.records]
    assert len([line for line in said if "came here by pickle" in line]) == 1
    assert [fact.outcome for fact in log.of(RunEnded)] == ["completed"]
    assert {folder.name for folder in tmp_path.iterdir()} <= {"run"}


def test_no_password_goes_into_a_pickle(log: MemoryLog, tmp_path: Path) -> None:
    guarded = Settings(
        data_dir=tmp_path, kafka_password=SecretStr("mellon"), clickhouse_url="http://u:mellon@127.0.0.1:1/x"
    )
    run = Run(WHO, guarded, {}, Bench(tmp_path).outbox)
    assert b"mellon" not in pickle.dumps(run)


def test_a_process_that_may_start_no_thread_trains_on_and_is_told_so(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.close()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pilothouse.start_run("alone", settings=Settings(data_dir=tmp_path)) as alone:
        for call in (*WRONG_CALLS.values(), *RIGHT_CALLS):
            call(alone)
    said = [record.getMessage() for record in caplog.records]
    assert "this run publishes nothing: no thread of its own can be started (can't start new thread)" in said
    assert not [line for line in said if "a bug of Pilothouse" in line]


def test_a_handler_of_the_script_that_raises_ends_neither_its_loop_nor_what_sends(
    run: Run, log: MemoryLog, capsys: pytest.CaptureFixture[str]
) -> None:
    class Refuses(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            raise OSError("the log server is gone")

    handler = Refuses()
    logging.getLogger("pilothouse").addHandler(handler)
    try:
        with run:
            run.log(1, loss="no number")
            run.tell(DataProfiled, step=1, feature="x", edges=(0.0,) * 200_000)
            run.log(2, loss=1.0)
    finally:
        logging.getLogger("pilothouse").removeHandler(handler)
    assert log.of(StepBatch)[0].steps == (2,)
    assert f"pilothouse: {__file__}:" in capsys.readouterr().err


def test_a_pilot_of_what_arrived_by_pickle_trains_on_and_listens_to_nobody(run: Run) -> None:
    import torch

    model = torch.nn.Linear(1, 1)
    with run:
        away = pickle.loads(pickle.dumps(run))
        before = threading.active_count()
        pilot = away.pilot(model, torch.optim.SGD(model.parameters(), lr=0.1))
        assert [batch for step, batch in pilot.batches([7, 8]) if pilot.safe_point(step)] == [7, 8]
        assert threading.active_count() == before
        assert copy.deepcopy(pilot) is pilot
        pilot.close()


RIGHT_CALLS: tuple[Callable[[Any], object], ...] = (
    lambda run: run.log(8, loss=1.0),
    lambda run: run.evaluated(8, loss=1.0),
    lambda run: run.stage("evaluate"),
    lambda run: run.report_fact("promotion"),
    lambda run: run.begin_attempt("rollback", 3),
    lambda run: run.capture_logs(),
    lambda run: run.profile("x", [1.0]),
    lambda run: [run.log(9, loss=1.0) for _ in run.timed([1, 2])],
    lambda run: run.counts(),
)


def test_a_call_with_arguments_that_it_has_not_is_counted_and_said_where_it_was_made(
    run: Run, log: MemoryLog, caplog: pytest.LogCaptureFixture
) -> None:
    with run:
        run.stage("train", 1, 2)  # type: ignore[call-arg]  # the mistake
        run.evaluated(1, "validation", 2, loss=1.0)  # type: ignore[call-arg]  # the mistake
    assert log.of(TelemetryGap)[0].refused == {"stage": 1, "evaluated": 1}
    assert all(record.getMessage().startswith(f"{__file__}:") for record in caplog.records)


def test_what_nobody_thought_of_is_said_once_and_goes_no_further(
    run: Run, log: MemoryLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run:
        monkeypatch.setattr(run._timings, "stage", lambda _stage: 1 / 0)
        run.stage("evaluate")
        run.stage("train")
        run.log(1, loss=1.0)
    assert caplog.text.count("run.stage failed; training goes on, but this is a bug of Pilothouse") == 1
    assert log.of(StepBatch)[0].steps == (1,)


def test_a_wrong_setting_of_the_environment_is_said_once_and_costs_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in (("DATA_DIR", str(tmp_path)), ("CLOSE_SECONDS", "0.1"), ("COLOUR", "red"), ("PARTITIONS", "x"),
                        ("KAFKA", f"127.0.0.1:{free_port()}")):  # fmt: skip
        monkeypatch.setenv(f"PILOTHOUSE_{name}", value)
    for _ in range(2):
        with pilothouse.start_run("gpt") as opened:
            opened.log(1, loss=1.0)
        assert opened.counts().spooled == 4
    (said,) = [record.getMessage() for record in caplog.records if "settings are wrong" in record.getMessage()]
    assert "the run goes on without them" in said
    assert "colour (variable PILOTHOUSE_COLOUR): there is no such setting" in said
    assert "partitions (variable PILOTHOUSE_PARTITIONS)" in said


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
    [
        ({"colour": "red"}, "does not know colour"),
        ({"run_id": "a\nb"}, "printable"),
        ({"tags": ["a"]}, "tags must be"),
        ({"cost_per_hour": "abc"}, "cost_per_hour must be"),
        ({"cost_per_hour": -1}, "cost_per_hour must be"),
        ({"settings": {}}, "settings must be"),
    ],
)
def test_a_mistake_at_the_start_is_one_clear_line(said: dict[str, Any], message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        pilothouse.start_run("gpt", **said)


def test_a_run_with_everything_strange_about_it_is_announced_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(kafka=f"127.0.0.1:{free_port()}", data_dir=tmp_path, close_seconds=2.0)
    strange = {"lr": numpy.float64(0.1), "callback": Silent()}
    with pilothouse.start_run(
        "half a pair: \ud800", run_id="strange", config=strange, tags={"owner": Silent()}, settings=settings
    ) as run:
        run.log(1, loss=1.0)
    (folder,) = (tmp_path / "spool").glob("*/*")
    started, *_ = [decode(record.headers, record.body) for record in read_folder(folder)]
    assert isinstance(started, RunStarted)
    assert started.config["lr"] == 0.1
    assert started.tags["name"] == "half a pair: ?"
    assert len([record for record in caplog.records if "start_run tells less" in record.getMessage()]) == 1
    assert run.counts().dropped == 0
