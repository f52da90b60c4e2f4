"""Whatever advisors say, whenever and how often: nothing but what the policy lets be chosen is ever issued for it."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.events.action_surface import refusal
from pilothouse.events.commands import AdviceGiven
from pilothouse.events.decisions import AdviceJudged, AdviceRequested, InterventionIssued
from pilothouse.governance.policy import load_policy
from pilothouse.tests.advised_run import POLICY, answer, asked_run, questions
from pilothouse.tests.event_strategies import event
from pilothouse.tests.governed_run import GovernedRun, decided

[RULE] = load_policy(POLICY).rules
ABOUT = st.sampled_from(["an open question", "an old one", "none"])
MOVES = st.lists(st.tuples(event(AdviceGiven), ABOUT, st.booleans(), st.integers(0, 6)), max_size=8)


def said(run: GovernedRun, nonsense: AdviceGiven, about: str, right: bool, number: int) -> AdviceGiven:
    asked: list[AdviceRequested] = questions(run)
    open_ones = [one for one in asked if run.state.ledger.advice.find(one.request_id)]
    question = (open_ones or asked)[-1] if about == "an open question" else asked[0]
    told: dict[str, Any] = {"writer_id": f"advisor-{number}", "seq": 1, "run_id": run.run_id}
    if about != "none":
        told |= {"request_id": question.request_id, "advisor": question.advisor}
    if right:
        return answer(question, {"action": "skip_batches", "count": 40}, **told)
    return nonsense.model_copy(update=told)


@settings(max_examples=25)
@given(MOVES)
def test_no_advice_whatever_leaves_the_choices_the_budget_or_the_log(moves: list[Any]) -> None:
    run = asked_run(bad=10_000, steps=103)
    for number, (nonsense, about, right, steps) in enumerate(moves):
        run.fold(said(run, nonsense, about, right, number))
        run.obey()
        run.train(steps)
    assert all(count.calls <= 3 for count in run.state.ledger.advice.spent.values())
    advised = {judged.intervention_id for judged in run.of(AdviceJudged) if judged.outcome == "proposed"}
    for issued in run.of(InterventionIssued):
        if issued.intervention_id in advised:
            assert RULE.advise is not None
            assert refusal(RULE.advise.choose_from, issued.action) is None
        else:
            assert issued.action.action == "notify", "the ladder's"
    settled = [judged.request_id for judged in run.of(AdviceJudged) if judged.outcome not in ("stale", "not_asked")]
    assert len(settled) == len(set(settled)), "a question is settled once"
    assert list(map(repr, decided(run.records))) == list(map(repr, run.decisions))
