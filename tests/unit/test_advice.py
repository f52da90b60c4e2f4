"""What is asked of advisors and what is taken from them: they only propose, and nothing waits for them."""

from pathlib import Path
from typing import Any

import pytest

from pilothouse.events.action_surface import ActionChoice, refusal
from pilothouse.events.actions import ACTION
from pilothouse.events.commands import PolicyActivated
from pilothouse.events.decisions import (
    AdviceJudged,
    InterventionApproved,
    InterventionDeclined,
    InterventionIssued,
    InterventionProposed,
    InterventionVerified,
)
from pilothouse.governance.policy import dump_policy, load_policy, read_policy
from pilothouse.governance.policy_words import of_rule
from pilothouse.stream_processors.run_state import dump_state, load_state
from pilothouse.stream_processors.trial import run_trials
from pilothouse.tests.advised_run import BAD_FROM, HALVE, POLICY, answer, asked_run, outcomes, policy, questions
from pilothouse.tests.governed_run import GovernedRun, decided

HUMAN = "  approval: {by: human, timeout_seconds: 60}\n"
ONLY_LLM = {"advisors": "[llm]"}


def proposals(run: GovernedRun) -> list[str]:
    return [f"{proposed.rule} {proposed.action.action}" for proposed in run.of(InterventionProposed)]


def test_a_rule_asks_before_it_acts_with_the_signature_the_evidence_and_all_that_may_be_chosen() -> None:
    run = asked_run()
    [asked] = questions(run)
    assert (asked.advisor, asked.rule, asked.question) == ("memory", "unstable", "conditions.Stable == 'False'")
    assert (asked.condition, asked.phase, asked.onset_step) == ("Stable", "Unstable", BAD_FROM)
    assert asked.conditions["Stable"] == f"False {asked.reason}"
    assert asked.incident_id
    assert asked.evidence["loss"] > 4.0
    assert (asked.runbook, asked.within_seconds) == ("Suspect the data first.", 10)
    assert [str(choice) for choice in asked.choices] == [
        "scale_lr factor 0.25 to 0.9",
        "skip_batches count 10 to 200 in steps of 10",
    ]
    assert asked.bounds["lr_multiplier"].min == 0.1
    assert proposals(run) == [], "the rule waits for the answer"


def test_what_an_advisor_proposes_is_issued_applied_and_verified_like_any_other() -> None:
    run = asked_run()
    words = "it helped 7 of 9 times"
    run.fold(answer(questions(run)[0], {"action": "skip_batches", "count": 40}, why=words))
    [proposed] = run.of(InterventionProposed)
    [issued] = run.of(InterventionIssued)
    [judged] = run.of(AdviceJudged)
    assert proposed.action.count == 40
    assert proposed.reason == f"conditions.Stable == 'False'; memory advises: {words}"
    assert (judged.outcome, judged.intervention_id) == ("proposed", proposed.intervention_id)
    assert (issued.intervention_id, issued.rule) == (proposed.intervention_id, "unstable")
    run.obey()
    run.train(20)
    assert [verified.outcome for verified in run.of(InterventionVerified)] == ["recovered"]
    assert run.state.ledger.total == 1, "it counts against the budget"


def test_training_goes_on_while_an_answer_is_awaited_and_other_rules_act() -> None:
    other = "- {name: other, when: conditions.Stable == 'False', actions: [{action: checkpoint_now}]}\n"
    run = asked_run(POLICY + other, steps=108)
    assert run.state.current is not None
    assert run.state.current.judged == 107
    assert proposals(run) == ["other checkpoint_now"]


def test_a_person_agrees_to_what_was_advised_where_the_rule_says_so() -> None:
    run = asked_run(policy(more=HUMAN))
    run.fold(answer(questions(run)[0], HALVE))
    [proposed] = run.of(InterventionProposed)
    assert proposed.needs_approval
    assert run.of(InterventionIssued) == []
    run.order("approve", intervention_id=proposed.intervention_id)
    assert [(approved.who, issued.action.factor) for approved, issued in
            zip(run.of(InterventionApproved), run.of(InterventionIssued), strict=True)] == [("ada", 0.5)]  # fmt: skip


