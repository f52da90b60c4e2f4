"""What people order: who may say what when, who was first, and what each is told."""

from typing import Any

import pytest

from pilothouse.events.actions import CheckpointRef, Pause, Revert, Rollback, ScaleLr, SetClip
from pilothouse.events.decisions import (
    InterventionApproved,
    InterventionDeclined,
    InterventionIssued,
    InterventionProposed,
    InterventionVerified,
    OrderAnswered,
)
from pilothouse.governance import silences
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.run_builder import activated
from pilothouse.tests.unit.test_decide import CLIP, HALVE, HUMAN, NOTIFY, life, nan_from, policy, rule, running

ASKED = f"{HUMAN}, default: decline}}"
NO_RULES = policy(rule(CLIP, when="'false'"))
QUIET = policy(rule(NOTIFY, more="cooldown_steps: 0, limit: {count: 64}"), rule(NOTIFY, name="other", when="'false'"))


def asking(**fields: Any) -> tuple[GovernedRun, str]:
    run = running(policy(rule(CLIP, more=ASKED)), 1, **fields)
    return run, run.of(InterventionProposed)[0].intervention_id


def answers(run: GovernedRun) -> list[tuple[bool, str]]:
    return [(answer.accepted, answer.reason) for answer in run.of(OrderAnswered)]


def last(run: GovernedRun) -> OrderAnswered:
    answer: OrderAnswered = run.of(OrderAnswered)[-1]
    return answer


def test_every_order_is_answered_with_whose_it_was_and_what_it_came_to() -> None:
    run, asked = asking()
    run.order("approve", intervention_id=asked)
    answer = last(run)
    assert (answer.order_id, answer.verb, answer.who) == ("person:1", "approve", "ada")
    assert (answer.accepted, answer.reason, answer.intervention_id) == (True, "approved", asked)


def test_what_is_asked_says_how_long_a_person_has_and_what_happens_otherwise() -> None:
    run, _ = asking()
    proposed = run.of(InterventionProposed)[0]
    assert (proposed.needs_approval, proposed.timeout_seconds, proposed.default) == (True, 30, "decline")


@pytest.mark.parametrize("first, then", [("approve", "decline"), ("decline", "approve"), ("approve", "approve")])
def test_of_two_people_the_first_in_the_log_wins_and_the_second_is_told_who_it_was(first: Any, then: Any) -> None:
    run, asked = asking()
    run.order(first, intervention_id=asked, who="ada")
    run.order(then, intervention_id=asked, who="bob")
    assert answers(run) == [(True, f"{first}d"), (False, f"it was {first}d by ada: because")]
    assert len(run.of(InterventionApproved, InterventionDeclined)) == 1


def test_who_comes_after_the_time_is_told_that_nobody_answered() -> None:
    run, asked = asking()
    run.heartbeats(30)
    run.order("approve", intervention_id=asked)
    assert answers(run) == [(False, "it was declined by timeout: nobody answered within 30 s")]
    assert run.of(InterventionIssued) == []


def test_an_answer_to_what_was_never_asked_is_told_so() -> None:
    run = running(policy(rule(CLIP)), 1)
    issued = run.of(InterventionIssued)[0].intervention_id
    for intervention_id in (issued, "nonsense"):
        run.order("approve", intervention_id=intervention_id)
    assert answers(run) == [
        (False, "nobody was asked: it is on its way to the trainer"),
        (False, "nothing of this id waits for an answer in this run"),
    ]


def test_a_proposal_that_a_restart_made_void_cannot_be_approved() -> None:
    run, asked = asking()
    run.begin_attempt("restart", "again", 1)
    run.order("approve", intervention_id=asked)
    assert answers(run) == [(False, "it was void: the run was started again")]


def test_what_has_become_impossible_is_not_issued_though_it_is_approved() -> None:
    text = policy(rule(HALVE, more=ASKED))
    run = running(text, 1)
    run.fold(activated("run", text + "bounds: {lr_multiplier: {min: 0.6}}\n", seq=2))
    run.order("approve", intervention_id=run.of(InterventionProposed)[0].intervention_id)
    assert "it is not possible any more: beyond the bounds of policy p: lr_multiplier would be 0.5" in last(run).reason
    assert life(run) == ["proposed", "declined"]
    assert run.state.ledger.in_flight == []


