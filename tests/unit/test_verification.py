"""Whether what was done helped."""

import math
from typing import Any

from pilothouse.events.decisions import IncidentResolved, InterventionExpired, InterventionIssued, InterventionVerified
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.run_builder import quiet_loss

CLIP = """
name: p
mode: enforce
rules:
- name: clip
  when: conditions.Stable == 'False' || conditions.Finite == 'False'
  actions: [{action: set_clip, value: 1.0}]
  cooldown_steps: 50
  verify: {window_steps: 10}
"""


def outcomes(run: GovernedRun) -> list[tuple[str, int]]:
    return [(found.outcome, found.window_steps) for found in run.of(InterventionVerified)]


def spiked(length: int, extra: float = 2.0) -> Any:
    return lambda position, step, rank: quiet_loss(step, rank) + (extra if 100 <= position < 100 + length else 0.0)


def test_what_is_well_at_the_end_of_the_window_has_recovered() -> None:
    run = GovernedRun(loss=spiked(3)).begin(CLIP).train(130)
    assert outcomes(run) == [("recovered", 10)]
    verified = run.of(InterventionVerified)[0]
    assert verified.reason == "conditions.Finite == 'True' && conditions.Stable == 'True'"
    assert verified.evidence["loss"] > 0.0


def test_what_is_not_well_by_then_was_ineffective() -> None:
    assert outcomes(GovernedRun(loss=spiked(30)).begin(CLIP).train(130)) == [("ineffective", 10)]


def test_a_rollback_is_judged_only_when_the_run_is_past_the_step_where_it_went_wrong() -> None:
    def loss(_: int, step: int, rank: int) -> float:
        return quiet_loss(step, rank) + (4.0 if step >= 79 else 0.0)

    run = GovernedRun(loss=loss, checkpoint_every=50).begin().train(200)
    assert run.of(InterventionVerified)[0].step >= 79
    assert outcomes(run)[0][0] == "ineffective"


def test_a_failure_within_the_window_ends_it_at_once() -> None:
    def loss(position: int, step: int, rank: int) -> float:
        return math.nan if position == 105 else spiked(3)(position, step, rank)

    run = GovernedRun(loss=loss).begin(CLIP).train(130)
    assert outcomes(run) == [("ineffective", 3)]
    assert run.of(InterventionVerified)[0].step == 105


def test_a_run_that_ends_within_the_window_leaves_it_inconclusive() -> None:
    run = GovernedRun(loss=spiked(3)).begin(CLIP).train(107).end()
    assert outcomes(run) == [("inconclusive", 4)]
    assert run.of(InterventionVerified)[0].reason == "the run ended"


def test_a_restart_within_the_window_leaves_it_inconclusive() -> None:
    run = GovernedRun(loss=spiked(3)).begin(CLIP).train(107)
    run.begin_attempt("restart", "again", 90)
    run.train(30)
    assert outcomes(run) == [("inconclusive", 4)]


def test_a_restart_before_the_answer_closes_the_question() -> None:
    run = GovernedRun(loss=spiked(3), obeys=False).begin(CLIP).train(107)
    run.begin_attempt("restart", "again", 90)
    assert [found.reason for found in run.of(InterventionExpired)] == ["the run was started again"]
    assert run.state.ledger.in_flight == []


def test_only_rank_0_moves_an_intervention_on() -> None:
    run = GovernedRun(loss=spiked(3), obeys=False).begin(CLIP).train(103)
    order = run.of(InterventionIssued)[0]
    for rank in run.ranks[1:]:
        run.tell(rank, rank.receipt, order.intervention_id, run.step)
    run.train(20)
    assert outcomes(run) == []
    run.tell(run.ranks[0], run.ranks[0].receipt, order.intervention_id, run.step)
    run.train(12)
    assert outcomes(run) == [("recovered", 10)]


def test_a_receipt_for_what_is_not_known_or_came_twice_means_nothing() -> None:
    run = GovernedRun(loss=spiked(3)).begin(CLIP).train(104)
    order = run.of(InterventionIssued)[0]
    for intervention_id in ("unknown", order.intervention_id):
        run.tell(run.ranks[0], run.ranks[0].receipt, intervention_id, run.step, "failed", "CheckpointCorrupt")
    assert outcomes(run.train(30)) == [("recovered", 10)]


def test_what_was_rejected_is_not_verified_and_may_be_tried_again_after_its_cooldown() -> None:
    run = GovernedRun(loss=spiked(80, math.nan), obeys=False).begin(CLIP).train(103)
    order = run.of(InterventionIssued)[0]
    for rank in run.ranks:
        run.tell(rank, rank.receipt, order.intervention_id, run.step, "rejected", "OutOfBounds")
    run.train(60)
    assert outcomes(run) == []
    assert [found.step for found in run.of(InterventionIssued)] == [100, 151]


def test_an_incident_waits_for_the_verification_before_it_is_resolved() -> None:
    run = GovernedRun(loss=spiked(2)).begin(CLIP).train(130)
    assert run.of(IncidentResolved)[0].step == run.of(InterventionVerified)[0].step


def test_the_policys_own_words_decide() -> None:
    text = CLIP.replace("window_steps: 10", "window_steps: 10, success: 'has(features.loss) && features.loss > 1000.0'")
    assert outcomes(GovernedRun(loss=spiked(3)).begin(text).train(130)) == [("ineffective", 10)]
