"""Which checkpoint is good, and the whole rollback as four ranks tell it."""

import math
from typing import Any

import pytest

from pilothouse.events.decisions import (
    CheckpointRejected,
    ConditionChanged,
    IncidentOpened,
    IncidentResolved,
    InterventionDeclined,
    InterventionIssued,
    InterventionVerified,
    PhaseChanged,
)
from pilothouse.events.telemetry import LR_RAMP, CheckpointSaved, CheckpointUnavailable, RecipeChanged
from pilothouse.governance.recovery import (
    KEPT,
    KEPT_BYTES,
    Candidate,
    good_before,
    last_good,
    reject,
    remember,
    rewound,
)
from pilothouse.stream_processors.run_state import EARLY_PENDING
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.run_builder import ALL_ACTIONS, quiet_loss

ROLLBACK = """
name: p
mode: enforce
rules:
- name: nonfinite
  when: conditions.Finite == 'False' || conditions.Stable == 'False'
  actions: [{action: rollback, skip_batches: 4, lr_factor: 0.7}]
  cooldown_steps: 5
  limit: {count: 9}
  verify: {window_steps: 20}
"""


def candidate(step: int, *, stable: bool = True, path: str = "/c") -> Candidate:
    return Candidate(f"checkpoint-{step}", step, path, "0" * 64, stable)


def steps(candidates: list[Candidate]) -> list[int]:
    return [known.step for known in candidates]


def test_the_last_good_is_the_newest_stable_one_before_the_onset() -> None:
    known = [candidate(10), candidate(30), candidate(20), candidate(40, stable=False)]
    for before, step in ((None, 30), (31, 30), (30, 20), (11, 10)):
        good = last_good(known, before)
        assert good is not None
        assert good.step == step
    assert last_good(known, 10) is None


def test_a_rejected_one_is_never_offered_again() -> None:
    known = [candidate(10), candidate(20)]
    assert reject(known, "checkpoint-20") is known[1]
    assert reject(known, "checkpoint-20") is None
    assert reject(known, "unknown") is None
    assert last_good(known, None) is known[0]


def test_the_oldest_are_forgotten_but_never_the_last_stable_one() -> None:
    known: list[Candidate] = []
    remember(known, candidate(0))
    for step in range(1, 100):
        remember(known, candidate(step, stable=False))
    assert len(known) == KEPT
    assert last_good(known, None) is known[0]
    assert steps(known)[1:] == list(range(85, 100))


def test_the_last_one_up_to_the_lowest_validation_loss_is_not_forgotten_while_there_is_room_for_three() -> None:
    known: list[Candidate] = []
    for step in range(0, 1_000, 10):
        remember(known, candidate(step), best=34 if step > 90 else None)
    assert steps(known) == [30, *range(850, 1_000, 10)]
    large: list[Candidate] = []
    for step in range(10):
        remember(large, candidate(step, path="x" * 4_000), best=4)
    assert steps(large) == [4, 9]


def test_candidates_are_bounded_in_bytes_too() -> None:
    known: list[Candidate] = []
    for step in range(10):
        remember(known, candidate(step, path="x" * 4_000))
    assert steps(known) == [8, 9]
    remember(known, candidate(10, path="x" * KEPT_BYTES))
    assert known == []


def test_one_saved_again_replaces_itself() -> None:
    known = [candidate(1), candidate(2)]
    remember(known, candidate(1, stable=False))
    assert steps(known) == [2, 1]


def test_going_back_leaves_what_belongs_to_the_kept_lineage() -> None:
    assert steps(rewound([candidate(10), candidate(20), candidate(30)], 20)) == [10, 20]


def bad(start: int, stop: int, extra: float, rank: int | None = None) -> Any:
    def loss(position: int, step: int, its_rank: int) -> float:
        spoiled = start <= position < stop and rank in (None, its_rank)
        return quiet_loss(step, its_rank) + (extra if spoiled else 0.0)

    return loss


def rolled_back_to(run: GovernedRun) -> list[int]:
    return [decision.action.checkpoint.step for decision in run.of(InterventionIssued)]


def test_a_checkpoint_is_good_only_if_it_was_saved_while_stable_and_before_the_first_evidence() -> None:
    """The spike begins at 153 and is judged at 154; what was saved at 150 is good, at 153 it is not: not the newest."""
    run = GovernedRun(loss=bad(153, 170, 2.0), checkpoint_every=3, obeys=False).begin(ROLLBACK).train(160)
    assert run.of(IncidentOpened)[0].onset_step == 153
    assert rolled_back_to(run) == [150]