def test_only_so_many_answers_are_remembered() -> None:
    run = running(policy(rule(CLIP, more=f"{ASKED}, limit: {{count: 64}}"), budget=0), 1)
    assert run.of(InterventionProposed) == [], "nothing may be asked without a budget"
    run = running(policy(rule(NOTIFY, more=f"{ASKED}, limit: {{count: 64, window_steps: 1}}")), 1)
    for _ in range(20):
        asked = run.of(InterventionProposed)[-1].intervention_id
        run.order("decline", intervention_id=asked)
        run.train(1)
    assert len(run.state.ledger.answers) == 16


def test_what_people_decline_costs_no_budget() -> None:
    run = running(policy(rule(CLIP, more=f"{ASKED}, limit: {{count: 64, window_steps: 1}}"), budget=1), 1)
    for _ in range(3):
        run.order("decline", intervention_id=run.of(InterventionProposed)[-1].intervention_id)
        run.train(1)
    assert len(run.of(InterventionProposed)) == 4
    run.order("approve", intervention_id=run.of(InterventionProposed)[-1].intervention_id)
    run.train(80)  # it expires, and was issued all the same
    assert len(run.of(InterventionProposed)) == 4


# ------------------------------------------------------------------------------------------------- people's own actions


def test_a_person_is_bound_by_the_policys_bounds_as_rules_are() -> None:
    run = running(NO_RULES + "bounds: {clip: {min: 0.5, max: 2.0}, lr_multiplier: {min: 0.3}}\n", 3)
    for action in (SetClip(value=3.0), ScaleLr(factor=0.25), SetClip(value=2.0)):
        run.order("intervene", action=action)
    assert [accepted for accepted, _ in answers(run)] == [False, False, True]
    assert answers(run)[0][1] == "beyond the bounds of policy p: clip would be 3: at most 2"
    assert answers(run)[1][1] == "beyond the bounds of policy p: lr_multiplier would be 0.25, from 1: at least 0.3"
    (issued,) = run.of(InterventionIssued)
    assert {name: (bound.min, bound.max) for name, bound in issued.bounds.items()} == {"clip": (0.5, 2.0)}


def test_the_same_stop_twice_is_one() -> None:
    run = running(NO_RULES, 3)
    for _ in range(2):
        run.order("stop")
    assert answers(run) == [(True, "issued"), (False, "the same is on its way already, ordered by ada")]


def test_a_pause_is_as_long_as_was_said() -> None:
    run = running(NO_RULES, 3)
    run.order("pause", action=Pause(max_seconds=90.0))
    run.order("pause", action=SetClip(value=1.0))
    first, second = (issued.action for issued in run.of(InterventionIssued))
    assert (first, second) == (Pause(max_seconds=90.0), Pause())


def test_an_order_to_a_run_that_is_over_is_told_so() -> None:
    run = GovernedRun(world=1).begin(QUIET).train(3).end()
    run.order("stop")
    run.order("silence", steps=5)
    run.order("approve", intervention_id="x")
    assert [accepted for accepted, _ in answers(run)] == [False] * 3
    assert answers(run)[0][1] == "the run has ended (Completed)"


def test_nobody_orders_a_revert() -> None:
    run = running(NO_RULES, 3)
    run.order("intervene", action=Revert(intervention_id="i", values={"clip": 5.0}))
    assert answers(run)[0][0] is False
    assert life(run) == ["proposed", "declined"]


def test_a_person_cannot_go_back_to_what_turned_out_unusable() -> None:
    run = GovernedRun(world=1, corrupt=frozenset({"checkpoint-40"})).begin().train(45)
    run.order("intervene", action=Rollback())
    run.obey()
    run.train(1)
    ref = CheckpointRef(checkpoint_id="checkpoint-40", step=40, path="/checkpoints/40", manifest_sha256="0" * 64)
    run.order("intervene", action=Rollback(checkpoint=ref))
    assert answers(run)[1] == (False, "checkpoint checkpoint-40 turned out unusable")


def test_what_a_person_does_to_heal_is_verified_as_a_rules_is() -> None:
    run = GovernedRun(world=1).begin(NO_RULES).train(20)
    run.order("intervene", action=ScaleLr(factor=0.5))
    run.train(25)
    (verified,) = run.of(InterventionVerified)
    assert (verified.outcome, verified.window_steps) == ("recovered", 20)


