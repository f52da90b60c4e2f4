"""Between which values an action may leave what it changes: at load, when deciding, and (the trainer) when applying."""

import math
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from pilothouse.events.actions import ACTIONS, LR, QUANTITIES, ActionKind
from pilothouse.events.bounds import Bound, Quantity, beyond
from pilothouse.events.decisions import InterventionDeclined, InterventionIssued, InterventionProposed
from pilothouse.governance.policy import load_policy, read_policy
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.unit.test_decide import CLIP, HALVE, NOTIFY, SKIP, life, policy, rule, running

OFTEN = "cooldown_steps: 0, limit: {count: 64}, verify: {window_steps: 1}"


def test_what_actions_change_is_what_may_be_bounded() -> None:
    assert set(get_args(Quantity)) == {*QUANTITIES, LR}
    assert [kind.model_fields["action"].default for kind in ACTIONS] == list(get_args(ActionKind))


@pytest.mark.parametrize(
    "bound, before, after, said",
    [
        ({"min": 0.1}, 1.0, 0.05, "from 1: at least 0.1"),
        ({"min": 0.1}, None, 0.05, "would be 0.05: at least 0.1"),
        ({"min": 0.1}, 1.0, 0.1 * (1 - 1e-12), None),
        ({"max": 2.0}, 1.0, 2.5, "at most 2"),
        ({"step": 0.5}, 1.0, 1.75, "at most 0.5 more or less at once"),
        ({"step": 0.5}, None, 1.75, None),
        ({"ratio": 2.0}, 1.0, 0.25, "at most 2 times as much or as little at once"),
        ({"ratio": 2.0}, 1.0, 0.5, None),
        ({"ratio": 2.0}, 0.0, 0.1, "at most 2 times"),
        ({"ratio": 2.0}, float("inf"), 0.1, None),
        ({"allowed": (0.0, 0.1)}, 0.1, 0.2, "allowed are 0, 0.1"),
        ({"allowed": (0.0, 0.1)}, 0.1, 0.1, None),
    ],
)
def test_a_value_beyond_a_bound_is_refused_in_words(bound: dict[str, Any], before: Any, after: Any, said: Any) -> None:
    known = {} if before is None else {"clip": before}
    answer = beyond({"clip": Bound(**bound)}, known, {"clip": after})
    assert (answer is None) == (said is None)
    assert said is None or said in str(answer)


@pytest.mark.parametrize(
    "wrong", [{"min": 2.0, "max": 1.0}, {"max": 1.0, "allowed": (2.0,)}, {"step": 0.0}, {"ratio": 1.0}]
)
def test_bounds_that_leave_nothing_are_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Bound(**wrong)


@pytest.mark.parametrize(
    "bounds, action, said",
    [
        ("{clip: {max: 0.5}}", CLIP, "clip would be 1: at most 0.5"),
        ("{lr_multiplier: {ratio: 1.5}}", HALVE, "lr_multiplier would be 0.5, from 1: at most 1.5 times"),
        ("{skip_batches: {max: 1}}", SKIP, "skip_batches would be 2: at most 1"),
        ("{skip_batches: {max: 1}}", "{action: rollback, skip_batches: 2}", "skip_batches would be 2: at most 1"),
        ("{}", "{action: scale_lr, factor: 1.0}", "a factor of 1 changes nothing"),
        ("{}", "{action: revert, intervention_id: i, values: {clip: 1.0}}", "no rule reverts"),
        ("{lr: {max: 1e-3}}", "{action: set_lr, value: 2e-3}", "lr would be 0.002: at most 0.001"),
        ("{clap: {max: 1}}", CLIP, "no value 'clap'; did you mean 'clip'?"),
        ("{clip: {mx: 1}}", CLIP, "no key 'mx'; did you mean 'max'?"),
        ("{clip: {min: 2, max: 1}}", CLIP, "min 2 is more than max 1"),
    ],
)
def test_what_no_run_would_ever_see_done_is_a_mistake_of_the_policy(bounds: str, action: str, said: str) -> None:
    loaded, faults = read_policy(policy(rule(action)) + f"bounds: {bounds}\n")
    assert loaded is None
    assert said in " | ".join(fault.message for fault in faults)
    assert all(fault.mark.line > 1 for fault in faults)


