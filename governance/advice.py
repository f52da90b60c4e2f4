"""Advisors: what is asked of them, and what is taken from them. They can only propose.

A rule that says `advise` asks before it acts: the governor writes the question (`AdviceRequested`), a worker of its own
answers with a record of the log (`AdviceGiven`), and `decide` takes what was chosen through every limit, bound and
approval of the rule. Nothing waits but this rule, and it waits for so many Ticks: then the next advisor is asked, and
behind the last one the rule's own ladder goes on. Everything a replay needs is in the log. Called by `decide`, and by
`stream_processors.judging` and `fold` for time and for the end of an attempt.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from ..events.action_surface import ActionChoice, refusal
from ..events.actions import Action
from ..events.commands import AdviceGiven
from ..events.decisions import AdviceJudged, AdviceOutcome, AdviceRequested, ConditionType
from .conditions import ASIDE, Condition
from .desk import Desk
from .incidents import gravest
from .interventions import Ledger
from .policy import Policy, Rule
from .policy_advice import Advise, Advisor
from .questions import MAX_OPEN, Advice, Question, Spent
from .situation import Situation

WORDS = 500
"""So much of an advisor's words goes into a reason; all of them stand in its answer."""


class Usable(NamedTuple):
    """An answer that came in time, to a rule that still holds, within what may be chosen."""

    rule: Rule
    question: Question
    action: Action
    words: str


def awaited(ledger: Ledger, rule: Rule, situation: Situation, desk: Desk) -> bool:
    """Whether a rule that may act waits for its advisors instead; asks the first of them where none was asked yet.

    In mode observe nobody is asked: nothing could come of it.
    """
    if rule.advise is None or situation.policy.mode == "observe" or rule.name in ledger.advice.exhausted:
        return False
    if any(known.rule == rule.name for known in ledger.advice.open):
        return True
    return _ask(ledger, rule, rule.advise.advisors, situation, desk)


def taken(ledger: Ledger, given: AdviceGiven, situation: Situation, desk: Desk) -> Usable | None:
    """An answer, held against its question. What cannot be used is said, and the next advisor is asked; None then."""
    question = ledger.advice.find(given.request_id)
    if question is None or question.advisor != given.advisor:
        was = "no such question is open: it was settled, or its time was over"
        judged(
            desk, given.request_id, given.advisor, "stale", was if question is None else f"{question.advisor} was asked"
        )
        return None
    ledger.advice.open.remove(question)
    _count(ledger.advice.of(given.advisor), given)
    rule = _rule(situation.policy, question.rule)
    if rule is None or rule.advise is None or ledger.rule(rule.name).held < rule.for_steps:
        judged(desk, question.request_id, question.advisor, "stale", f"rule {question.rule} does not hold any more")
        return None
    outcome, reason = _held_against(rule.advise.choose_from, given)
    if outcome is None and given.action is not None:
        return Usable(rule, question, given.action, given.why[:WORDS])
    judged(desk, question.request_id, question.advisor, outcome or "nothing", reason)
    _ask_next(ledger, question, situation, desk)
    return None


def _held_against(choices: Sequence[ActionChoice], given: AdviceGiven) -> tuple[AdviceOutcome | None, str]:
    if given.action is None:
        return "nothing", (given.error or given.why or "it proposes nothing")[:WORDS]
    why_not = refusal(choices, given.action)
    return (None, "") if why_not is None else ("out_of_bounds", why_not[:WORDS])


def time_out(ledger: Ledger, situation: Situation, desk: Desk) -> None:
    """Questions that nobody answered in time: their answers are stale from now on."""
    for question in list(ledger.advice.open):
        if situation.tick - question.since_tick >= question.deadline_ticks:
            ledger.advice.open.remove(question)
            reason = (
                f"no answer within {question.deadline_ticks} s; is an advisor running (`pilothouse worker advisor`)?"
            )
            judged(desk, question.request_id, question.advisor, "unanswered", reason)
            _ask_next(ledger, question, situation, desk)


def abandon(ledger: Ledger, reason: str, desk: Desk) -> None:
    """The run ended or goes on as another attempt: what was asked is of no use any more."""
    questions, ledger.advice.open = ledger.advice.open, []
    for question in questions:
        judged(desk, question.request_id, question.advisor, "abandoned", reason)
    ledger.advice.exhausted = []