# ----------------------------------------------------------------------------------------------------------- silences


def notified(run: GovernedRun) -> list[int]:
    return [issued.step for issued in run.of(InterventionIssued)]


@pytest.mark.parametrize("about", [{}, {"rule": "r"}])
def test_a_silenced_rule_keeps_still_for_so_many_steps_and_the_record_says_why(about: dict[str, Any]) -> None:
    run = running(QUIET, 3)
    run.order("silence", steps=4, **about)
    run.train(7)
    assert notified(run) == [0, 1, 2, 7, 8, 9]
    (declined,) = run.of(InterventionDeclined)
    assert (declined.who, declined.why, declined.step) == ("ada", "silenced by ada: because", 3)
    assert last(run).reason == ("rule r" if about else "every rule") + " keeps still for 4 judged steps"


def test_a_silence_may_end_by_the_clock() -> None:
    run = running(QUIET, 3)
    run.order("silence", seconds=2)
    run.train(4)  # a step a second
    assert notified(run) == [0, 1, 2, 5, 6]


def test_a_silence_about_a_condition_leaves_the_other_rules_alone() -> None:
    text = policy(rule(NOTIFY, name="sick", when="conditions.Finite == 'False'"), rule(CLIP, name="clip"))
    run = running(text, 20, loss=nan_from(5))
    run = GovernedRun(world=1, loss=nan_from(5), checkpoint_every=0, obeys=False).begin(text)
    run.order("silence", condition="Finite", steps=100)
    run.train(10)
    assert {issued.rule for issued in run.of(InterventionIssued)} == {"clip"}
    assert {declined.who for declined in run.of(InterventionDeclined)} == {"ada"}


def test_a_silenced_rule_stays_where_it_is_on_its_ladder() -> None:
    run = running(policy(rule(f"{HALVE}, {CLIP}")))
    run.order("silence", steps=3)
    run.train(6)
    assert [issued.action.action for issued in run.of(InterventionIssued)] == ["scale_lr"]


def test_a_silence_is_ended_before_its_time_and_only_where_there_is_one() -> None:
    run = running(QUIET, 1)
    run.order("silence", steps=0)
    run.order("silence", steps=50)
    run.train(1)
    run.order("silence", steps=0)
    run.train(2)
    assert answers(run) == [
        (False, "there is no silence about every rule to end"),
        (True, "every rule keeps still for 50 judged steps"),
        (True, "every rule speaks again"),
    ]
    assert notified(run) == [0, 2, 3]


@pytest.mark.parametrize(
    "about, said",
    [
        ({}, "a silence needs an end"),
        ({"steps": 3, "seconds": 3}, "not both"),
        ({"steps": 3, "rule": "r", "condition": "Finite"}, "not both"),
        ({"steps": 3, "rule": "nobody"}, "policy p has no rule nobody; there are: r, other"),
        ({"steps": 3, "condition": "Finite"}, "no rule of policy p looks at Finite"),
    ],
)
def test_a_silence_that_makes_no_sense_is_refused_in_words(about: dict[str, Any], said: str) -> None:
    run = running(QUIET, 1)
    run.order("silence", **about)
    assert last(run).accepted is False
    assert said in last(run).reason
    assert run.state.ledger.silences == []


def test_silences_are_bounded_and_those_that_are_over_make_room() -> None:
    many = [rule(NOTIFY, name=f"r{number}", when="'false'") for number in range(silences.MOST + 1)]
    run = running(policy(*many), 1)
    for number in range(silences.MOST + 1):
        run.order("silence", rule=f"r{number}", steps=2)
    assert [accepted for accepted, _ in answers(run)] == [True] * silences.MOST + [False]
    run.train(2)
    assert all(not known.in_force(run.state.ledger.judged + 1, 0) for known in run.state.ledger.silences)
    run.order("silence", rule="r0", steps=2)
    assert last(run).accepted
    assert len(run.state.ledger.silences) == 1


def test_a_silence_is_no_bar_to_a_person() -> None:
    run = running(QUIET, 1)
    run.order("silence", steps=50)
    run.order("stop")
    assert last(run).accepted