def test_a_ladder_ends_where_the_bounds_are_and_goes_on_with_what_is_possible() -> None:
    text = policy(rule(f"{HALVE}, {HALVE}, {HALVE}, {NOTIFY}", more=OFTEN)) + "bounds: {lr_multiplier: {min: 0.25}}\n"
    run = running(text, 30, obeys=True)
    assert run.values["lr_multiplier"] == 0.25
    (declined,) = run.of(InterventionDeclined)
    assert declined.why == "beyond the bounds of policy p: lr_multiplier would be 0.125, from 0.25: at least 0.25"
    assert run.of(InterventionIssued)[-1].action.action == "notify"


def test_the_bounds_travel_with_the_command() -> None:
    run = running(policy(rule(CLIP)) + "bounds: {clip: {max: 2.0}, dropout: {max: 0.5}}\n", 1)
    assert run.of(InterventionIssued)[0].bounds == {"clip": Bound(max=2.0)}


def test_what_would_change_nothing_is_said_once_and_not_issued() -> None:
    run = running(policy(rule(CLIP, more=OFTEN)), 40, obeys=True, values={"lr_multiplier": 1.0, "clip": 5.0})
    assert life(run) == ["proposed", "issued", "proposed", "declined"]
    assert run.of(InterventionDeclined)[0].why == "it would change nothing: clip is 1 already"


def test_after_a_restart_nothing_is_known_of_the_values() -> None:
    run = running(policy(rule(CLIP, more=OFTEN)), 10, obeys=True, values={"lr_multiplier": 1.0, "clip": 5.0})
    run.begin_attempt("restart", "again", 5)
    assert run.state.ledger.values == {}
    run.train(2)
    assert life(run)[-2:] == ["proposed", "issued"]


def test_after_a_restart_the_values_are_those_that_the_trainer_says() -> None:
    run = running(policy(rule(CLIP, more=OFTEN)), 10, obeys=True, values={"lr_multiplier": 1.0, "clip": 5.0})
    run.begin_attempt(
        "restart", "again", 5, values={"lr_multiplier": 0.5, "clip": 1.0, "another": 3.0, "dropout": math.nan}
    )
    assert run.state.ledger.values == {"lr_multiplier": 0.5, "clip": 1.0}
    run.train(2)
    assert life(run)[-2:] == ["proposed", "declined"], "it would change nothing"


def test_a_pilot_that_is_made_later_says_what_is_in_force_too() -> None:
    run = running(policy(rule(CLIP)), 0)
    run.tell(run.ranks[0], run.ranks[0].started, 1, values={"clip": 1.0})
    assert run.state.ledger.values == {"lr_multiplier": 1.0, "clip": 1.0}
    assert life(run.train(1)) == ["proposed", "declined"]


def test_all_rules_together_act_no_more_often_than_the_policys_limit_allows() -> None:
    rules = [rule(SKIP, name=name, more=OFTEN) for name in ("one", "two")]
    run = running(policy(*rules) + "limit: {count: 2, window_steps: 20}\n", 41, obeys=True)
    at = [issued.step for issued in run.of(InterventionIssued)]
    assert len(at) > 3
    assert all(later - earlier >= 20 for earlier, later in zip(at, at[2:], strict=False))


def test_new_actions_that_turn_a_knob_need_a_class_and_nothing_else() -> None:
    text = policy(rule("{action: set_loss_weight, value: 0.5}"), rule("{action: set_batch_size, value: 64}", name="b"))
    assert [action.leaves({}) for each in load_policy(text).rules for action in each.actions] == [
        {"loss_weight": 0.5},
        {"batch_size": 64.0},
    ]
    run = GovernedRun(world=1).begin(text).train(1)
    assert run.of(InterventionProposed)[0].action.action == "set_loss_weight"
