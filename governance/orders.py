"""What people order, and what becomes of it: approve, decline, silence, pause, resume, stop, intervene.

Every order is answered by an event (`OrderAnswered`), one that comes too late or makes no sense as well. Of two who
say something about the same proposal the first in the log counts, and the second is told who it was. Called by
`stream_processors.fold` for each `OperatorCommand`.
"""

from typing import NamedTuple, assert_never

from ..events.actions import ACTION, Action, Pause, Resume, Revert, Stop
from ..events.commands import OperatorCommand
from ..events.decisions import OPERATOR, InterventionProposed, OrderAnswered
from . import interventions, silences
from .decide import GOVERNOR, completed, window_of
from .desk import Desk
from .interventions import InFlight, Ledger
from .issuing import NO_ROOM, Answer, Command, answer, decline, issue
from .policy import Verify
from .silences import Silence
from .situation import Situation

OPERATOR_TTL_STEPS = 1_000
CURRENT: dict[interventions.Stage, str] = {
    "proposed": "it waits for an answer",
    "issued": "it is on its way to the trainer",
    "applied": "it was applied, and is being verified",
    "reverting": "it was applied, did not help, and is being put back",
}


class Outcome(NamedTuple):
    """What an order came to."""

    accepted: bool
    reason: str
    intervention_id: str = ""


def take(ledger: Ledger, order: OperatorCommand, situation: Situation, desk: Desk) -> None:
    """Carry out an order as far as it can be, and say so."""
    outcome = _outcome(ledger, order, situation, desk)
    desk.decide(
        OrderAnswered,
        order.event_id,
        order_id=order.event_id,
        verb=order.verb,
        who=order.who,
        accepted=outcome.accepted,
        reason=outcome.reason,
        intervention_id=outcome.intervention_id,
    )


def _outcome(ledger: Ledger, order: OperatorCommand, situation: Situation, desk: Desk) -> Outcome:
    match order.verb:
        case "approve" | "decline":
            return _answered(ledger, order, situation, desk)
        case "silence":
            return _silenced(ledger, order, situation)
        case "pause" | "resume" | "stop" | "intervene":
            return _intervened(ledger, order, situation, desk)
        case _ as unreachable:
            assert_never(unreachable)


# ----------------------------------------------------------------------------------------- answers to what was proposed


def _answered(ledger: Ledger, order: OperatorCommand, situation: Situation, desk: Desk) -> Outcome:
    known = ledger.find(order.intervention_id)
    if known is None or known.stage != "proposed":
        return Outcome(False, _too_late(ledger, known, order.intervention_id), order.intervention_id)
    approves = order.verb == "approve"
    _, obstacle = completed(ACTION.validate_json(known.action_json), situation) if approves else (None, None)
    if obstacle is not None:
        answer(ledger, known, Answer(False, GOVERNOR, obstacle), situation.policy, desk)
        return Outcome(False, f"it is not possible any more: {obstacle}", known.intervention_id)
    answer(ledger, known, Answer(approves, order.who, order.why), situation.policy, desk)
    return Outcome(True, f"{order.verb}d", known.intervention_id)


def _too_late(ledger: Ledger, known: InFlight | None, intervention_id: str) -> str:
    """Who was first, or what it waits for instead; as far back as is remembered."""
    if (first := ledger.answers.get(intervention_id)) is not None:
        return f"it was {first}"
    if known is not None:
        return f"nobody was asked: {CURRENT[known.stage]}"
    return "nothing of this id waits for an answer in this run"


# ----------------------------------------------------------------------------------------------------------- silences


def _silenced(ledger: Ledger, order: OperatorCommand, situation: Situation) -> Outcome:
    if (wrong := _not_a_silence(order, situation)) is not None:
        return Outcome(False, wrong)
    silence = _silence_of(ledger, order, situation)
    alike = silences.without(
        ledger.silences, lambda known: (known.rule, known.condition) != (silence.rule, silence.condition)
    )
    if not order.steps and not order.seconds:
        was_silent = any(known.in_force(ledger.judged + 1, situation.tick) for known in alike)
        ledger.silences = [known for known in ledger.silences if known not in alike]
        said = f"{silence.about} speaks again" if was_silent else f"there is no silence about {silence.about} to end"
        return Outcome(was_silent, said)
    kept = [
        known for known in ledger.silences if known not in alike and known.in_force(ledger.judged + 1, situation.tick)
    ]
    if len(kept) >= silences.MOST:
        return Outcome(False, f"{silences.MOST} silences are in force already: end one of them first")
    ledger.silences = [*kept, silence]
    until = f"{order.steps} judged steps" if order.steps else f"{order.seconds} s"
    return Outcome(True, f"{silence.about} keeps still for {until}")