def test_nothing_is_good_before_there_is_a_baseline() -> None:
    run = GovernedRun(loss=bad(5, 7, math.nan), checkpoint_every=3).begin(ROLLBACK).train(9)
    assert rolled_back_to(run) == []
    assert "no checkpoint was saved while the run was stable" in run.of(InterventionDeclined)[0].why


def test_one_saved_during_an_incident_is_not_good() -> None:
    run = GovernedRun(loss=bad(100, 130, 2.0), checkpoint_every=10, obeys=False).begin(ROLLBACK).train(200)
    stable = {known.step: known.stable for known in run.state.candidates}
    assert [stable[step] for step in (90, 100, 110, 120)] == [True, False, False, False]
    assert stable[190]


def test_the_whole_rollback_as_four_ranks_tell_it() -> None:
    run = GovernedRun(loss=bad(95, 96, math.nan, rank=2)).begin(ROLLBACK).train(140).end()
    issued = run.of(InterventionIssued)
    assert [(order.step, order.attempt) for order in issued] == [(95, 1)]
    assert [(found.phase, found.attempt, found.step) for found in run.of(PhaseChanged)] == [
        ("Warmup", 1, -1),
        ("Normal", 1, 7),
        ("Diverged", 1, 95),
        ("Recovering", 2, 90),
        ("Normal", 2, 115),
        ("Ended", 2, 134),
    ]
    verified = run.of(InterventionVerified)
    assert [(found.outcome, found.window_steps, found.attempt) for found in verified] == [("recovered", 25, 2)]
    assert verified[0].intervention_id == issued[0].intervention_id
    resolved = run.of(IncidentResolved)
    assert [(found.outcome, found.onset_step, found.steps_lost) for found in resolved] == [("recovered", 95, 5)]
    assert resolved[0].incident_id == run.of(IncidentOpened)[0].incident_id
    assert {decision.attempt_id for decision in run.decisions if decision.attempt == 2} == {run.ranks[0].attempt_id}


def test_a_corrupt_checkpoint_is_rejected_and_the_next_older_one_is_tried_at_once() -> None:
    run = GovernedRun(loss=bad(95, 100, math.nan), corrupt=frozenset({"checkpoint-90", "checkpoint-80"}))
    run.begin(ROLLBACK).train(120)
    assert rolled_back_to(run) == [90, 80, 70]
    assert [found.checkpoint.step for found in run.of(CheckpointRejected)] == [90, 80]
    assert [order.step for order in run.of(InterventionIssued)] == [95, 97, 99]
    assert run.of(CheckpointRejected)[0].reason == "CheckpointCorrupt: /checkpoints/90"


def test_a_run_whose_every_checkpoint_is_corrupt_is_not_recoverable() -> None:
    everything = frozenset(f"checkpoint-{step}" for step in range(0, 100, 10))
    run = GovernedRun(loss=bad(45, 99, math.nan), corrupt=everything).begin(ROLLBACK).train(60)
    changed = [found for found in run.of(ConditionChanged) if found.condition == "Recoverable"]
    assert (changed[-1].status, changed[-1].reason) == ("False", "CheckpointsRejected")
    assert rolled_back_to(run) == [40, 30, 20, 10]


def test_another_refusal_of_the_trainer_rejects_no_checkpoint() -> None:
    run = GovernedRun(loss=bad(45, 99, math.nan), obeys=False).begin(ROLLBACK).train(46)
    order = run.of(InterventionIssued)[0]
    for rank in run.ranks:
        run.tell(rank, rank.receipt, order.intervention_id, run.step, "rejected", "TooLate: a sentence of a trainer")
    run.train(8)
    assert run.of(CheckpointRejected) == []
    assert rolled_back_to(run) == [40, 40]


def test_a_checkpoint_of_an_abandoned_lineage_is_gone() -> None:
    run = GovernedRun(checkpoint_every=10).begin(ROLLBACK).train(60)
    run.begin_attempt("restart", "again", 31)
    run.train(1)
    assert steps(run.state.candidates)[-1] == 30


