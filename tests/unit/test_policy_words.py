"""What people read of a policy: what it does, what differs, and how its rules stand."""

from typing import Any, get_args

import pytest

from pilothouse.events.actions import ActionKind, CheckpointRef
from pilothouse.governance.policy import SHIPPED, Policy, load_policy, shipped_policy_text, with_mode
from pilothouse.governance.policy_diff import differences
from pilothouse.governance.policy_faults import ACTIONS
from pilothouse.governance.policy_standing import standings
from pilothouse.governance.policy_words import of_action, of_rule, sentences
from pilothouse.stream_processors.moment import moment_of, state_after
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.run_builder import quiet_loss

RULE = """\
name: p
mode: enforce
applies_to: {team: [vision, speech], tags: {stage: pretrain}}
budget: 3
rules:
  - name: spike
    when: features.loss > 5.0
    for: 3
    no_data: hold
    severity: page
    runbook: look at the data
    actions:
      - {action: rollback, skip_batches: 40, lr_factor: 0.5}
      - {action: stop}
    approval: {by: human, timeout_seconds: 600, default: approve}
    cooldown_steps: 10
    limit: {count: 2, window_steps: 500}
    ttl_steps: 60
    verify: {window_steps: 30}
  - {name: tell, when: conditions.Finite == 'False', actions: [{action: notify, message: help}]}
"""


def changed(*swaps: tuple[str, str]) -> Policy:
    text = RULE
    for old, new in swaps:
        assert old in text
        text = text.replace(old, new)
    return load_policy(text)


def said(before: Policy, after: Policy) -> list[str]:
    return [str(difference) for difference in differences(before, after)]


def test_a_rule_is_told_in_the_order_in_which_a_person_asks() -> None:
    back = "go back to the last good checkpoint from before the incident, on all ranks, drop 40 batches"
    often = "at most 2 times in 500 steps, 10 steps of rest in between"
    helped = "helped if after 30 steps: conditions.Finite == 'True' && conditions.Stable == 'True'"
    told = {
        "when": "features.loss > 5.0",
        "for": "3 steps in a row",
        "without data": "a step at which that cannot be answered changes nothing: the steps before it still count",
        "does": f"first {back}, multiply the learning rate by 0.5; then stop the run with a last checkpoint; "
        "that again, until the incident is over",
        "who agrees": "a person; if nobody answers within 10 minutes, it is done",
        "severity": "page (somebody is paged)",
        "limits": f"{often}; a command not applied within 60 steps is void",
        "verified": f"{helped}; failed at once if: conditions.Finite == 'False'",
        "runbook": "look at the data",
    }
    assert list(of_rule(load_policy(RULE).rules[0], "enforce").items()) == list(told.items())


@pytest.mark.parametrize(
    "mode, by, who",
    [
        ("observe", "human", "nobody: nothing is done in mode observe"),
        ("propose", "auto", "a person; if nobody answers within 10 minutes, it is done"),
        ("enforce", "auto", "nobody: it is done at once"),
    ],
)
def test_who_must_agree_depends_on_the_mode(mode: Any, by: str, who: str) -> None:
    assert of_rule(changed(("by: human", f"by: {by}")).rules[0], mode)["who agrees"] == who


REF = CheckpointRef(checkpoint_id="c", step=3, path="p", manifest_sha256="0" * 64)


def test_every_action_has_words() -> None:
    fields = {"factor": 0.5, "value": 0.5, "count": 2, "message": "m", "max_seconds": 7_200.0}
    fields |= {"intervention_id": "i", "values": {"clip": 1.0}}
    others: dict[str, Any] = {"rollback": {"checkpoint": REF}, "set_batch_size": {"value": 64.0}}
    words = {}
    for kind, model in ACTIONS.items():
        given = {name: value for name, value in fields.items() if name in model.model_fields}
        action: Any = model(**given | others.get(kind, {}))
        words[kind] = of_action(action)
    assert set(words) == set(get_args(ActionKind))
    assert len(set(words.values())) == len(words)
    assert words["pause"] == "pause, at most 2 hours"


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_policy_can_be_told(name: str) -> None:
    policy = load_policy(shipped_policy_text(name))
    headings = [heading for heading, _ in sentences(policy)]
    assert headings == [policy.name, *(f"{at}. {rule.name}" for at, rule in enumerate(policy.rules, start=1))]


