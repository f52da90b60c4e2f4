import pytest

from pilothouse.events.actions import Action, ScaleLr
from pilothouse.events.commands import AdviceGiven
from pilothouse.events.decisions import (
    AdviceJudged,
    InterventionApproved,
    InterventionDeclined,
    InterventionIssued,
    InterventionProposed,
)
from pilothouse.governance.suggestions import ANSWER_SECONDS
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.run_builder import START

POLICY = "name: alone\nmode: {mode}\nbounds: {{lr_multiplier: {{min: 0.1, max: 1.0}}}}\nrules: []\n"


def run_in(mode: str) -> GovernedRun:
    return GovernedRun(world=2, run_id="run-1").begin(POLICY.format(mode=mode)).train(20)


def suggest(run: GovernedRun, action: Action | None, number: int = 1, advisor: str = "mcp:claude") -> AdviceJudged:
    """What became of a suggestion, at once."""
    before = len(run.of(AdviceJudged))
    run.fold(
        AdviceGiven(
            run_id="run-1", writer_id=f"mcp-{number}", seq=1, at=START, request_id=f"unasked-{number}",
            advisor=advisor, action=action, why="the loss climbs",
        )
    )  # fmt: skip
    [judged] = run.of(AdviceJudged)[before:]
    assert (judged.request_id, judged.advisor) == (f"unasked-{number}", advisor)
    assert isinstance(judged, AdviceJudged)
    return judged


@pytest.mark.parametrize("mode", ["propose", "enforce"])
def test_a_suggestion_waits_for_a_person_even_where_rules_act_alone(mode: str) -> None:
    run = run_in(mode)
    judged = suggest(run, ScaleLr(factor=0.5))
    [proposed] = run.of(InterventionProposed)
    assert (judged.outcome, judged.intervention_id) == ("proposed", proposed.intervention_id)
    assert (proposed.needs_approval, proposed.default) == (True, "decline")
    assert proposed.reason == "mcp:claude suggests: the loss climbs"
    run.train(30)
    assert run.of(InterventionIssued) == []
    run.order("approve", intervention_id=proposed.intervention_id)
    assert [approved.who for approved in run.of(InterventionApproved)] == ["ada"]
    [issued] = run.of(InterventionIssued)
    assert (issued.intervention_id, issued.who, issued.action) == (proposed.intervention_id, "ada", proposed.action)
    assert "lr_multiplier" in issued.bounds


def test_a_suggestion_that_nobody_answers_comes_to_nothing() -> None:
    run = run_in("enforce")
    suggest(run, ScaleLr(factor=0.5))
    run.heartbeats(ANSWER_SECONDS + 2)
    assert [declined.who for declined in run.of(InterventionDeclined)] == ["timeout"]
    assert run.of(InterventionIssued) == []
    assert suggest(run, ScaleLr(factor=0.5), number=2).outcome == "proposed"


def test_a_person_may_decline_it() -> None:
    run = run_in("enforce")
    suggested = suggest(run, ScaleLr(factor=0.5))
    run.order("decline", intervention_id=suggested.intervention_id)
    assert [declined.who for declined in run.of(InterventionDeclined)] == ["ada"]
    assert run.of(InterventionIssued) == []


def test_what_a_policy_does_not_allow_is_not_even_put_before_people() -> None:
    run = run_in("enforce")
    assert "bounds" in suggest(run, ScaleLr(factor=0.01)).reason
    assert "change nothing" in suggest(run, ScaleLr(factor=1.0), number=2).reason
    assert suggest(run, None, number=3).outcome == "nothing"
    assert suggest(run_in("observe"), ScaleLr(factor=0.5)).reason.startswith("policy alone only observes")
    assert run.of(InterventionProposed, InterventionIssued) == []


def test_suggestions_come_one_at_a_time() -> None:
    run = run_in("propose")
    suggest(run, ScaleLr(factor=0.5))
    assert "waits" in suggest(run, ScaleLr(factor=0.6), number=2, advisor="mcp:another").reason
    assert len(run.of(InterventionProposed)) == 1


def test_only_assistants_may_speak_unasked() -> None:
    assert suggest(run_in("enforce"), ScaleLr(factor=0.5), advisor="memory").outcome == "stale"
