"""Which rules of a policy could act now, and why the others cannot.

The same questions that `decide` asks, answered in words and without a decision. Called by `pilothouse policy explain
--run`, with the state that the run's log leads to.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from . import expressions, interventions, silences
from .interventions import Ledger, RuleRecord
from .policy import Policy, Rule
from .policy_words import of_action

REFUSALS = {
    "cooldown": "it rests after its last",
    "limit": "its limit is reached",
    "its last is in flight": "its last intervention has not come to its end",
    "budget": "the policy's budget is spent",
    "policy limit": "the policy's limit is reached",
    "another in flight": "another intervention touches the run",
}


class Standing(NamedTuple):
    """How a rule stands. `holds` is yes, no or cannot be answered; `obstacle` is why it would not act, else empty."""

    rule: str
    holds: str
    known: dict[str, Any]
    held_steps: int
    next_action: str
    obstacle: str


class Moment(NamedTuple):
    """What is known of the run now."""

    ledger: Ledger
    facts: Mapping[str, Any]
    steers: tuple[str, ...]
    tick: int = 0


def standings(policy: Policy, moment: Moment) -> list[Standing]:
    """Every rule, in the order in which they are asked."""
    return [_standing(policy, rule, moment) for rule in policy.rules]


def _standing(policy: Policy, rule: Rule, moment: Moment) -> Standing:
    record = moment.ledger.rules.get(rule.name, RuleRecord())
    lacking = expressions.lacking(rule.when, moment.facts)
    holds = "yes" if expressions.holds(rule.when, moment.facts) else "cannot be answered" if lacking else "no"
    if holds == "no" or (lacking and rule.no_data != "alarm"):
        obstacle = "it does not hold" if holds == "no" else f"the run does not have {', '.join(lacking)}"
    else:
        obstacle = next(_obstacles(policy, rule, moment), "")
    return Standing(
        rule=rule.name,
        holds=holds,
        known=_known(rule.when, moment.facts),
        held_steps=record.held,
        next_action=of_action(rule.actions[interventions.rung_of(record, rule, moment.ledger.judged)]),
        obstacle=obstacle,
    )


def _obstacles(policy: Policy, rule: Rule, moment: Moment) -> Iterator[str]:
    """What stands between a rule that holds and its next action, in the order in which `decide` looks."""
    record = moment.ledger.rules.get(rule.name, RuleRecord())
    action = rule.actions[interventions.rung_of(record, rule, moment.ledger.judged)]
    if record.held < rule.for_steps:
        yield f"it holds for {record.held} of {rule.for_steps} steps"
    if refusal := interventions.refusal(moment.ledger, policy, rule, action):
        yield REFUSALS.get(refusal, refusal)
    if action.action != "notify" and action.action not in moment.steers:
        yield f"this trainer cannot {action.action}; it steers: {', '.join(moment.steers) or 'nothing'}"
    if silence := silences.of_rule(moment.ledger.silences, rule, moment.ledger.judged + 1, moment.tick):
        yield silence.words
    if policy.mode == "observe":
        yield "mode observe: it is proposed and goes no further"
    if rule.advise is not None and policy.mode != "observe":
        yield f"{', then '.join(rule.advise.advisors)} {'is' if len(rule.advise.advisors) == 1 else 'are'} asked first"
    if policy.mode == "propose" or rule.approval.by == "human":
        yield "a person must agree first"


def _known(expression: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the run says to each thing that the expression names."""
    features, conditions = facts["features"], facts["conditions"]
    known: dict[str, Any] = {name: features.get(name) for name in expressions.mentioned(expression)}
    known |= {name: each.status for name, each in conditions.items() if name in expression}
    return known | {name: facts[name] for name in ("phase", "margin") if name in expression}
