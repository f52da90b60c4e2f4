"""Conditions and phases as a run lives through them: what is known, and when it stops being known."""

import math
from collections.abc import Sequence

import pytest

from pilothouse.events.decisions import (
    ConditionChanged,
    IncidentOpened,
    IncidentResolved,
    InterventionProposed,
    PhaseChanged,
    RunAssessed,
)
from pilothouse.events.telemetry import RecipeChanged, TelemetryGap
from pilothouse.governance.conditions import JUDGED, Condition, Threshold, hysteresis
from pilothouse.stream_processors.detectors import hang
from pilothouse.stream_processors.fold import fold
from pilothouse.stream_processors.judging import LOST_TICKS, SILENT_TICKS
from pilothouse.stream_processors.run_state import dump_state, load_state
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.run_builder import SECOND, START, log, quiet_loss, tick

THRESHOLD = Threshold(enter=8.0, exit=4.0, for_steps=2, keep_for=3)


def statuses(values: Sequence[float]) -> str:
    condition = Condition("Stable")
    told = ""
    for value in values:
        condition.status = hysteresis(condition, THRESHOLD, value)
        told += condition.status[0]
    return told


@pytest.mark.parametrize(
    "values, expected",
    [
        ([0, 9, 0, 9, 0], "TTTTT"),
        ([9, 9, 9], "TFF"),
        ([8, 8], "TF"),
        ([9, 9, 5, 5, 5, 5], "TFFFFF"),
        ([9, 9, 3, 3, 3], "TFFFT"),
        ([9, 9, 3, 3, 5, 3, 3, 3], "TFFFFFFT"),
        ([9, 9, 3, 3, 9, 3, 3, 3], "TFFFFFFT"),
        ([math.inf, math.inf], "TF"),
    ],
)
def test_conditions_are_raised_fast_and_cleared_slowly(values: Sequence[float], expected: str) -> None:
    assert statuses(values) == expected


def phases(run: GovernedRun) -> list[str]:
    return [decision.phase for decision in run.of(PhaseChanged)]


def changes(run: GovernedRun, condition: str) -> list[tuple[str, str]]:
    return [(found.status, found.reason) for found in run.of(ConditionChanged) if found.condition == condition]


def spiked(start: int, length: int, height: float, rank: int | None = None) -> GovernedRun:
    def loss(position: int, step: int, its_rank: int) -> float:
        bad = start <= position < start + length and rank in (None, its_rank)
        return quiet_loss(step, its_rank) + (height if bad else 0.0)

    return GovernedRun(loss=loss, obeys=False)


def test_a_quiet_run_warms_up_is_normal_and_ends() -> None:
    run = GovernedRun().begin().train(100).end()
    assert phases(run) == ["Warmup", "Normal", "Ended"]
    assert run.of(PhaseChanged)[-1].reason == "Completed"


@pytest.mark.parametrize("height", [4.0, 1e20])
def test_a_run_that_stays_thrown_up_is_not_well_again_however_long_it_stays(height: float) -> None:
    run = spiked(60, 10_000, height).begin().train(600)
    assert changes(run, "Stable")[-1] == ("False", "LossAboveBaseline")
    assert len(run.of(IncidentOpened)) == 1
    assert not run.of(IncidentResolved)
    assert phases(run)[-1] in ("Unstable", "Diverged")


@pytest.mark.parametrize(
    "outcome, reason", [("crashed", "Crashed"), ("out_of_memory", "OutOfMemory"), ("stopped", "Stopped")]
)
def test_the_phase_says_how_a_run_ended(outcome: str, reason: str) -> None:
    assert GovernedRun().begin().train(3).end(outcome).of(PhaseChanged)[-1].reason == reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_rank_that_is_not_finite_is_a_divergence_at_once(value: float) -> None:
    run = spiked(40, 1, value, rank=3).begin().train(41)
    assert changes(run, "Finite") == [("True", "AllFinite"), ("False", "NonFinite")]
    assert phases(run)[-1] == "Diverged"
    assert run.of(ConditionChanged)[-1].since_step == 40
    assert run.of(IncidentOpened)[0].onset_step == 40