def test_what_differs_is_told_rule_by_rule_with_what_was() -> None:
    after = changed(("for: 3", "for: 2"), ("window_steps: 500", "window_steps: 900"), ("budget: 3", "budget: 4"))
    budget, steps, limits = said(load_policy(RULE), after)
    assert budget.startswith(
        "policy: budget: at most 4 interventions that touch a run, over the run's whole life; was: at"
    )
    assert steps == "rule spike: for: 2 steps in a row; was: 3 steps in a row"
    assert limits.startswith("rule spike: limits: at most 2 times in 900 steps, ")
    assert "; was: at most 2 times in 500 steps, " in limits


def test_another_mode_is_told_once_and_not_for_every_rule() -> None:
    [mode] = said(load_policy(RULE), load_policy(with_mode(RULE, "observe")))
    assert mode.startswith("policy: mode: observe: watches and records what it would do")


def test_rules_that_came_went_or_moved_are_told() -> None:
    before, after = load_policy(RULE), changed(("name: tell", "name: shout"))
    assert [line.partition(".")[0] for line in said(before, after)] == ["rule shout: new", "rule tell: gone"]
    turned = before.model_copy(update={"rules": before.rules[::-1]})
    assert said(before, turned) == ["rule tell: asked first, was behind spike"]


def test_comments_and_the_order_of_keys_are_no_difference() -> None:
    text = "# a comment\n" + RULE.replace("name: p\nmode: enforce\n", "mode: enforce\nname: p\n")
    assert said(load_policy(RULE), load_policy(text)) == []


WATCH = """\
name: p
mode: enforce
budget: 1
rules:
  - {name: calm, when: conditions.Finite == 'False', actions: [{action: stop}]}
  - {name: blind, when: features.val_loss > 1.0, no_data: ignore, actions: [{action: stop}]}
  - {name: long, when: "has(features.loss) && features.loss > 1.0", for: 9, actions: [{action: stop}]}
  - {name: asked, when: "has(features.loss) && features.loss > 1.0", actions: [{action: stop}], approval: {by: human}}
  - {name: cannot, when: phase == 'Warmup', actions: [{action: set_clip, value: 1.0}]}
  - {name: ready, when: phase == 'Warmup', actions: [{action: stop}]}
"""


def obstacles(text: str) -> dict[str, tuple[str, str]]:
    run = GovernedRun(world=1, loss=lambda _, step, rank: quiet_loss(step, rank), checkpoint_every=0, obeys=False)
    run.begin("name: none\nrules: []\n", steers=("stop",)).train(5)
    state = state_after("run", run.records)
    policy = load_policy(text)
    for rule in policy.rules:
        state.ledger.rule(rule.name).held = 5
    return {found.rule: (found.holds, found.obstacle) for found in standings(policy, moment_of(state))}


def test_why_a_rule_would_not_act_is_told() -> None:
    assert obstacles(WATCH) == {
        "calm": ("no", "it does not hold"),
        "blind": ("cannot be answered", "the run does not have val_loss"),
        "long": ("yes", "it holds for 5 of 9 steps"),
        "asked": ("yes", "a person must agree first"),
        "cannot": ("yes", "this trainer cannot set_clip; it steers: stop"),
        "ready": ("yes", ""),
    }
    assert obstacles(with_mode(WATCH, "observe"))["ready"] == (
        "yes",
        "mode observe: it is proposed and goes no further",
    )
    assert obstacles(WATCH.replace("budget: 1", "budget: 0"))["ready"] == ("yes", "the policy's budget is spent")