def test_a_checkpoint_of_a_step_that_not_every_rank_reached_is_no_candidate() -> None:
    """Rank 0 saved and died; the other ranks never told of that step, so nobody knows whether the run was stable."""
    run = GovernedRun(world=2, checkpoint_every=0).begin(ROLLBACK).train(40)
    first = run.ranks[0]
    run.tell(first, first.log, [40], [quiet_loss(40)])
    run.tell(first, first.checkpoint, 40)
    run.begin_attempt("restart", "again", 41)
    ahead = range(41, 41 + EARLY_PENDING + 1)  # more than may wait: the old attempt is given up
    run.tell(first, first.log, ahead, [quiet_loss(step) for step in ahead])
    assert run.state.current is not None
    assert run.state.current.attempt_id == "again"
    assert steps(run.state.candidates) == []


@pytest.mark.parametrize("reason", ["CheckpointMissing", "CheckpointCorrupt"])
def test_what_a_trainer_calls_unusable_is_rejected(reason: str) -> None:
    run = GovernedRun(loss=bad(45, 99, math.nan), obeys=False).begin(ROLLBACK).train(46)
    run.tell(run.ranks[0], run.ranks[0].receipt, run.of(InterventionIssued)[0].intervention_id, 46, "failed", reason)
    run.train(1)
    assert [found.reason for found in run.of(CheckpointRejected)] == [reason]


# ------------------------------------------------------------------------------------------- the ladder, and its price


def ladder(*actions: str, more: str = "") -> str:
    listed = ", ".join(f"{{{action}}}" for action in actions)
    return f"""
name: p
mode: enforce
rules:
- name: nonfinite
  when: conditions.Finite == 'False'
  actions: [{listed}]
  cooldown_steps: 5
  verify: {{window_steps: 20}}
  {more}
"""


BACK = "action: rollback, skip_batches: 4, lr_factor: 0.7"
FURTHER = "action: rollback, skip_batches: 40, back_steps: 50"


def windows(*starts: int, long: int = 2) -> Any:
    def loss(position: int, step: int, rank: int) -> float:
        return math.nan if any(start <= position < start + long for start in starts) else quiet_loss(step, rank)

    return loss


def skipped(run: GovernedRun) -> list[int]:
    return [order.action.skip_batches for order in run.of(InterventionIssued) if order.action.action == "rollback"]


def test_a_corrupt_checkpoint_costs_neither_a_rung_of_the_ladder_nor_the_rules_limit_nor_its_budget() -> None:
    run = GovernedRun(loss=windows(95, long=6), corrupt=frozenset({"checkpoint-90", "checkpoint-80"}))
    run.begin("budget: 1\n" + ladder(BACK, "action: stop", more="limit: {count: 1}")).train(170)
    assert rolled_back_to(run) == [90, 80, 70]
    assert skipped(run) == [4, 4, 4]
    assert [found.outcome for found in run.of(InterventionVerified)] == ["recovered"]
    assert {found.incident_id for found in run.of(IncidentResolved)} == {run.of(IncidentOpened)[0].incident_id}


def test_what_strikes_again_at_the_same_data_is_met_further_back_and_more_of_it_is_skipped() -> None:
    """Batches 95 and 135 are broken: when the second comes, the first incident is long resolved."""
    run = GovernedRun(loss=windows(95, 135)).begin(ladder(BACK, FURTHER, more="relapse_steps: 100")).train(190)
    first, second = run.of(IncidentOpened)
    assert run.of(IncidentResolved)[0].step < second.step
    assert skipped(run) == [4, 40]
    assert second.onset_step - rolled_back_to(run)[1] >= 50
    assert rolled_back_to(run)[1] < rolled_back_to(run)[0] == first.onset_step - 5


@pytest.mark.parametrize("more, second", [("relapse_steps: 30", 4), ("", 4), ("relapse_steps: 100", 40)])
def test_what_comes_long_after_is_another_trouble_and_begins_at_the_foot_of_the_ladder(more: str, second: int) -> None:
    run = GovernedRun(loss=windows(95, 180)).begin(ladder(BACK, FURTHER, more=more)).train(230)
    assert skipped(run) == [4, second]


def test_where_nothing_good_is_as_old_as_was_asked_the_oldest_good_one_is_taken() -> None:
    known = [candidate(70), candidate(80, stable=False), candidate(90), candidate(95)]
    for back, step in ((0, 95), (5, 90), (11, 70), (50, 70)):
        good = good_before(known, 100, back)
        assert good is not None
        assert good.step == step
    assert good_before(known, 70, 50) is None