def test_a_spike_is_unstable_from_its_second_step_with_its_evidence() -> None:
    run = spiked(150, 12, 2.0).begin().train(152)
    changed = run.of(ConditionChanged)[-1]
    assert (changed.condition, changed.status, changed.since_step) == ("Stable", "False", 151)
    assert changed.evidence["instability"] >= changed.evidence["enter"] == 1.0
    assert changed.evidence["loss_z"] > 7.0
    assert run.of(IncidentOpened)[0].onset_step == 150
    assert phases(run)[-1] in ("Unstable", "Diverged")


def test_a_loss_far_past_its_bound_has_diverged() -> None:
    assert phases(spiked(150, 12, 1e6).begin().train(152))[-1] == "Diverged"


def test_silence_makes_everything_unknown_and_hearing_makes_it_known_again() -> None:
    run = GovernedRun().begin().train(60)
    run.tick(SILENT_TICKS - 2)  # one came after the last step
    assert phases(run)[-1] == "Normal"
    run.tick()
    assert changes(run, "TelemetryFresh")[-1] == ("False", "Silent")
    assert phases(run)[-1] == "Unknown"
    run.train(1)
    assert changes(run, "TelemetryFresh")[-1] == ("True", "Reporting")
    assert phases(run)[-1] == "Normal"


def test_a_run_that_was_silent_too_long_is_lost_and_may_be_heard_again() -> None:
    run = GovernedRun().begin().train(60).tick(LOST_TICKS)
    assert (phases(run)[-1], run.of(PhaseChanged)[-1].reason) == ("Ended", "Lost")
    run.train(1)
    assert phases(run)[-1] == "Normal"
    reasons = [reason for _, reason in changes(run, "TelemetryFresh")]
    assert "TelemetryLost" not in reasons, "no gap in the ticks it slept"


def test_a_run_that_ended_may_begin_again_and_finds_no_gap_in_the_time_it_slept() -> None:
    run = GovernedRun().begin().train(20).end("preempted")
    run.ticks += 100  # nobody shows time to an ended run
    run.begin_attempt("restart", "again", 11)
    run.train(30)
    assert phases(run)[-3:] == ["Ended", "Warmup", "Normal"]
    assert not any(reason == "TelemetryLost" for _, reason in changes(run, "TelemetryFresh"))


def test_time_shown_to_an_ended_run_changes_nothing() -> None:
    run = GovernedRun().begin().train(20).end()
    before = len(run.decisions)
    run.tick(1_000)
    assert len(run.decisions) == before


def test_alive_ranks_without_a_step_are_a_hang() -> None:
    run = GovernedRun().begin().train(60)
    run.heartbeats(int(hang.LEAST) - 2)  # one second passed after the last step
    assert phases(run)[-1] == "Normal"
    run.heartbeats(1)
    assert changes(run, "Progressing")[-1] == ("False", "NoStepEnded")
    assert run.of(ConditionChanged)[-1].evidence == {"waited_s": 30.0, "allowed_s": 30.0, "usual_s": 1.0}
    assert phases(run)[-1] == "Stalled"
    run.train(1)
    assert phases(run)[-1] == "Normal"


@pytest.mark.parametrize("stage", ["evaluate", "checkpoint", "paused", "compile"])
def test_what_is_not_training_is_no_hang(stage: str) -> None:
    run = GovernedRun().begin().train(60).stage(stage).heartbeats(300, stage)
    run.stage("train").heartbeats(20)
    assert phases(run) == ["Warmup", "Normal"]


def test_an_evaluation_that_takes_twenty_times_as_long_as_usual_is_a_hang() -> None:
    run = GovernedRun().begin()
    for _ in range(3):
        run.train(30).stage("evaluate").heartbeats(90, "evaluate").stage("train")
    run.train(30).stage("evaluate").heartbeats(5 * 90 - 1, "evaluate")
    assert "Stalled" not in phases(run)
    run.heartbeats(1, "evaluate")
    assert phases(run)[-1] == "Stalled"
    [said] = [found for found in run.of(ConditionChanged) if found.reason == "NoStepEnded"]
    assert said.message == "stage evaluate has not ended for 450 s; it usually takes up to 90 s"
    run.stage("train").train(1)
    assert phases(run)[-1] == "Normal"


