"""From a rule that holds, or a person's order, to a command: what is done when, and what is not."""

import math
from typing import Any

import pytest

from pilothouse.events.actions import Rollback, SetClip
from pilothouse.events.decisions import (
    InterventionApproved,
    InterventionDeclined,
    InterventionExpired,
    InterventionIssued,
    InterventionProposed,
)
from pilothouse.events.errors import PolicyInvalid
from pilothouse.events.telemetry import StepBatch
from pilothouse.governance.interventions import is_verified, touches_trainer
from pilothouse.governance.issuing import EXPIRY_GRACE_STEPS
from pilothouse.governance.policy import load_policy, policy_hash
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.run_builder import START, activated, quiet_loss

LIFE = (InterventionProposed, InterventionApproved, InterventionDeclined, InterventionIssued, InterventionExpired)


def policy(*rules: str, mode: str = "enforce", budget: int = 20) -> str:
    return f"name: p\nmode: {mode}\nbudget: {budget}\nrules:\n" + "".join(f"- {{{rule}}}\n" for rule in rules)


def rule(action: str, name: str = "r", when: str = "'true'", more: str = "cooldown_steps: 0") -> str:
    return f"name: {name}, when: {when}, actions: [{action}], {more}"


CLIP = "{action: set_clip, value: 1.0}"
HALVE = "{action: scale_lr, factor: 0.5}"
SKIP = "{action: skip_batches, count: 2}"
NOTIFY = "{action: notify, message: hello}"
SAVE = "{action: checkpoint_now}"
BACK = "{action: rollback}"
HUMAN = "cooldown_steps: 0, approval: {by: human, timeout_seconds: 30"


def running(text: str, steps: int = 0, **fields: Any) -> GovernedRun:
    return GovernedRun(**({"world": 1, "checkpoint_every": 0, "obeys": False} | fields)).begin(text).train(steps)


def life(run: GovernedRun) -> list[str]:
    return [decision.kind.removeprefix("intervention_") for decision in run.of(*LIFE)]


def issued_at(run: GovernedRun) -> list[int]:
    return [decision.step for decision in run.of(InterventionIssued)]


def nan_from(start: int) -> Any:
    return lambda position, step, rank: math.nan if position >= start else quiet_loss(step, rank)


def test_a_rule_that_holds_is_proposed_and_issued_with_its_reason_and_evidence() -> None:
    run = running(policy(rule(CLIP, when="has(features.loss) && features.loss > 1.0")), 1)
    proposed, issued = run.of(*LIFE)
    assert proposed.intervention_id == issued.intervention_id
    assert (proposed.mode, proposed.needs_approval) == ("enforce", False)
    assert proposed.reason == "has(features.loss) && features.loss > 1.0"
    assert proposed.evidence["loss"] == quiet_loss(0)
    assert issued.action == SetClip(value=1.0)
    assert issued.who == "policy"
    assert issued.expires_step == 50


@pytest.mark.parametrize("action", ["set_weight_decay", "set_dropout"])
def test_a_policy_sets_weight_decay_and_dropout_within_bounds_and_verifies_them(
    action: str,
) -> None:
    run = running(policy(rule(f"{{action: {action}, value: 0.25}}")), 3)
    (issued,) = run.of(InterventionIssued)
    assert (issued.action.action, issued.action.value) == (action, 0.25)
    assert (touches_trainer(issued.action), is_verified(issued.action)) == (True, True)
    with pytest.raises(PolicyInvalid, match="value"):
        load_policy(policy(rule(f"{{action: {action}, value: 1.5}}")))


def test_the_policy_that_decided_is_stamped_on_what_was_decided() -> None:
    text = policy(rule(CLIP))
    assert {decision.policy_hash for decision in running(text, 3).decisions} == {policy_hash(text)}


def test_the_stamp_is_that_of_the_text_whatever_the_activation_claims() -> None:
    text = policy(rule(CLIP))
    run = GovernedRun(world=1)
    run.fold(activated("run", text).model_copy(update={"policy_hash": "0" * 64}))
    assert run.state.policy_hash == policy_hash(text)


def test_in_observe_mode_nothing_is_ever_issued() -> None:
    run = running(policy(rule(CLIP), rule(NOTIFY, name="n"), mode="observe"), 30)
    assert set(life(run)) == {"proposed"}
    assert run.state.ledger.in_flight == []


def test_a_run_without_a_policy_is_only_watched() -> None:
    run = GovernedRun(world=1, loss=nan_from(20))
    run.tell(run.ranks[0], run.ranks[0].started, 1)
    assert life(run.train(30)) == []
    assert run.state.phase == "Diverged"