def judged(  # noqa: PLR0913, PLR0917  # one argument for each field
    desk: Desk, request_id: str, advisor: str, outcome: AdviceOutcome, reason: str, intervention_id: str = ""
) -> None:
    """Say what became of a question."""
    desk.decide(
        AdviceJudged,
        request_id,
        request_id=request_id,
        advisor=advisor,
        outcome=outcome,
        reason=reason,
        intervention_id=intervention_id,
    )


def _ask_next(ledger: Ledger, question: Question, situation: Situation, desk: Desk) -> None:
    rule = _rule(situation.policy, question.rule)
    if rule is None or rule.advise is None or ledger.rule(rule.name).held < rule.for_steps:
        return
    advisors = rule.advise.advisors
    behind = [advisors.index(known) + 1 for known in advisors if known == question.advisor]
    _ask(ledger, rule, advisors[behind[0] :] if behind else (), situation, desk)


def _ask(ledger: Ledger, rule: Rule, advisors: Sequence[Advisor], situation: Situation, desk: Desk) -> bool:
    """Ask the first of these who may be asked; whether there is one."""
    for advisor in advisors:
        assert rule.advise is not None, "whoever has advisors has said which"
        request_id = desk.new_id(f"advice/{rule.name}", f"step {desk.step}")
        choices = tuple(choice for choice in rule.advise.choose_from if choice.action in situation.steers)
        obstacle = _obstacle(ledger.advice, rule.advise, advisor)
        if not choices:
            obstacle = (
                f"this trainer can do nothing of what may be chosen; it steers: {', '.join(situation.steers) or '–'}"
            )
        if obstacle is not None:
            judged(desk, request_id, advisor, "not_asked", obstacle)
            continue
        ledger.advice.of(advisor).calls += 1
        ledger.advice.open.append(Question(request_id, rule.name, advisor, situation.tick, rule.advise.within_seconds))
        _request(rule, advisor, request_id, choices, situation, desk)
        return True
    ledger.advice.exhaust(rule.name)
    return False


def _obstacle(advice: Advice, advise: Advise, advisor: Advisor) -> str | None:
    spent, budget = advice.of(advisor), advise.budget
    if len(advice.open) >= MAX_OPEN:
        return f"{MAX_OPEN} questions of this run are open already"
    if spent.calls >= budget.calls:
        return f"it was asked {spent.calls} times in this run, as often as its budget allows"
    if budget.cost_usd is None:
        return None
    if spent.unpriced:
        return "what an answer cost is not known, so that the budget cannot be kept: set the model's price"
    if spent.cost_usd >= budget.cost_usd:
        return f"its answers in this run have cost {spent.cost_usd:.4f} USD; the budget is {budget.cost_usd:g}"
    return None


def _request(  # noqa: PLR0913, PLR0917  # what a question is made of
    rule: Rule, advisor: str, request_id: str, choices: tuple[ActionChoice, ...], situation: Situation, desk: Desk
) -> None:
    assert rule.advise is not None, "whoever has advisors has said which"
    facts = situation.facts
    conditions = cast(Mapping[ConditionType, Condition], facts["conditions"])
    condition, reason = signature(conditions)
    desk.decide(
        AdviceRequested,
        request_id,
        request_id=request_id,
        question=rule.when,
        evidence=facts["features"],
        advisor=advisor,
        rule=rule.name,
        runbook=rule.runbook,
        incident_id=situation.incident_id,
        condition=condition,
        reason=reason,
        onset_step=situation.onset,
        phase=facts["phase"],
        margin=facts["margin"],
        conditions={name: f"{known.status} {known.reason}".strip() for name, known in conditions.items()},
        choices=choices,
        bounds=situation.policy.bounds,
        values=situation.values,
        within_seconds=rule.advise.within_seconds,
    )


def signature(conditions: Mapping[ConditionType, Condition]) -> tuple[str, str]:
    """What is wrong, by the condition and its reason: the gravest that fails, else the first that does; empty where
    none does.
    """
    grave = gravest(dict(conditions))
    failing = [known for known in conditions.values() if known.status == "False" and known.type not in ASIDE]
    first = grave or next(iter(failing), None)
    return (first.type, first.reason) if first is not None else ("", "")


def _count(spent: Spent, given: AdviceGiven) -> None:
    if given.cost_usd is None:
        spent.unpriced = True
    else:
        spent.cost_usd += given.cost_usd


def _rule(policy: Policy, name: str) -> Rule | None:
    return next((rule for rule in policy.rules if rule.name == name), None)
