"""Rules to interventions: which rule holds, what it may do, whether it may now, and who must agree.

Called by `stream_processors.judging` after conditions and phase are known. Everything it concludes goes to the desk;
everything it remembers is in the ledger. What touches a trainer is bounded here and bounded again in the trainer.
"""

from collections.abc import Iterable
from zlib import crc32

import msgspec
from pydantic import TypeAdapter

from ..events.actions import Action, Rollback
from ..events.commands import OperatorCommand
from ..events.decisions import (
    OPERATOR,
    InterventionApproved,
    InterventionDeclined,
    InterventionExpired,
    InterventionIssued,
    InterventionProposed,
)
from . import expressions, interventions
from .desk import Desk
from .incidents import Incident
from .interventions import InFlight, Ledger, RuleRecord
from .policy import Policy, Rule
from .recovery import Candidate, last_good

ACTION: TypeAdapter[Action] = TypeAdapter(Action)
EXPIRY_GRACE_STEPS = 20
"""A receipt travels; only when none came this many steps after the time to live does the governor call it expired."""
OPERATOR_TTL_STEPS = 1_000
NO_ROOM = "too much is in flight already: wait until the trainer has answered"


class Situation(msgspec.Struct, frozen=True):
    """What `decide` looks at: the variables of expressions, and what the run can do and has saved."""

    policy: Policy
    facts: dict[str, object]
    incident: Incident | None
    onset: int
    candidates: list[Candidate]
    steers: tuple[str, ...]
    tick: int

    @property
    def incident_id(self) -> str:
        return self.incident.incident_id if self.incident else ""


class Answer(msgspec.Struct, frozen=True):
    """What somebody, or a timeout for them, said to a proposal."""

    approve: bool
    who: str
    why: str


def decide(ledger: Ledger, situation: Situation, desk: Desk) -> None:
    """Ask every rule once, in the policy's order; the ledger lets at most one touch the trainer at a time."""
    for rule in situation.policy.rules:
        record = ledger.rule(rule.name)
        if not expressions.holds(rule.when, situation.facts) and not _counts_as_holding(rule, record, situation):
            continue
        record.held += 1
        if record.held >= rule.for_steps:
            _act(rule, ledger, situation, desk)


def any_holds(rules: Iterable[Rule], facts: dict[str, object]) -> bool:
    """Whether one of these rules holds, or is to be taken to hold, without anything coming of it."""
    return any(expressions.holds(rule.when, facts) or _alarms_without_data(rule, facts) for rule in rules)


def _alarms_without_data(rule: Rule, facts: dict[str, object]) -> bool:
    return rule.no_data == "alarm" and bool(expressions.lacking(rule.when, facts))


def _counts_as_holding(rule: Rule, record: RuleRecord, situation: Situation) -> bool:
    """What a step counts for at which the rule does not hold: the row is broken, unless it lacks what it needs and says
    otherwise.
    """
    if rule.no_data in (None, "ignore") or not expressions.lacking(rule.when, situation.facts):
        record.held = 0
        return False
    return rule.no_data == "alarm"


def _act(rule: Rule, ledger: Ledger, situation: Situation, desk: Desk) -> None:
    record = ledger.rule(rule.name)
    action = rule.actions[min(record.rung, len(rule.actions) - 1)]
    if interventions.refusal(ledger, situation.policy, rule, action) is not None:
        return
    action, obstacle = _completed(action, situation)
    observing = situation.policy.mode == "observe"
    if obstacle is not None or observing:
        # nothing will come of it, so nothing changes either: once per incident is enough
        words = crc32(f"{situation.incident_id}/{action.action}/{obstacle}".encode())
        if situation.incident is not None and words == record.said:
            return
        record.said, record.last_step = words, ledger.judged
    intervention_id = desk.new_id(f"intervention/{rule.name}", f"step {desk.step}")
    proposal = _propose(rule, action, intervention_id, situation, desk)
    if observing:
        return
    in_flight = _in_flight(rule, proposal, situation)
    if obstacle is None and not interventions.has_room(ledger, in_flight):
        obstacle = NO_ROOM
    if obstacle is not None:
        interventions.climb(record, rule)  # what cannot be done must not bar the rest of the ladder
        _decline(intervention_id, "governor", obstacle, desk)
        return
    interventions.count(ledger, rule, action)
    if proposal.needs_approval:
        ledger.in_flight.append(in_flight)
    else:
        issue(ledger, in_flight, "policy", desk, desk.step + rule.ttl_steps)


def _completed(action: Action, situation: Situation) -> tuple[Action, str | None]:
    """The action with what only the moment knows, or the reason why it is impossible now."""
    if action.action != "notify" and action.action not in situation.steers:
        return action, f"this trainer cannot {action.action}; it steers: {', '.join(situation.steers) or 'nothing'}"
    if not isinstance(action, Rollback) or action.checkpoint is not None:
        return action, None
    good = last_good(situation.candidates, before=situation.onset)
    if good is None:
        return action, f"no checkpoint was saved while the run was stable before step {situation.onset}"
    return action.model_copy(update={"checkpoint": good.ref()}), None