@pytest.mark.parametrize(
    "action, said",
    [
        ({"action": "scale_lr", "factor": 1.5}, "factor 1.5 is not 0.25 to 0.9"),
        ({"action": "skip_batches", "count": 15}, "count 15 is not 10 to 200 in steps of 10"),
        ({"action": "stop"}, "stop is not among what may be chosen: scale_lr, skip_batches"),
        ({"action": "notify", "message": "ignore the rules"}, "notify is not among what may be chosen"),
    ],
)
def test_what_is_outside_the_choices_is_refused_with_the_reason_and_the_next_advisor_is_asked(
    action: dict[str, Any], said: str
) -> None:
    run = asked_run()
    run.fold(answer(questions(run)[0], action))
    assert outcomes(run) == ["memory out_of_bounds"]
    assert said in run.of(AdviceJudged)[0].reason
    assert [asked.advisor for asked in questions(run)] == ["memory", "llm"]
    assert proposals(run) == []


def test_the_policys_own_bounds_hold_for_what_was_advised() -> None:
    run = asked_run(POLICY.replace("{min: 0.1}", "{min: 0.8}"))
    run.state.ledger.values["lr_multiplier"] = 1.0
    run.fold(answer(questions(run)[0], HALVE))
    assert outcomes(run) == ["memory refused"]
    assert "lr_multiplier would be 0.5, from 1: at least 0.8" in run.of(AdviceJudged)[0].reason
    run.train(1)
    assert proposals(run) == ["unstable notify"], "its ladder's turn"


def test_where_no_advisor_proposes_anything_the_ladder_goes_on_and_they_may_be_asked_again_after_it() -> None:
    run = asked_run()
    run.fold(answer(questions(run)[0], why="no evidence"))
    run.fold(answer(questions(run)[1], error="HTTP 429"))
    assert outcomes(run) == ["memory nothing", "llm nothing"]
    assert [judged.reason for judged in run.of(AdviceJudged)] == ["no evidence", "HTTP 429"]
    run.train(1)
    assert proposals(run) == ["unstable notify"]
    run.train(8)
    assert [asked.advisor for asked in questions(run)] == ["memory", "llm", "memory"]


def test_an_answer_that_comes_too_late_is_stale_and_nothing_comes_of_it_but_a_word() -> None:
    run = asked_run(policy(**ONLY_LLM))
    [asked] = questions(run)
    run.heartbeats(9)
    assert outcomes(run) == ["llm unanswered"]
    assert "no answer within 10 s" in run.of(AdviceJudged)[0].reason
    run.fold(answer(asked, HALVE))
    assert outcomes(run) == ["llm unanswered", "llm stale"]
    assert run.of(InterventionIssued) == []
    run.train(1)
    assert proposals(run) == ["unstable notify"]


def test_an_answer_to_a_rule_that_does_not_hold_any_more_is_stale() -> None:
    run = asked_run(policy(when="has(features.loss) && features.loss > 4.0"), bad=3, steps=103).train(2)
    assert questions(run)
    run.fold(answer(questions(run)[0], HALVE))
    assert outcomes(run) == ["memory stale"]
    assert len(questions(run)) == 1, "nobody else is asked either"


def test_an_answer_twice_is_taken_once_and_one_to_nothing_changes_nothing() -> None:
    run = asked_run()
    given = answer(questions(run)[0], HALVE)
    run.fold(given)
    before = len(run.decisions)
    run.fold(given)
    assert len(run.decisions) == before, "the same record: a duplicate"
    run.fold(given.model_copy(update={"writer_id": "another"}))
    run.fold(given.model_copy(update={"writer_id": "nonsense", "request_id": "never asked"}))
    assert outcomes(run) == ["memory proposed", "memory stale", "memory stale"]
    assert len(run.of(InterventionIssued)) == 1


def test_nobody_answers_for_another() -> None:
    run = asked_run()
    run.fold(answer(questions(run)[0], HALVE, advisor="llm"))
    assert [judged.reason for judged in run.of(AdviceJudged)] == ["memory was asked"]
    run.fold(answer(questions(run)[0], HALVE, writer_id="the right one"))
    assert outcomes(run) == ["llm stale", "memory proposed"]


def test_what_was_advised_waits_for_no_other_intervention_and_does_not_join_one() -> None:
    run = asked_run(obeys=False)
    run.order("intervene", action=ACTION.validate_python({"action": "set_clip", "value": 1.0}))
    run.fold(answer(questions(run)[0], HALVE))
    assert outcomes(run) == ["memory refused"]
    assert run.of(AdviceJudged)[0].reason == "another in flight"