def test_slow_steps_are_no_hang_once_their_pace_is_known() -> None:
    run = GovernedRun(world=1).begin()
    for _ in range(40):
        run.train(1).heartbeats(49)
    assert phases(run) == ["Warmup", "Normal"]


def test_a_run_that_was_started_again_has_time_for_its_first_steps() -> None:
    run = GovernedRun(world=1, checkpoint_every=0).begin().train(60)
    run.begin_attempt("restart", "again", 60)
    run.train(1).heartbeats(200).train(1).heartbeats(200)
    assert "Stalled" not in phases(run)


def test_a_step_that_ends_at_last_gives_all_margin_back() -> None:
    run = GovernedRun(world=1).begin().train(60).heartbeats(20).train(1)
    assert run.state.margin == 1.0
    assert phases(run) == ["Warmup", "Normal"]


def test_a_hang_is_seen_even_where_all_steps_ended_before_the_first_tick() -> None:
    run = GovernedRun().begin().train(3, steps_per_tick=1_000).heartbeats(int(hang.LEAST_EARLY) + 2)
    assert phases(run)[-1] == "Stalled"


def test_nothing_is_known_of_a_run_that_nobody_started_until_somebody_does() -> None:
    run = GovernedRun(world=1)
    run.train(20)
    run.heartbeats(40)
    assert changes(run, "TelemetryFresh") == [("Unknown", "NotStarted")]
    assert phases(run) == []
    run.begin()
    assert phases(run) == ["Warmup", "Normal"]
    assert run.state.current is not None
    assert run.state.current.judged == 19


def test_lost_telemetry_is_said_with_its_reasons_again_when_it_is_twice_as_much_and_makes_nothing_fresh() -> None:
    run = GovernedRun().begin().train(20)
    rank = run.ranks[1]
    for count in (3, 4, 1, 8):
        run.tell(rank, rank.tell, TelemetryGap, dropped={"full": count})
    said = [found for found in run.of(ConditionChanged) if found.reason == "TelemetryLost"]
    assert [found.message for found in said] == [
        "3 steps or records were lost (full); 3 so far",
        "4 steps or records were lost (full); 7 so far",
        "1 steps or records were lost (full); 8 so far",
        "8 steps or records were lost (full); 16 so far",
    ]
    assert {found.status for found in said} == {"True"}


def test_losses_with_every_record_are_said_a_few_times_only() -> None:
    run = GovernedRun().begin().train(20)
    rank = run.ranks[1]
    for _ in range(1_000):
        run.tell(rank, rank.tell, TelemetryGap, dropped={"full": 1})
    assert len([found for found in run.of(ConditionChanged) if found.reason == "TelemetryLost"]) == 10


def test_calls_that_were_refused_lost_nothing() -> None:
    run = GovernedRun().begin().train(20)
    rank = run.ranks[1]
    before = len(run.decisions)
    run.tell(rank, rank.tell, TelemetryGap, dropped={}, refused={"metric_type": 3, "step": 1})
    assert len(run.decisions) == before


def test_a_loop_that_counts_from_the_beginning_again_is_unknown_not_stalled_and_said_with_what_to_do() -> None:
    """As a script does that numbers its steps by epoch; what it says of steps gone by is not taken for the present."""
    run = GovernedRun(world=2).begin().train(80)
    run.step = 0
    for _ in range(7):
        run.train(10, steps_per_tick=1)
    run.loss = lambda *_: math.nan
    run.train(5)
    [back] = [found for found in run.of(ConditionChanged) if found.reason == "StepsWentBack"]
    assert back.status == "Unknown"
    assert "step 2 after step 79" in back.message
    assert "run.begin_attempt" in back.message
    assert phases(run)[-1] == "Unknown"
    assert run.of(ConditionChanged)[-1] == back, "neither stalled nor diverged"
    assert run.of(InterventionProposed) == []
    stable = [known.step for known in run.state.candidates if known.stable]
    assert not {10, 20, 30, 40, 50, 60, 70} & set(stable), "saved again at steps that nobody judged"
    run.loss = lambda _, step, rank: quiet_loss(step, rank)
    run.train(10)
    assert changes(run, "TelemetryFresh")[-1] == ("True", "Reporting")
    assert phases(run)[-1] == "Normal"


