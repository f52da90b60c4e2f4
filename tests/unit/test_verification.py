"""Whether what was done helped."""

import math
import re
from typing import Any

import pytest

from pilothouse.events.actions import CheckpointNow, Notify, Pause, Resume, Revert, SetClip
from pilothouse.events.decisions import (
    IncidentResolved,
    InterventionExpired,
    InterventionIssued,
    InterventionProposed,
    InterventionVerified,
)
from pilothouse.events.errors import PolicyInvalid
from pilothouse.events.telemetry import LR_RAMP, RecipeChanged
from pilothouse.governance.policy import load_policy
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.run_builder import activated, quiet_loss

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


# ------------------------------------------------------------------------------------ windows as Argo Rollouts has them

CUT = """
name: p
mode: enforce
rules:
- name: cut
  when: conditions.Stable == 'False'
  actions: [{action: scale_lr, factor: 0.5}]
  cooldown_steps: 50
  verify: {window_steps: 10%s}
"""


def cut(more: str = "", length: int = 3, steps: int = 130, **fields: Any) -> GovernedRun:
    """A spike from step 100 on, halved at once: applied at 100."""
    text = CUT % (f", {more}" if more else "")
    return GovernedRun(loss=spiked(length), **fields).begin(text).train(steps)


def test_a_delay_gives_it_time_before_anything_is_measured() -> None:
    assert outcomes(cut("failure: conditions.Stable == 'False'")) == [("ineffective", 1)]
    late = "failure: conditions.Stable == 'False', initial_delay_steps: 12"
    assert outcomes(cut(late)) == [("recovered", 22)]


def test_success_is_asked_at_every_interval_and_the_first_that_fails_ends_the_window() -> None:
    assert outcomes(cut("interval_steps: 2", length=5)) == [("ineffective", 2)]
    assert outcomes(cut("interval_steps: 2, initial_delay_steps: 12")) == [("recovered", 22)]


def test_so_many_measurements_may_fail() -> None:
    run = cut("interval_steps: 2, failure_limit: 4")
    (verified,) = run.of(InterventionVerified)
    assert (verified.outcome, verified.window_steps) == ("recovered", 10)
    assert re.search(r"\([1-4] failed, [1-4] well; 4 may fail\)$", verified.reason)
    assert outcomes(cut("interval_steps: 2, failure_limit: 3", length=9))[0][0] == "ineffective"


def test_a_measurement_without_data_is_neither_well_nor_failed() -> None:
    run = cut("success: features.val_loss < 2.0")
    (verified,) = run.of(InterventionVerified)
    assert (verified.outcome, verified.reason) == (
        "inconclusive",
        "features.val_loss < 2.0 (no data: features.val_loss)",
    )
    asked_often = "interval_steps: 2, inconclusive_limit: 1, success: features.val_loss < 2.0"
    assert outcomes(cut(asked_often)) == [("inconclusive", 4)]


def test_a_condition_that_is_not_known_is_no_data_and_one_that_is_decides_alone() -> None:
    generalizes = "success: \"conditions.Stable == 'True' && conditions.Generalizing == 'True'\""
    (verified,) = cut(generalizes).of(InterventionVerified)
    assert (verified.outcome, "no data: conditions.Generalizing" in verified.reason) == ("inconclusive", True)
    assert outcomes(cut(generalizes, length=30)) == [("ineffective", 10)]
    assert outcomes(cut("success: conditions.Generalizing == 'Unknown'")) == [("recovered", 10)]
    assert outcomes(cut("success: conditions.Generalizing != 'Unknown'")) == [("ineffective", 10)]


@pytest.mark.parametrize(
    "wrong, said",
    [
        ("interval_steps: 11", "interval_steps (11) is longer than window_steps (10)"),
        ("failure_limit: 1", "must be less than the number of measurements, 1"),
        ("interval_steps: 3, inconclusive_limit: 4", "must be less than the number of measurements, 4"),
    ],
)
def test_a_window_that_could_conclude_nothing_is_a_mistake(wrong: str, said: str) -> None:
    with pytest.raises(PolicyInvalid, match=re.escape(said)):
        load_policy(CUT % f", {wrong}")


# ------------------------------------------------------------------------------- an effect is credited to its own cause


def told_recipe(run: GovernedRun, what: str, **numbers: float) -> None:
    run.tell(run.ranks[0], run.ranks[0].tell, RecipeChanged, step=run.step - 1, what=what, numbers=numbers)


def test_a_change_of_recipe_within_the_window_leaves_it_inconclusive() -> None:
    run = cut(steps=105)
    told_recipe(run, "warm-up ended")
    run.train(20)
    (verified,) = run.of(InterventionVerified)
    assert (verified.outcome, verified.reason) == ("inconclusive", "the recipe changed at step 104: warm-up ended")


def test_a_rate_that_comes_back_by_its_ramp_is_no_other_cause() -> None:
    run = cut(steps=105)
    told_recipe(run, LR_RAMP, lr_multiplier=0.8)
    assert outcomes(run.train(20)) == [("recovered", 10)]
    assert run.state.ledger.values["lr_multiplier"] == 0.8


def test_another_intervention_within_the_window_leaves_it_inconclusive_and_is_measured_itself() -> None:
    run = cut(steps=105)
    run.order("intervene", action=SetClip(value=1.0))
    run.train(40)
    first, second = run.of(InterventionVerified)
    assert first.outcome == "inconclusive"
    assert "(operator: set_clip) was applied at step" in first.reason
    assert (second.outcome, second.window_steps) == ("recovered", 20)


def test_what_does_not_change_how_training_goes_on_leaves_the_window_alone() -> None:
    run = cut(steps=105)
    for action in (Pause(), Resume(), CheckpointNow(), Notify(message="m")):
        run.order("intervene", action=action)
    assert outcomes(run.train(30)) == [("recovered", 10)]