def test_an_advisor_is_asked_as_often_as_its_budget_allows_in_the_life_of_a_run() -> None:
    run = asked_run(policy(**ONLY_LLM), bad=10_000)
    for _ in range(12):
        for asked in questions(run):
            if run.state.ledger.advice.find(asked.request_id):
                run.fold(answer(asked, error="no"))
        run.train(4)
    assert len(questions(run)) == 3
    not_asked = [judged for judged in run.of(AdviceJudged) if judged.outcome == "not_asked"]
    assert "as often as its budget allows" in not_asked[0].reason
    assert run.state.ledger.advice.of("llm").calls == 3


@pytest.mark.parametrize(
    "cost, said",
    [(0.6, "have cost 0.6000 USD; the budget is 0.5"), (None, "what an answer cost is not known")],
)
def test_no_question_costs_more_than_the_budget_and_an_unknown_price_keeps_none(cost: float | None, said: str) -> None:
    run = asked_run(policy(**ONLY_LLM), bad=10_000)
    run.fold(answer(questions(run)[0], error="no", cost_usd=cost))
    run.train(20)
    assert len(questions(run)) == 1
    assert said in next(judged for judged in run.of(AdviceJudged) if judged.outcome == "not_asked").reason


def test_in_mode_observe_nobody_is_asked() -> None:
    run = asked_run(policy(mode="observe"))
    assert questions(run) == []
    assert proposals(run) == ["unstable notify"]


def test_what_a_trainer_cannot_do_is_not_offered_and_nothing_is_asked_where_nothing_is_left() -> None:
    run = asked_run(announced={"steers": ("skip_batches",)})
    assert [str(choice) for choice in questions(run)[0].choices] == ["skip_batches count 10 to 200 in steps of 10"]
    run = asked_run(announced={"steers": ()})
    assert outcomes(run)[:2] == ["memory not_asked", "llm not_asked"]
    assert proposals(run) == ["unstable notify"]


def test_a_question_ends_with_its_attempt_and_with_its_run() -> None:
    run = asked_run()
    run.begin_attempt("restart", "again", 90)
    run.train(1)
    assert outcomes(run) == ["memory abandoned"]
    run = asked_run().end()
    assert outcomes(run) == ["memory abandoned"]
    run.fold(answer(questions(run)[0], HALVE))
    assert outcomes(run) == ["memory abandoned", "memory stale"]
    assert run.of(InterventionDeclined, InterventionIssued) == []


def test_replay_needs_no_advisor_the_log_alone_gives_the_same_decisions() -> None:
    run = asked_run()
    run.fold(answer(questions(run)[0], why="no evidence"))
    run.train(1)
    run.fold(answer(questions(run)[1], {"action": "skip_batches", "count": 40}))
    run.obey()
    run.train(20)
    assert list(map(repr, decided(run.records))) == list(map(repr, run.decisions))
    half = len(run.records) // 2
    first = GovernedRun()
    for record in run.records[:half]:
        first.fold(record.event)
    restored = load_state(dump_state(first.state))
    again = [*first.decisions, *decided(run.records[half:], restored)]
    assert list(map(repr, again)) == list(map(repr, run.decisions))


def test_at_most_so_many_questions_are_open_and_the_other_rules_act_by_themselves() -> None:
    rules = "".join(POLICY.partition("rules:\n")[2].replace("unstable", f"unstable-{n}") for n in range(6))
    run = asked_run(POLICY.partition("rules:\n")[0] + "rules:\n" + rules)
    assert len(run.state.ledger.advice.open) == len(questions(run)) == 4
    assert proposals(run) == ["unstable-4 notify", "unstable-5 notify"]


def test_a_policy_that_has_forgotten_the_rule_makes_the_answer_stale() -> None:
    run = asked_run()
    other = "name: other\nmode: enforce\nrules: []\n"
    told: dict[str, Any] = {"run_id": "run", "writer_id": "policy-2", "seq": 1, "at": 1, "who": "me", "name": "other"}
    run.fold(PolicyActivated(text=other, policy_hash="x", **told))
    run.fold(answer(questions(run)[0], HALVE))
    assert outcomes(run) == ["memory stale"]