def test_a_late_word_about_a_step_gone_by_is_nothing() -> None:
    run = GovernedRun(world=1).begin().train(100)
    rank, before = run.ranks[0], len(run.decisions)
    for step in range(100, 110):
        run.tell(rank, rank.log, [step, step - 30, step - 29, step], [2.0, 9.0, 9.0, 9.0])
    assert len(run.decisions) == before


def test_one_step_far_out_of_order_is_said_too() -> None:
    run = GovernedRun(world=1).begin().train(80)
    run.tell(run.ranks[0], run.ranks[0].log, [10**9], [2.0])
    run.train(5)
    assert phases(run)[-1] == "Unknown"
    assert changes(run, "TelemetryFresh")[-1] == ("Unknown", "StepsWentBack")


def test_a_gap_that_lists_what_is_missing_explains_it() -> None:
    run = GovernedRun().begin().train(20)
    rank = run.ranks[1]
    last = rank.seq
    rank.seq += 5
    run.tell(rank, rank.tell, TelemetryGap, dropped={}, missing=((last + 1, last + 3), (last + 2, last + 5)))
    assert run.state.lost_records == 0
    assert run.of(ConditionChanged)[-1].reason == "TelemetryLost"


def test_a_lost_tick_does_not_make_a_silent_run_fresh() -> None:
    run = GovernedRun().begin().train(20).tick(SILENT_TICKS)
    run.ticks += 1
    folded = fold(run.state, log([tick(run.ticks + 1, START + run.ticks * SECOND)])[0], accept_gap=True)
    assert [decision.status for decision in folded.decisions if isinstance(decision, ConditionChanged)] == ["False"]
    assert folded.state.phase == "Unknown"


def test_windows_restart_when_the_recipe_changes_so_that_no_alarm_follows() -> None:
    run = GovernedRun(world=1, loss=lambda position, step, _: quiet_loss(step) + 1.5 * (position >= 100)).begin()
    run.train(100)
    run.tell(run.ranks[0], run.ranks[0].tell, RecipeChanged, step=99, what="data mix")
    run.train(60)
    assert "Unstable" not in phases(run)


def test_a_run_is_assessed_once_a_tick_when_steps_were_judged() -> None:
    run = GovernedRun().begin().train(20, steps_per_tick=5).tick(10)
    assert len(run.of(RunAssessed)) == 4
    assert run.of(RunAssessed)[-1].stability_score == 100.0
    assert run.of(RunAssessed)[-1].features["steps_observed"] == 20.0


def test_a_run_is_assessed_once_more_when_it_is_over() -> None:
    run = spiked(60, 12, 2.0).begin().train(150).end()
    [*_, last] = run.of(RunAssessed)
    assert (last.phase, run.decisions[-1]) == ("Ended", last)
    assert 70.0 < last.stability_score < 100.0


def test_what_a_rollback_undid_lowers_the_stability_of_the_run() -> None:
    obedient, stubborn = (
        GovernedRun(loss=lambda position, step, rank: quiet_loss(step, rank) + 3.0 * (60 <= position < 72), obeys=obeys)
        for obeys in (True, False)
    )
    for run in (obedient, stubborn):
        run.begin().train(150)
    score = obedient.state.score
    assert (score.undone > 0, stubborn.state.score.undone) == (True, 0)
    assert score.incidents == len(obedient.of(IncidentOpened))
    assert score.steps == obedient.state.ledger.judged


def test_a_state_from_before_a_condition_was_judged_goes_on() -> None:
    run = GovernedRun(world=1).begin().train(40)
    for name in ("Efficient", "InDistribution"):
        del run.state.conditions[name]
    run.state = load_state(dump_state(run.state))
    run.train(80)
    assert list(run.state.conditions) == list(JUDGED)
    assert changes(run, "Efficient") == [("True", "AsUsual")]


def test_a_rank_that_falls_behind_is_waited_for_and_then_not() -> None:
    run = GovernedRun(world=2).begin().train(20)
    slow = run.ranks.pop()
    run.train(14)
    assert run.state.last_features["steps_observed"] == 20.0
    run.train(6)
    assert run.state.last_features["ranks_reporting"] == 1.0
    assert run.state.current is not None
    assert run.state.current.judged >= 35
    run.ranks.append(slow)
    run.train(3)
    assert run.state.last_features["ranks_reporting"] == 2.0
