"""A log of others told as a live run would have told it, and judged by the same core."""

import math
from pathlib import Path

import pytest

from pilothouse.events.codec import encode
from pilothouse.events.commands import PolicyActivated, Tick
from pilothouse.events.decisions import ConditionChanged, IncidentOpened, PhaseChanged
from pilothouse.events.telemetry import EvalCompleted, Heartbeat, ResourcesSampled, RunEnded, RunStarted, StepBatch
from pilothouse.storage.imports.arranging import Evaluation, Row, arranged
from pilothouse.storage.imports.names import Naming, place_of, renaming
from pilothouse.storage.imports.source import Item, Said
from pilothouse.storage.imports.survey import survey
from pilothouse.tests.scripted_log import BEGAN, SECOND, ScriptedLog, decisions_of, events_of, history_of, rows

EVEN = [2.0 * index for index in range(60)]


def phases_of(log: ScriptedLog, outcome: str = "") -> list[str]:
    return [one.phase for one in decisions_of(log, outcome) if isinstance(one, PhaseChanged)]


def hangs_of(log: ScriptedLog) -> list[ConditionChanged]:
    changes = [one for one in decisions_of(log) if isinstance(one, ConditionChanged)]
    return [one for one in changes if one.condition == "Progressing" and one.status == "False"]


def bodies(log: ScriptedLog) -> list[bytes]:
    return [encode(record.event).body for record in history_of(log)]


def test_the_same_log_gives_the_same_events_and_decisions_to_the_last_bit() -> None:
    elsewhere = ScriptedLog(rows(EVEN), path=Path("elsewhere.csv"))
    assert bodies(ScriptedLog(rows(EVEN))) == bodies(elsewhere)


def test_another_log_gives_events_of_other_ids() -> None:
    first, second = (
        {event.event_id for event in events_of(log) if not isinstance(event, PolicyActivated)}
        for log in (ScriptedLog(rows(EVEN)), ScriptedLog(rows(EVEN)[:-1]))
    )
    assert not first & second


def test_a_whole_run_is_judged_from_its_start_to_its_end() -> None:
    log = ScriptedLog(rows(EVEN))
    assert phases_of(log)[-2:] == ["Normal", "Ended"]
    told = events_of(log)
    assert isinstance(told[0], RunStarted)
    assert isinstance(told[-1], RunEnded)
    assert told[-1].outcome == "completed"
    assert told[0].environment["imported"]["outcome"] == "assumed"  # type: ignore[index,call-overload]  # JSON


def test_the_times_are_those_of_the_original() -> None:
    told = events_of(ScriptedLog(rows(EVEN)))
    times = [at for event in told if isinstance(event, StepBatch) for at in event.times]
    assert times == [BEGAN + round(second * SECOND) for second in EVEN]
    ticks = [event.at for event in told if isinstance(event, Tick)]
    assert ticks == [BEGAN + SECOND * (1 + index) for index in range(len(ticks))]
    assert ticks[-1] == times[-1]


def test_a_hang_is_judged_by_the_times_of_the_original() -> None:
    paused = EVEN + [EVEN[-1] + 1_200.0 + 2.0 * index for index in range(60)]
    [hang] = hangs_of(ScriptedLog(rows(paused)))
    assert 20 < (hang.at - BEGAN) / SECOND - EVEN[-1] < 120
    assert hangs_of(ScriptedLog(rows(EVEN))) == []


@pytest.mark.parametrize("apart", [0.05, 1.0, 20.0, 600.0, 3_600.0, 86_400.0])
def test_rows_at_even_distances_are_no_hang_however_far_apart(apart: float) -> None:
    decisions = decisions_of(ScriptedLog(rows([apart * index for index in range(20)])))
    assert not any(isinstance(one, IncidentOpened) for one in decisions)
    assert [one for one in decisions if isinstance(one, PhaseChanged) and one.phase in ("Stalled", "Unknown")] == []