@pytest.mark.parametrize(
    "was, now, said",
    [
        ("{min: 0.25, max: 0.9}", "{mn: 0.25, max: 0.9}", "no key 'mn'; did you mean 'min'?"),
        ("{min: 0.25, max: 0.9}", "{min: 0.25, max: 9}", "factor 9: Input should be less than or equal to 2"),
        ("{min: 0.25, max: 0.9}", "{min: 0.9, max: 0.25}", "min is 0.9 and max 0.25"),
        ("factor: {", "factr: {", "there is no 'factr' to bound; there is: factor"),
        (", factor: {min: 0.25, max: 0.9}", "", "'factor' needs bounds"),
        ("action: scale_lr", "action: notify", "'notify' is nothing to choose; there are: scale_lr"),
        ("[memory, llm]", "[memory, oracle]", "no value 'oracle'; there are: memory, llm"),
        ("[memory, llm]", "[llm, llm]", "each advisor is asked once"),
        ("conditions.Stable", "conditions.InDistribution", "a rule that names it asks no advisor"),
    ],
)
def test_a_mistake_in_what_is_asked_is_told_with_its_place_and_what_to_write(was: str, now: str, said: str) -> None:
    loaded, faults = read_policy(POLICY.replace(was, now))
    assert loaded is None
    assert any(said in str(fault) for fault in faults), faults
    assert all(fault.mark.line > 5 for fault in faults)


def test_a_policy_that_asks_is_written_and_read_back_and_said_in_words() -> None:
    asking = load_policy(POLICY)
    assert load_policy(dump_policy(asking)) == asking
    said = of_rule(asking.rules[0], "enforce")["asks first"]
    assert said.startswith("memory, then llm, for at most 10 s each: one of scale_lr factor 0.25 to 0.9; skip_batches")
    assert said.endswith("each is asked at most 3 times in a run, for at most 0.5 USD")


def test_a_choice_admits_what_lies_in_its_bounds_and_nothing_beside() -> None:
    back = ActionChoice.model_validate({"action": "rollback", "lr_factor": {"one_of": [0.5, 0.7]}})
    admitted = ACTION.validate_python({"action": "rollback", "lr_factor": 0.7})
    assert refusal([back], admitted) is None
    beside = ACTION.validate_python({"action": "rollback", "lr_factor": 0.7, "skip_batches": 4})
    assert refusal([back], beside) == "rollback: skip_batches is not to be chosen: it is 0"
    ref = {"checkpoint_id": "mine", "step": 1, "path": "/x", "manifest_sha256": "0" * 64}
    own = ACTION.validate_python({"action": "rollback", "lr_factor": 0.5, "checkpoint": ref})
    assert refusal([back], own) is not None, "which checkpoint is the governor's to say"


def test_a_policy_is_tested_with_what_advisors_answer() -> None:
    series = "series: {loss: 2.0x99~0.02 9.0x11~0.05 2.0x119~0.02, grad_norm: 1.0x231~0.02}"
    taken = "{rule: unstable, action: skip_batches, having: {count: 40}, outcome: recovered}"
    tests = f"""
tests:
- name: taken
  {series}
  advice: [{{at: 104, proposes: {{action: skip_batches, count: 40}}}}]
  expect: [{{at: 0..231, interventions: [{taken}]}}]
- name: unheard
  {series}
  expect: [{{at: 0..108, interventions: []}}]
- name: nothing was proposed
  {series}
  advice: [{{at: 104}}]
  expect: [{{at: 0..231, interventions: [{taken}]}}]
"""
    text = policy(advisors="[memory]").rstrip() + tests
    found = list(run_trials(load_policy(text), text))
    assert [outcome.passed for outcome in found] == [True, True, False], [outcome.mismatches for outcome in found]


def test_the_example_of_the_page_is_right() -> None:
    page = (Path(__file__).parents[2] / "docs" / "advisors.md").read_text(encoding="utf-8")
    example = page.partition("```yaml\n")[2].partition("```")[0]
    [asking] = load_policy(f"name: example\nmode: enforce\n{example}").rules
    assert asking.advise is not None
    assert (asking.advise.advisors, len(asking.advise.choose_from)) == (("memory", "llm"), 3)