def test_a_policy_that_cannot_be_used_changes_nothing() -> None:
    run = running(policy(rule(CLIP)))
    before = run.state.policy_text
    run.fold(activated("run", "name: [", seq=2))
    run.fold(activated("run", "name: !!timestamp x", seq=3))
    assert run.state.policy_text == before


def test_a_rule_waits_until_it_has_held_long_enough() -> None:
    flicker = "has(features.loss) && features.loss < 100.0 && features.steps_observed != 3.0"
    run = running(policy(rule(CLIP, when=f'"{flicker}"', more="for: 3")), 10)
    assert issued_at(run) == [5]  # steps 3, 4 and 5: the third observation broke the row


def test_between_two_interventions_of_a_rule_lies_its_cooldown() -> None:
    assert issued_at(running(policy(rule(NOTIFY, more="cooldown_steps: 4, limit: {count: 64}")), 16)) == [0, 5, 10, 15]


def test_a_rule_acts_no_more_often_than_its_limit_allows_in_its_window() -> None:
    text = policy(rule(NOTIFY, more="cooldown_steps: 0, limit: {count: 2, window_steps: 10}"))
    assert issued_at(running(text, 22)) == [0, 1, 10, 11, 20, 21]


def test_the_budget_bounds_what_touches_the_run_over_its_whole_life() -> None:
    text = policy(rule(CLIP, more="cooldown_steps: 0, limit: {count: 64}, verify: {window_steps: 1}"), budget=3)
    run = running(text, 30, obeys=True)
    assert len(issued_at(run)) == 3
    assert len(issued_at(running(policy(rule(NOTIFY, more="cooldown_steps: 0, limit: {count: 64}"), budget=0), 9))) == 9


def test_a_rule_climbs_its_ladder_and_begins_below_after_the_incident() -> None:
    more = "cooldown_steps: 0, limit: {count: 64}, verify: {window_steps: 1}"
    text = policy(rule(f"{CLIP}, {HALVE}", when="conditions.Finite == 'False'", more=more))
    loss = lambda position, step, rank: math.nan if position in (20, 21, 22, 40) else quiet_loss(step, rank)  # noqa: E731
    run = running(text, 50, obeys=True, loss=loss)
    assert [decision.action.action for decision in run.of(InterventionIssued)] == ["set_clip", "scale_lr", "set_clip"]


def test_what_a_trainer_cannot_do_does_not_bar_the_rest_of_the_ladder() -> None:
    run = GovernedRun(world=1, loss=nan_from(20), checkpoint_every=0, obeys=False)
    run.begin(policy(rule(f"{CLIP}, {HALVE}", when="conditions.Finite == 'False'")), steers=("scale_lr",)).train(25)
    assert life(run)[:4] == ["proposed", "declined", "proposed", "issued"]
    assert run.of(InterventionDeclined)[0].why == "this trainer cannot set_clip; it steers: scale_lr"


def test_what_cannot_be_done_is_said_once_an_incident() -> None:
    run = GovernedRun(world=1, loss=nan_from(20), checkpoint_every=0)
    run.begin(policy(rule(BACK, when="conditions.Finite == 'False'")), steers=("rollback",)).train(100)
    assert life(run) == ["proposed", "declined"]
    assert run.of(InterventionDeclined)[0].why == "no checkpoint was saved while the run was stable before step 20"


def test_only_one_intervention_touches_the_run_at_a_time() -> None:
    run = running(policy(rule(CLIP), rule(HALVE, name="other")), 10)
    assert [decision.rule for decision in run.of(InterventionIssued)] == ["r"]


def test_what_leaves_the_run_alone_bars_nothing_that_does_not() -> None:
    """A question to a person, or a checkpoint on its way, must not keep a sick run from its recovery."""
    asked = rule(NOTIFY, name="ask", more=HUMAN + "}")
    saving = rule(SAVE, name="save")
    run = running(policy(asked, saving, rule(CLIP)), 3)
    assert [decision.rule for decision in run.of(InterventionIssued)] == ["save", "r"]


def test_a_rule_whose_last_is_in_flight_asks_for_no_more() -> None:
    run = running(policy(rule(SAVE, more="cooldown_steps: 0, limit: {count: 64}")), 20)
    assert life(run) == ["proposed", "issued"]