def test_a_rollback_of_the_scripts_own_leaves_it_inconclusive_and_one_of_ours_does_not() -> None:
    run = cut(steps=105)
    run.begin_attempt("rollback", "its-own", 90)
    run.train(30)
    (verified,) = run.of(InterventionVerified)
    assert (verified.outcome, verified.reason) == ("inconclusive", "the run went back to an earlier step")
    ours = GovernedRun(loss=spiked(3)).begin().train(160)
    assert outcomes(ours)[0][0] == "recovered"


def test_another_policy_without_the_rule_leaves_it_inconclusive() -> None:
    run = cut(steps=105)
    run.fold(activated("run", "name: other\nrules: []\n", seq=2))
    run.train(3)
    (verified,) = run.of(InterventionVerified)
    assert (verified.outcome, verified.reason) == ("inconclusive", "policy other governs now, and has no rule cut")


# --------------------------------------------------------------------------------------------------------- putting back

REVERT = "on_failure: revert"


def test_what_did_not_help_is_put_back_exactly_by_a_command_with_a_receipt() -> None:
    run = cut(REVERT, length=30, values={"lr_multiplier": 0.7})
    halved, back = run.of(InterventionIssued)[:2]
    assert back.action == Revert(
        intervention_id=halved.intervention_id, values={"lr_multiplier": 0.7}, left={"lr_multiplier": 0.35}
    )
    assert run.values["lr_multiplier"] == 0.7
    (verified,) = run.of(InterventionVerified)
    assert (verified.intervention_id, verified.outcome) == (halved.intervention_id, "reverted")
    assert verified.reason.endswith("; lr_multiplier is 0.7 again")
    proposed = run.of(InterventionProposed)[1]
    assert (proposed.rule, proposed.needs_approval) == ("cut", False)
    assert proposed.reason.startswith(f"intervention {halved.intervention_id[:8]} did not help: ")
    assert run.state.ledger.total == 1, "a revert costs no budget"
    assert run.state.ledger.in_flight == []


def test_what_helped_stays() -> None:
    run = cut(REVERT)
    assert [issued.action.action for issued in run.of(InterventionIssued)] == ["scale_lr"]


def test_an_inconclusive_effect_is_not_put_back() -> None:
    run = cut(REVERT, length=30, steps=105)
    told_recipe(run, "another phase")
    run.train(20)
    assert [issued.action.action for issued in run.of(InterventionIssued)][:1] == ["scale_lr"]
    assert outcomes(run)[0][0] == "inconclusive"


def reverting() -> tuple[GovernedRun, InterventionIssued]:
    """Until the revert is on its way, and nobody obeys any more."""
    run = cut(REVERT, length=30, steps=109)
    run.obeys = False
    while len(run.of(InterventionIssued)) < 2:
        run.train(1)
    return run, run.of(InterventionIssued)[1]


@pytest.mark.parametrize("outcome", ["rejected", "failed", "expired"])
def test_what_the_trainer_would_not_put_back_was_ineffective_and_stays(outcome: str) -> None:
    run, back = reverting()
    run.tell(run.ranks[0], run.ranks[0].receipt, back.intervention_id, run.step, outcome, "Changed: since")
    run.train(1)
    (verified,) = run.of(InterventionVerified)
    assert (verified.outcome, f"not put back: {outcome}: Changed: since" in verified.reason) == ("ineffective", True)
    assert run.state.ledger.in_flight == []


def test_a_revert_that_nobody_answers_or_that_the_end_overtakes_leaves_it_ineffective() -> None:
    run, _ = reverting()
    run.train(90)
    assert outcomes(run)[0][0] == "ineffective"
    run, _ = reverting()
    run.end()
    (verified,) = run.of(InterventionVerified)
    assert verified.reason.endswith("; not put back: the run ended")
    assert len(run.of(InterventionExpired)) == 1


@pytest.mark.parametrize(
    "change, why",
    [
        ({"values": {}}, "the receipt does not say what it was before"),
        ({"steers": ("scale_lr",)}, "this trainer cannot revert"),
    ],
)
def test_where_it_cannot_be_put_back_it_is_said_why(change: dict[str, Any], why: str) -> None:
    steers = {"steers": change.pop("steers")} if "steers" in change else {}
    run = GovernedRun(loss=spiked(30), **change).begin(CUT % f", {REVERT}", **steers).train(120)
    assert run.of(InterventionVerified)[0].reason.endswith(f"; not put back: {why}")


def test_a_policy_that_only_observes_by_now_puts_nothing_back() -> None:
    run = cut(REVERT, length=30, steps=105)
    run.fold(activated("run", (CUT % f", {REVERT}").replace("enforce", "observe"), seq=2))
    run.train(10)
    assert run.of(InterventionVerified)[0].reason.endswith("; not put back: policy p only observes")


def test_a_revert_where_nothing_can_be_put_back_is_a_mistake() -> None:
    text = (CUT % f", {REVERT}").replace("{action: scale_lr, factor: 0.5}", "{action: skip_batches, count: 2}")
    with pytest.raises(PolicyInvalid, match="none of this rule's actions can be put back"):
        load_policy(text)


def test_no_clip_at_all_comes_back_as_none_at_all() -> None:
    """A clip of infinity travels through the state and the command as what it is."""
    text = (CUT % f", {REVERT}").replace("{action: scale_lr, factor: 0.5}", "{action: set_clip, value: 1.0}")
    run = GovernedRun(loss=spiked(30), values={"clip": math.inf}).begin(text).train(115)
    assert run.values == {"clip": math.inf}
    assert run.of(InterventionVerified)[0].outcome == "reverted"