def test_an_evaluation_is_not_a_hang() -> None:
    before = rows(EVEN)
    evaluated = Item(BEGAN + round((EVEN[-1] + 900) * SECOND), len(EVEN) - 1, {"val_loss": 2.5})
    after = rows([EVEN[-1] + 902.0 + 2 * index for index in range(60)], len(EVEN))
    log = ScriptedLog([*before, evaluated, *after])
    assert hangs_of(log) == []
    assert [event.metrics for event in events_of(log) if isinstance(event, EvalCompleted)] == [{"loss": 2.5}]


def test_a_silence_of_a_year_costs_no_year_of_ticks() -> None:
    log = ScriptedLog(rows([*EVEN, EVEN[-1] + 365 * 86_400.0]))
    assert sum(isinstance(event, Tick) for event in events_of(log)) < 20_000


def test_a_log_of_many_rows_costs_ticks_for_its_time_and_not_more() -> None:
    log = ScriptedLog(rows([0.01 * index for index in range(5_000)]))
    assert sum(isinstance(event, Tick) for event in events_of(log)) == 49


def test_whoever_wrote_afterwards_was_alive_in_between() -> None:
    log = ScriptedLog(rows([*EVEN, EVEN[-1] + 3_000.0]))
    assert any(isinstance(event, Heartbeat) for event in events_of(log))
    assert phases_of(log).count("Ended") == 1


def test_a_log_that_tells_ends_and_has_none_is_of_a_run_that_was_lost() -> None:
    log = ScriptedLog(rows(EVEN), Said(outcome="lost"))
    changes = [one for one in decisions_of(log) if isinstance(one, PhaseChanged)]
    assert (changes[-1].phase, changes[-1].reason) == ("Ended", "Lost")
    assert not any(isinstance(event, RunEnded) for event in events_of(log))


def test_a_person_may_say_how_it_ended() -> None:
    [ended] = [event for event in events_of(ScriptedLog(rows(EVEN)), "diverged") if isinstance(event, RunEnded)]
    assert ended.outcome == "diverged"


def test_an_end_that_is_told_later_is_when_the_run_ended() -> None:
    said = Said(outcome="crashed", ended_at=BEGAN + 4_000 * SECOND, error="exit code 1")
    log = ScriptedLog(rows(EVEN), said)
    ended = events_of(log)[-1]
    assert isinstance(ended, RunEnded)
    assert (ended.outcome, ended.at, ended.error) == ("crashed", BEGAN + 4_000 * SECOND, "exit code 1")
    assert len(hangs_of(log)) == 1


def test_steps_that_go_back_are_another_attempt_and_nothing_is_lost() -> None:
    log = ScriptedLog([*rows(EVEN), *rows([200.0 + 2 * index for index in range(60)], 40)])
    starts = [event for event in events_of(log) if isinstance(event, RunStarted)]
    assert [(start.attempt, start.first_step) for start in starts] == [(1, 0), (2, 40)]
    assert starts[1].reason == "restart"
    assert starts[1].parent_attempt_id == starts[0].attempt_id
    steps = [step for event in events_of(log) if isinstance(event, StepBatch) for step in event.steps]
    assert steps == [*range(60), *range(40, 100)]
    assert not any(isinstance(one, IncidentOpened) for one in decisions_of(log))


def test_steps_that_begin_anew_with_each_epoch_are_counted_on() -> None:
    rows_of_epochs = [
        Item(None, step, {"loss": 2.0, "epoch": float(epoch)}) for epoch in range(3) for step in range(0, 200, 20)
    ]
    evaluated = Item(None, 180, {"val_loss": 2.5})
    told = list(arranged([*rows_of_epochs, evaluated], Naming()))
    assert [one.step for one in told if isinstance(one, Row)] == list(range(0, 600, 20))
    assert not any(one.restarts for one in told if isinstance(one, Row))
    assert told[-1] == Evaluation(None, 580, "validation", {"loss": 2.5})


