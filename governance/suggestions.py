"""Suggestions: what an assistant proposes though nobody asked it. A person decides about each.

An assistant tells its suggestion as an answer (`AdviceGiven`) to no question, in a name that begins with `mcp:`. It is
held to what binds a person's own order, the policy's bounds and what the trainer can do, and then it waits for a
person, even where the policy lets its own rules act alone. No answer is a no. Called by `stream_processors.fold`.
"""

import msgspec

from ..events.actions import Revert
from ..events.commands import AdviceGiven
from ..events.decisions import OPERATOR, InterventionProposed
from . import advice, interventions, orders
from .decide import completed
from .desk import Desk
from .interventions import Ledger
from .issuing import NO_ROOM
from .situation import Situation

PREFIX = "mcp:"
"""Of the names of assistants; no policy can ask an advisor that is called so."""
ANSWER_SECONDS = 600


def is_one(given: AdviceGiven) -> bool:
    return given.advisor.startswith(PREFIX)


def take(ledger: Ledger, given: AdviceGiven, situation: Situation, desk: Desk) -> None:
    """Put a suggestion before people, or say why not."""
    if given.action is None:
        why = (given.error or given.why or "it suggests nothing")[: advice.WORDS]
        advice.judged(desk, given.request_id, given.advisor, "nothing", why)
        return
    action, obstacle = completed(given.action, situation)
    intervention_id = desk.new_id("intervention/suggestion", given.event_id)
    in_flight = msgspec.structs.replace(
        orders.in_flight_of(intervention_id, action, situation),
        deadline_ticks=ANSWER_SECONDS,
        expires_step=orders.OPERATOR_TTL_STEPS,
    )
    why_not = _not_now(ledger, given, situation) or obstacle
    if why_not is None and not interventions.has_room(ledger, in_flight):
        why_not = NO_ROOM
    if why_not is not None:
        advice.judged(desk, given.request_id, given.advisor, "refused", why_not)
        return
    words = f"{given.advisor} suggests: {given.why}"[: advice.WORDS]
    features = situation.facts["features"]
    desk.decide(
        InterventionProposed,
        intervention_id,
        intervention_id=intervention_id,
        incident_id=situation.incident_id,
        rule=OPERATOR,
        severity="ticket",
        mode=situation.policy.mode,
        action=action,
        reason=words,
        needs_approval=True,
        timeout_seconds=ANSWER_SECONDS,
        default="decline",
        evidence=features if isinstance(features, dict) else {},
    )
    advice.judged(desk, given.request_id, given.advisor, "proposed", words, intervention_id)
    ledger.in_flight.append(in_flight)


def _not_now(ledger: Ledger, given: AdviceGiven, situation: Situation) -> str | None:
    if situation.policy.mode == "observe":
        return f"policy {situation.policy.name} only observes: nothing is proposed to this run"
    if isinstance(given.action, Revert):
        return "only what did not help is reverted, by the governor: suggest the value that should be set"
    if any(known.rule == OPERATOR and known.stage == "proposed" for known in ledger.in_flight):
        return "another suggestion waits for a person's answer already"
    return None