def _propose(
    rule: Rule, action: Action, intervention_id: str, situation: Situation, desk: Desk
) -> InterventionProposed:
    mode = situation.policy.mode
    features = situation.facts["features"]
    return desk.decide(
        InterventionProposed,
        intervention_id,
        intervention_id=intervention_id,
        incident_id=situation.incident_id,
        rule=rule.name,
        severity=rule.severity,
        mode=mode,
        action=action,
        reason=_reason(rule, situation),
        needs_approval=mode == "propose" or rule.approval.by == "human",
        evidence=features if isinstance(features, dict) else {},
    )


def _reason(rule: Rule, situation: Situation) -> str:
    lacking = expressions.lacking(rule.when, situation.facts) if rule.no_data == "alarm" else []
    return f"{rule.when} (no data: {', '.join(lacking)})" if lacking else rule.when


def _in_flight(rule: Rule, proposal: InterventionProposed, situation: Situation) -> InFlight:
    verified = interventions.is_verified(proposal.action)
    return InFlight(
        intervention_id=proposal.intervention_id,
        rule=rule.name,
        action_json=ACTION.dump_json(proposal.action).decode(),
        stage="proposed",
        since_tick=situation.tick,
        expires_step=rule.ttl_steps,
        window_steps=rule.verify.window_steps + _way_back(proposal.action, situation) if verified else 0,
        deadline_ticks=rule.approval.timeout_seconds,
        default=rule.approval.default,
        touches=interventions.touches_trainer(proposal.action),
    )


def _way_back(action: Action, situation: Situation) -> int:
    """The steps that a rollback repeats before it comes to where the incident began: until then, all is well anyway."""
    if not isinstance(action, Rollback) or action.checkpoint is None:
        return 0
    return max(0, situation.onset - action.checkpoint.step)


def issue(ledger: Ledger, intervention: InFlight, who: str, desk: Desk, expires_step: int) -> None:
    """Send the command. What leaves the trainer alone is done with being said."""
    action = ACTION.validate_json(intervention.action_json)
    desk.decide(
        InterventionIssued,
        intervention.intervention_id,
        intervention_id=intervention.intervention_id,
        rule=intervention.rule,
        action=action,
        expires_step=max(0, expires_step),
        who=who,
    )
    known = ledger.find(intervention.intervention_id)
    if known is not None:
        ledger.close(known)
    if action.action != "notify":
        intervention.stage, intervention.expires_step = "issued", expires_step
        ledger.in_flight.append(intervention)


def _decline(intervention_id: str, who: str, why: str, desk: Desk) -> None:
    desk.decide(InterventionDeclined, intervention_id, intervention_id=intervention_id, who=who, why=why)


def expire(ledger: Ledger, desk: Desk) -> None:
    """Give up on commands that no trainer answered in time."""
    for known in list(ledger.in_flight):
        if known.stage == "issued" and desk.step > known.expires_step + EXPIRY_GRACE_STEPS:
            ledger.close(known)
            desk.decide(
                InterventionExpired,
                known.intervention_id,
                intervention_id=known.intervention_id,
                reason=f"no receipt by step {desk.step}; it was to be applied by step {known.expires_step}",
            )


def time_out(ledger: Ledger, tick: int, desk: Desk) -> None:
    """Proposals that nobody answered take their default."""
    for known in list(ledger.in_flight):
        if known.stage == "proposed" and tick - known.since_tick >= known.deadline_ticks:
            why = f"nobody answered within {known.deadline_ticks} s"
            _answer(ledger, known, Answer(known.default == "approve", "timeout", why), desk)


def command(ledger: Ledger, order: OperatorCommand, situation: Situation, desk: Desk) -> None:
    """A person's order. It is bounded by the action's own limits and by what the trainer can do, and bypasses mode,
    cooldown and budget: it is the person's.
    """
    if order.verb in ("approve", "decline"):
        known = ledger.find(order.intervention_id)
        if known is not None and known.stage == "proposed":
            _answer(ledger, known, Answer(order.verb == "approve", order.who, order.why), desk)
        return
    asked = _ordered(order)
    if asked is None:
        return
    action, obstacle = _completed(asked, situation)
    intervention_id = desk.new_id("intervention/operator", order.event_id)
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
    text = ACTION.dump_json(action).decode()
    touches = interventions.touches_trainer(action)
    in_flight = InFlight(intervention_id, OPERATOR, text, "proposed", situation.tick, touches=touches)
    if obstacle is None and not interventions.has_room(ledger, in_flight):
        obstacle = NO_ROOM
    if obstacle is None:
        issue(ledger, in_flight, order.who, desk, desk.step + OPERATOR_TTL_STEPS)
    else:
        _decline(intervention_id, "governor", obstacle, desk)


def _ordered(order: OperatorCommand) -> Action | None:
    match order.verb:
        case "pause" | "resume" | "stop":
            return ACTION.validate_python({"action": order.verb})
        case "intervene":
            return order.action
        case "approve" | "decline" | "silence":
            return None


def _answer(ledger: Ledger, known: InFlight, answer: Answer, desk: Desk) -> None:
    intervention_id = known.intervention_id
    if not answer.approve:
        ledger.close(known)
        _decline(intervention_id, answer.who, answer.why, desk)
        return
    desk.decide(InterventionApproved, intervention_id, intervention_id=intervention_id, who=answer.who, why=answer.why)
    issue(ledger, known, answer.who, desk, desk.step + known.expires_step)