def test_in_propose_mode_a_person_is_asked() -> None:
    run = running(policy(rule(CLIP), mode="propose"), 5)
    assert life(run) == ["proposed"]
    assert run.of(InterventionProposed)[0].needs_approval
    run.order("approve", intervention_id=run.of(InterventionProposed)[0].intervention_id)
    assert life(run) == ["proposed", "approved", "issued"]
    issued = run.of(InterventionIssued)[0]
    assert (issued.who, issued.expires_step) == ("ada", run.step - 1 + 50)


def test_a_person_may_decline() -> None:
    run = running(policy(rule(CLIP), mode="propose"), 5)
    run.order("decline", intervention_id=run.of(InterventionProposed)[0].intervention_id)
    assert life(run) == ["proposed", "declined"]
    assert (run.of(InterventionDeclined)[0].who, run.of(InterventionDeclined)[0].why) == ("ada", "because")
    assert run.state.ledger.in_flight == []


@pytest.mark.parametrize(
    "default, expected", [("decline", ["proposed", "declined"]), ("approve", ["proposed", "approved", "issued"])]
)
def test_who_says_nothing_in_time_has_said_the_default(default: str, expected: list[str]) -> None:
    run = running(policy(rule(CLIP, more=f"{HUMAN}, default: {default}}}, limit: {{count: 1}}")), 1)
    run.heartbeats(28)
    assert life(run) == ["proposed"]
    run.heartbeats(1)
    assert life(run) == expected
    answer = run.of(InterventionApproved, InterventionDeclined)[0]
    assert (answer.who, answer.why) == ("timeout", "nobody answered within 30 s")


def test_an_answer_that_comes_twice_or_to_nothing_is_none() -> None:
    run = running(policy(rule(CLIP), mode="propose"), 1)
    asked = run.of(InterventionProposed)[0].intervention_id
    run.order("approve", intervention_id=asked)
    before = life(run)
    run.order("approve", intervention_id=asked)
    run.order("decline", intervention_id=asked)
    run.order("approve", intervention_id="something else")
    assert life(run) == before


@pytest.mark.parametrize("mode", ["observe", "propose", "enforce"])
def test_a_person_stops_the_run_in_every_mode(mode: str) -> None:
    run = running(policy(mode=mode).replace("rules:\n", "rules: []\n"), 5)
    run.order("stop")
    proposed, issued = run.of(*LIFE)
    assert (issued.action.action, issued.who, proposed.rule, proposed.reason) == ("stop", "ada", "operator", "because")


def test_a_person_needs_no_room_in_cooldown_budget_or_flight() -> None:
    run = running(policy(rule(CLIP), budget=1), 5)
    run.order("intervene", action={"action": "scale_lr", "factor": 0.5})
    assert [decision.rule for decision in run.of(InterventionIssued)] == ["r", "operator"]


def test_a_person_cannot_ask_of_a_trainer_what_it_cannot_do() -> None:
    run = GovernedRun(world=1).begin(steers=("scale_lr",)).train(3)
    run.order("stop")
    assert life(run) == ["proposed", "declined"]
    assert run.of(InterventionDeclined)[0].why == "this trainer cannot stop; it steers: scale_lr"


def test_an_order_to_a_run_that_ended_is_declined() -> None:
    run = GovernedRun(world=1).begin().train(3).end()
    run.order("stop")
    assert life(run) == ["proposed", "declined"]


def test_a_persons_rollback_goes_to_the_last_good_checkpoint() -> None:
    run = GovernedRun(world=1).begin().train(45)
    run.order("intervene", action=Rollback())
    action = run.of(InterventionIssued)[0].action
    assert action.checkpoint is not None
    assert action.checkpoint.step == 40


def test_a_flood_of_orders_is_declined_when_too_much_is_in_flight() -> None:
    run = running(policy(rule(CLIP, when="'false'")), 3)
    for _ in range(200):
        run.order("intervene", action={"action": "skip_batches", "count": 1})
    declined = run.of(InterventionDeclined)
    assert 0 < len(run.of(InterventionIssued)) < 100
    assert declined[-1].why.startswith("too much is in flight already")


def test_a_command_that_nobody_answers_expires_and_frees_the_way() -> None:
    run = running(policy(rule(CLIP, more="cooldown_steps: 0, ttl_steps: 5")), 5 + EXPIRY_GRACE_STEPS + 1)
    assert life(run) == ["proposed", "issued"]
    run.train(1)
    assert life(run) == ["proposed", "issued", "expired", "proposed", "issued"]
    assert "no receipt by step 26; it was to be applied by step 5" in run.of(InterventionExpired)[0].reason