def _silence_of(ledger: Ledger, order: OperatorCommand, situation: Situation) -> Silence:
    return Silence(
        who=order.who[: silences.WORDS],
        why=order.why[: silences.WORDS],
        rule=order.rule,
        condition=order.condition or "",
        until_judged=ledger.judged + order.steps if order.steps else -1,
        until_tick=situation.tick + order.seconds if order.seconds else -1,
    )


def _not_a_silence(order: OperatorCommand, situation: Situation) -> str | None:
    rules = situation.policy.rules
    if order.steps is None and order.seconds is None:
        return "a silence needs an end: for how many steps, or how many seconds"
    if order.steps and order.seconds:
        return "a silence ends after steps or after seconds, not both"
    if order.rule and order.condition:
        return "a silence is about a rule or about a condition, not both"
    if order.rule and all(rule.name != order.rule for rule in rules):
        there_are = ", ".join(rule.name for rule in rules) or "none"
        return f"policy {situation.policy.name} has no rule {order.rule}; there are: {there_are}"
    if order.condition and not any(silences.names_condition(rule, order.condition) for rule in rules):
        return f"no rule of policy {situation.policy.name} looks at {order.condition}"
    return f"the run has ended ({situation.outcome})" if situation.outcome else None


# ------------------------------------------------------------------------------------------------- people's own actions


def _intervened(ledger: Ledger, order: OperatorCommand, situation: Situation, desk: Desk) -> Outcome:
    """It is bounded as any action, by its own limits, the policy's bounds and what the trainer can do; mode, cooldown,
    budget and silences do not bind a person.
    """
    action, obstacle = completed(_action_of(order), situation)
    intervention_id = desk.new_id("intervention/operator", order.event_id)
    if isinstance(action, Revert):
        obstacle = "only what did not help is reverted, by the governor: set the value that you want"
    desk.decide(
        InterventionProposed,
        intervention_id,
        intervention_id=intervention_id,
        incident_id=situation.incident_id,
        rule=OPERATOR,
        severity="info",
        mode="enforce",
        action=action,
        reason=order.why or f"ordered by {order.who}",
    )
    in_flight = in_flight_of(intervention_id, action, situation)
    obstacle = obstacle or _same_under_way(ledger, in_flight)
    if obstacle is None and not interventions.has_room(ledger, in_flight):
        obstacle = NO_ROOM
    if obstacle is not None:
        decline(intervention_id, GOVERNOR, obstacle, desk)
        return Outcome(False, obstacle, intervention_id)
    issue(ledger, in_flight, Command(order.who, desk.step + OPERATOR_TTL_STEPS, situation.policy), desk)
    return Outcome(True, "issued", intervention_id)


def in_flight_of(intervention_id: str, action: Action, situation: Situation) -> InFlight:
    """What a person orders or agrees to, as it is kept until it has ended."""
    return InFlight(
        intervention_id,
        OPERATOR,
        ACTION.dump_json(action).decode(),
        "proposed",
        situation.tick,
        window_steps=window_of(Verify(), action, situation),
        touches=action.touches,
    )


def _action_of(order: OperatorCommand) -> Action:
    """The action that it brings; `pause`, `resume` and `stop` need bring none."""
    if order.action is not None and order.verb in ("intervene", order.action.action):
        return order.action
    return ACTION.validate_python({"action": order.verb})


def _same_under_way(ledger: Ledger, in_flight: InFlight) -> str | None:
    """Of what cannot be done twice, the one that is on its way."""
    if not isinstance(ACTION.validate_json(in_flight.action_json), Pause | Resume | Stop):
        return None
    for known in ledger.in_flight:
        if known.stage == "issued" and known.action_json == in_flight.action_json:
            return f"the same is on its way already, ordered by {known.who}"
    return None