def test_a_resumed_job_that_repeats_an_epoch_is_a_restart() -> None:
    steps = [(step, step // 10) for step in (*range(25), *range(20, 40))]
    told = arranged([Item(None, step, {"loss": 2.0, "epoch": float(epoch)}) for step, epoch in steps], Naming())
    assert [one.step for one in told if isinstance(one, Row) and one.restarts] == [20]


def test_between_two_processes_nobody_was_alive() -> None:
    log = ScriptedLog([*rows(EVEN), *rows([3_000.0 + 2 * index for index in range(60)], 40)])
    assert hangs_of(log) == []
    assert phases_of(log).count("Ended") == 2
    assert not any(isinstance(event, Heartbeat) for event in events_of(log))


def test_a_single_late_row_is_no_restart() -> None:
    items = rows(EVEN)
    late = [*items[:30], items[32], items[31], *items[33:]]
    assert sum(isinstance(event, RunStarted) for event in events_of(ScriptedLog(late))) == 1


def test_values_of_one_step_are_one_row_whoever_logged_them() -> None:
    items = [
        Item(BEGAN, 0, {"loss": 1.0}),
        Item(BEGAN + 1, 0, {"lr": 0.1, "val_loss": 2.0}),
        Item(BEGAN + 2, 0, {"val_accuracy": 0.5}),
        Item(BEGAN + 3, 0, {"loss": 9.0}),
        Item(BEGAN + 4, 1, {"loss": 0.9}),
    ]
    assert list(arranged(items, Naming())) == [
        Row(BEGAN, 0, {"loss": 1.0, "lr": 0.1}),
        Evaluation(BEGAN + 1, 0, "validation", {"loss": 2.0, "accuracy": 0.5}),
        Row(BEGAN + 3, 0, {"loss": 9.0}),
        Row(BEGAN + 4, 1, {"loss": 0.9}),
    ]


def test_what_the_machine_did_is_told_as_such() -> None:
    items = [Item(BEGAN, None, {"system/cpu": 5.0}), *rows(EVEN)]
    [sampled] = [event for event in events_of(ScriptedLog(items)) if isinstance(event, ResourcesSampled)]
    assert sampled.values == {"system/cpu": 5.0}


def test_without_a_clock_rows_are_evenly_spread_and_judged_all_the_same() -> None:
    items = [Item(None, step, {"loss": 2.0 + 0.001 * (step % 7)}) for step in range(400)]
    items[300:303] = [Item(None, step, {"loss": math.nan}) for step in range(300, 303)]
    log = ScriptedLog(items, Said(clock="none"))
    assert hangs_of(log) == []
    assert "Diverged" in phases_of(log)


def test_series_by_another_count_do_not_disturb_the_steps() -> None:
    items: list[Item] = []
    for index in range(60):
        at = BEGAN + 2 * index * SECOND
        items += [Item(at, index, {"loss": 2.0}), Item(at + 1, index * 64, {"by_samples": 1.0})]
    log = ScriptedLog(items)
    assert survey(log, {}).naming.aside == {"by_samples"}
    assert phases_of(log)[-2:] == ["Normal", "Ended"]


# -------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "theirs, ours",
    [
        ("Loss/train", "loss"),
        ("training_loss", "loss"),
        ("trainLoss", "loss"),
        ("train/grad-norm", "grad_norm"),
        ("lr-AdamW/pg1", "lr"),
        ("tokens_per_sec", "throughput"),
    ],
)
def test_what_people_call_it_is_known(theirs: str, ours: str) -> None:
    assert renaming([theirs, "accuracy"], {}) == {theirs: ours}


@pytest.mark.parametrize("known", ["loss", "train_loss", "train/loss"])
def test_what_the_core_knows_keeps_its_name(known: str) -> None:
    assert "loss" not in renaming([known, "total_loss"], {}).values()


def test_what_a_person_says_wins() -> None:
    assert renaming(["loss", "ce"], {"loss": "ce"}) == {"ce": "loss"}


@pytest.mark.parametrize(
    "name, split, inner",
    [
        ("eval_loss", "validation", "loss"),
        ("val/accuracy", "validation", "accuracy"),
        ("Loss/val", "validation", "loss"),
        ("test_f1", "test", "f1"),
        ("evaluation.wiki.ppl", "validation", "wiki.ppl"),
        ("value_loss", "", "value_loss"),
        ("latest", "", "latest"),
    ],
)
def test_evaluations_are_known_by_their_names(name: str, split: str, inner: str) -> None:
    assert place_of(name, Naming()) == (split, inner)