def test_what_no_trainer_answered_is_tried_again_before_the_ladder_goes_on() -> None:
    more = "cooldown_steps: 0, ttl_steps: 5, limit: {count: 9}, verify: {window_steps: 4}"
    run = running(policy(rule(f"{CLIP}, {HALVE}", more=more)), 5 + EXPIRY_GRACE_STEPS + 2)
    assert life(run) == ["proposed", "issued", "expired", "proposed", "issued"]
    run.obeys = True  # from the next command on
    run.train(90)
    names = [decision.action.action for decision in run.of(InterventionIssued)]
    assert names[:4] == ["set_clip", "set_clip", "set_clip", "scale_lr"]


@pytest.mark.parametrize("mode", ["enforce", "propose"])
def test_what_is_open_when_a_run_ends_is_closed_with_a_word(mode: str) -> None:
    run = running(policy(rule(CLIP), mode=mode), 3).end()
    assert [(decision.reason, decision.intervention_id) for decision in run.of(InterventionExpired)] == [
        ("the run ended", run.of(InterventionProposed)[0].intervention_id)
    ]


def test_another_policy_forgets_the_rules_of_the_one_before() -> None:
    run = running(policy(rule(CLIP, name="old"), rule(NOTIFY, name="kept", more="cooldown_steps: 100")), 3)
    run.fold(
        activated("run", policy(rule(HALVE, name="new"), rule(NOTIFY, name="kept", more="cooldown_steps: 100")), seq=2)
    )
    run.train(3)
    assert sorted(run.state.ledger.rules) == ["kept", "new"]
    assert [decision.rule for decision in run.of(InterventionIssued)] == ["old", "kept"]


def test_an_expression_that_stumbles_is_not_true() -> None:
    known = "has(features.loss) && has(features.grad_norm)"
    text = policy(rule(CLIP, when=f"{known} && int(features.loss) / int(features.grad_norm) > 100000"))
    run = GovernedRun(world=1).begin(text)
    run.tell(run.ranks[0], run.ranks[0].log, [0], [2.0], grad_norm=0.5)
    assert life(run) == []


@pytest.mark.parametrize(
    "fault, answers",
    [
        (4.0, ["rollback", "skip_batches", "rollback", "scale_lr", "notify"]),
        (math.nan, ["rollback", "rollback", "notify"]),
    ],
)
def test_the_shipped_policy_never_gives_up_in_silence(fault: float, answers: list[str]) -> None:
    def loss(_: int, step: int, rank: int) -> float:
        return quiet_loss(step, rank) + (fault if step >= 70 else 0.0)

    run = GovernedRun(loss=loss).begin().train(400)
    proposed = run.of(InterventionProposed)
    assert [found.action.action for found in proposed] == answers
    assert (proposed[-1].severity, proposed[-1].action.action) == ("page", "notify")


@pytest.mark.parametrize(
    "no_data, at",
    [
        ("ignore", [1, 4]),
        ("hold", [1, 3, 4, 7]),
        ("alarm", [1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_what_a_step_without_data_counts_for_is_what_its_rule_says(no_data: str, at: list[int]) -> None:
    more = f"for: 2, no_data: {no_data}, cooldown_steps: 0, limit: {{count: 64}}"
    run = GovernedRun(world=1).begin(policy(rule(NOTIFY, when="features.lr > 0.5", more=more)))
    for step, lr in enumerate([1.0, 1.0, None, 1.0, 1.0, None, None, 1.0]):
        metrics = {"loss": (2.0,)} | ({} if lr is None else {"lr": (lr,)})
        run.tell(run.ranks[0], run.ranks[0].tell, StepBatch, steps=(step,), times=(START,), metrics=metrics)
    assert issued_at(run) == at
    reasons = {decision.step: decision.reason for decision in run.of(InterventionProposed)}
    assert (reasons.get(2), reasons[1]) == (
        "features.lr > 0.5 (no data: lr)" if no_data == "alarm" else None,
        "features.lr > 0.5",
    )


def test_a_rule_that_alarms_without_data_does_so_though_all_else_is_well_and_has_not_changed() -> None:
    more = "no_data: alarm, cooldown_steps: 0, limit: {count: 64}"
    run = GovernedRun(world=1, checkpoint_every=0)
    run.begin(policy(rule(NOTIFY, when="features.lr > 0.5", more=more)))
    for step in range(40):
        metrics = {"loss": (quiet_loss(step),)} | ({"lr": (0.1,)} if step < 38 else {})
        run.tell(run.ranks[0], run.ranks[0].tell, StepBatch, steps=(step,), times=(START,), metrics=metrics)
    assert run.state.phase == "Normal"
    assert issued_at(run) == [38, 39]