def test_an_incident_adds_up_what_its_rollbacks_cost() -> None:
    run = GovernedRun(loss=windows(95, 108), checkpoint_every=10, seconds_lost=36.0).begin(ROLLBACK).train(160)
    (resolved,) = run.of(IncidentResolved)
    assert rolled_back_to(run) == [90, 90]
    onsets = [order.step for order in run.of(InterventionIssued)]
    assert resolved.steps_lost == sum(step - 90 for step in onsets)
    assert (resolved.seconds_lost, resolved.rank_hours_lost) == (72.0, pytest.approx(72.0 * 4 / 3_600))


def test_a_crash_in_the_midst_of_an_incident_costs_what_it_undid_and_not_the_whole_run() -> None:
    """A process that starts announces step 0 before it restores what it finds."""
    run = GovernedRun(loss=bad(95, 110, math.nan), checkpoint_every=10, obeys=False).begin(ROLLBACK).train(99)
    run.begin_attempt("restart", "a fresh process", 0)
    run.begin_attempt("restart", "and what it restored", 91)
    run.position, run.obeys = 120, True
    run.train(60)
    assert [found.steps_lost for found in run.of(IncidentResolved)] == [98 - 90]


# ----------------------------------------------------------------------------------------- what the trainer's disk says


def unavailable(run: GovernedRun, step: int, how: str) -> None:
    rank = run.ranks[0]
    told = {"checkpoint_id": f"checkpoint-{step}", "path": f"/checkpoints/{step}", "how": how, "reason": "because"}
    run.tell(rank, rank.tell, CheckpointUnavailable, step=step, **told)


def test_what_rotation_removed_is_never_asked_for_and_nobody_is_alarmed() -> None:
    run = GovernedRun(loss=windows(95)).begin(ROLLBACK).train(94)
    unavailable(run, 90, "rotated")
    run.train(30)
    assert rolled_back_to(run) == [80]
    assert run.of(CheckpointRejected) == []


def test_what_a_restart_could_not_read_is_rejected_and_named() -> None:
    run = GovernedRun(loss=windows(95), checkpoint_every=10).begin(ROLLBACK).train(94)
    run.begin_attempt("restart", "a fresh process", 0)
    unavailable(run, 90, "unusable")
    run.begin_attempt("restart", "and what it restored", 81)
    run.position = 94
    run.train(30)
    assert [(found.checkpoint.step, found.reason) for found in run.of(CheckpointRejected)] == [(90, "because")]
    assert [known.step for known in run.state.candidates if known.step <= 80] == [*range(0, 81, 10)]


def test_a_restart_keeps_the_checkpoints_that_it_goes_on_from_and_one_that_begins_anew_has_none() -> None:
    for first_step, good in ((51, 50), (0, None)):
        run = GovernedRun().begin(ROLLBACK).train(60)
        run.begin_attempt("restart", "a fresh process", 0)
        if first_step:
            run.begin_attempt("restart", "and what it restored", first_step)
        run.train(1)
        known = last_good(run.state.candidates, before=None)
        assert (known.step if known else None) == good


def test_of_a_scripts_own_checkpoints_the_last_good_one_is_named_and_never_ordered_back_to() -> None:
    own = {"path": "/mine/40.pt", "manifest_sha256": "0" * 64, "size_bytes": 1, "took_s": 0.0, "by_script": True}
    for steers, why in (
        (("stop",), "/mine/40.pt, of step 40: start again from it"),
        (ALL_ACTIONS, "no checkpoint was"),
    ):
        run = GovernedRun(loss=windows(45), checkpoint_every=0).begin(ROLLBACK, steers=steers).train(41)
        rank = run.ranks[0]
        run.tell(rank, rank.tell, CheckpointSaved, step=40, checkpoint_id="own-00000040-40.pt", **own)
        run.train(6)
        assert why in run.of(InterventionDeclined)[0].why
        changed = [found.status for found in run.of(ConditionChanged) if found.condition == "Recoverable"]
        assert changed[-1] == "True"


def test_a_disk_that_did_not_take_one_takes_none_away() -> None:
    run = GovernedRun().begin(ROLLBACK).train(60)
    before = steps(run.state.candidates)
    unavailable(run, 60, "not_saved")
    assert steps(run.state.candidates) == before


def test_the_end_of_a_ramp_restarts_no_detector_and_another_recipe_does() -> None:
    run = GovernedRun().begin(ROLLBACK).train(40)
    rank = run.ranks[0]
    for what, observed in ((LR_RAMP, 41.0), ("batch_size", 1.0)):
        run.tell(rank, rank.tell, RecipeChanged, step=run.step - 1, what=what)
        run.train(1)
        assert run.state.last_features["steps_observed"] == observed
