"""Rules to interventions: which rule holds, what it may do, whether it may now, and who must agree.

Called by `stream_processors.judging` after conditions and phase are known. Everything it concludes goes to the desk;
everything it remembers is in the ledger. What touches a trainer is bounded here and bounded again in the trainer.
"""

from collections.abc import Iterable
from typing import NamedTuple
from zlib import crc32

from ..events.actions import ACTION, Action, EvictRank, Rollback
from ..events.bounds import beyond
from ..events.commands import AdviceGiven
from ..events.decisions import VAL_BEST_STEP, InterventionProposed
from . import advice, expressions, interventions, silences
from .desk import Desk
from .interventions import InFlight, Ledger, RuleRecord
from .issuing import NO_ROOM, Command, decline, issue
from .policy import Rule, Verify
from .recovery import good_before, last_good
from .situation import Situation

GOVERNOR = "governor"


class Move(NamedTuple):
    """What a rule is about to do, and why. `obstacle` makes it impossible; `silenced_by` has asked for quiet."""

    intervention_id: str
    rule: Rule
    action: Action
    reason: str
    obstacle: str | None = None
    silenced_by: str = ""


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
        if situation.incident is None:
            record.said = 0
        return False
    return rule.no_data == "alarm"


def _act(rule: Rule, ledger: Ledger, situation: Situation, desk: Desk) -> None:
    record = ledger.rule(rule.name)
    if record.held == rule.for_steps:
        ledger.advice.renew(rule.name)
    action = interventions.next_action(ledger, rule)
    if interventions.refusal(ledger, situation.policy, rule, action) is not None:
        return
    silence = silences.of_rule(ledger.silences, rule, ledger.judged, situation.tick)
    if silence is None and advice.awaited(ledger, rule, situation, desk):
        return
    action, obstacle = completed(action, situation)
    if silence is not None:
        obstacle = silence.words
    observing = situation.policy.mode == "observe"
    if obstacle is not None or observing:
        # nothing will come of it, so nothing changes either: once is enough, in an incident and outside
        words = crc32(f"{situation.incident_id}/{action.action}/{obstacle}".encode())
        if words == record.said and (situation.incident is not None or not observing):
            return
        record.said, record.last_step = words, ledger.judged
    intervention_id = desk.new_id(f"intervention/{rule.name}", f"step {desk.step}")
    move = Move(intervention_id, rule, action, _reason(rule, situation), obstacle, silence.who if silence else "")
    _undertake(move, ledger, situation, desk)


def advised(ledger: Ledger, given: AdviceGiven, situation: Situation, desk: Desk) -> None:
    """An advisor's answer. What it proposes takes the place of its rule's next action, through the same limits."""
    usable = advice.taken(ledger, given, situation, desk)
    if usable is None:
        return
    rule, question = usable.rule, usable.question
    action, obstacle = completed(usable.action, situation)
    silence = silences.of_rule(ledger.silences, rule, ledger.judged, situation.tick)
    still = None if silence is None else silence.words
    why_not = still or interventions.refusal(ledger, situation.policy, rule, action) or obstacle
    if why_not is not None:
        advice.judged(desk, question.request_id, question.advisor, "refused", why_not)
        ledger.advice.exhaust(rule.name)
        return
    intervention_id = desk.new_id(f"intervention/{rule.name}", given.event_id)
    advice.judged(desk, question.request_id, question.advisor, "proposed", usable.words, intervention_id)
    reason = f"{_reason(rule, situation)}; {question.advisor} advises: {usable.words}"
    _undertake(Move(intervention_id, rule, action, reason), ledger, situation, desk)


def _undertake(move: Move, ledger: Ledger, situation: Situation, desk: Desk) -> None:
    rule, action, obstacle = move.rule, move.action, move.obstacle
    proposal = _propose(move, situation, desk)
    if situation.policy.mode == "observe":
        return
    in_flight = _in_flight(rule, proposal, situation)
    if obstacle is None and not interventions.has_room(ledger, in_flight):
        obstacle = NO_ROOM
    if obstacle is not None:
        if not move.silenced_by:
            interventions.climb(ledger.rule(rule.name), rule)  # what cannot be done must not bar the rest of the ladder
        decline(proposal.intervention_id, move.silenced_by or GOVERNOR, obstacle, desk)
        return
    in_flight.rung = ledger.rule(rule.name).rung
    interventions.count(ledger, rule, action)
    in_flight.costs = action.touches
    ledger.advice.renew(rule.name)
    if proposal.needs_approval:
        ledger.in_flight.append(in_flight)
    else:
        issue(ledger, in_flight, Command("policy", desk.step + rule.ttl_steps, situation.policy), desk)


def completed(action: Action, situation: Situation) -> tuple[Action, str | None]:
    """The action with what only the moment knows, or the reason why it is impossible now."""
    if situation.outcome:
        return action, f"the run has ended ({situation.outcome})"
    if action.action != "notify" and action.action not in situation.steers:
        cannot = f"this trainer cannot {action.action}; it steers: {', '.join(situation.steers) or 'nothing'}"
        return action, cannot + _by_hand(action, situation)
    if isinstance(action, Rollback):
        action, obstacle = _with_checkpoint(action, situation)
        if obstacle is not None:
            return action, obstacle
    if isinstance(action, EvictRank) and action.rank is None:
        return _with_rank(action, situation)
    return action, _out_of_bounds(action, situation)


def _with_rank(action: EvictRank, situation: Situation) -> tuple[EvictRank, str | None]:
    features = situation.facts["features"]
    named = features.get(action.named_by) if isinstance(features, dict) else None
    if named is None or not named >= 0:
        return action, f"nobody is named: {action.named_by} is {'not known' if named is None else f'{named:g}'}"
    return action.model_copy(update={"rank": int(named)}), None


def _by_hand(action: Action, situation: Situation) -> str:
    """What a person can do who wants to go back all the same."""
    good = last_good(situation.candidates, before=situation.onset) if isinstance(action, Rollback) else None
    return f". The last good checkpoint is {good.path}, of step {good.step}: start again from it" if good else ""


def _with_checkpoint(action: Rollback, situation: Situation) -> tuple[Rollback, str | None]:
    named = action.checkpoint
    if named is not None:
        known = next((each for each in situation.candidates if each.checkpoint_id == named.checkpoint_id), None)
        unusable = known is not None and known.rejected
        return action, f"checkpoint {named.checkpoint_id} turned out unusable" if unusable else None
    before = _undone_from(action, situation)
    if before is None:
        return action, "no validation loss is known to be the lowest yet: that takes nine evaluations"
    good = good_before(situation.candidates, before, action.back_steps)
    if good is None:
        return action, f"no checkpoint was saved while the run was stable before step {before}"
    return action.model_copy(update={"checkpoint": good.ref()}), None


def _undone_from(action: Rollback, situation: Situation) -> int | None:
    """The first step that a rollback is to undo; None where that is not known."""
    if action.to == "last_good":
        return situation.onset
    features = situation.facts["features"]
    best = features.get(VAL_BEST_STEP) if isinstance(features, dict) else None
    return None if best is None else int(best) + 1


def _out_of_bounds(action: Action, situation: Situation) -> str | None:
    """By the values that are known; the trainer looks again, at those of the moment."""
    values, leaves = situation.values, action.leaves(situation.values)
    if action.undoable and leaves and all(values.get(name) == value for name, value in leaves.items()):
        now = ", ".join(f"{name} is {value:g}" for name, value in leaves.items())
        return f"it would change nothing: {now} already"
    why = beyond(situation.policy.bounds, values, leaves)
    return None if why is None else f"beyond the bounds of policy {situation.policy.name}: {why}"


def _propose(move: Move, situation: Situation, desk: Desk) -> InterventionProposed:
    rule, mode = move.rule, situation.policy.mode
    features = situation.facts["features"]
    return desk.decide(
        InterventionProposed,
        move.intervention_id,
        intervention_id=move.intervention_id,
        incident_id=situation.incident_id,
        rule=rule.name,
        severity=rule.severity,
        mode=mode,
        action=move.action,
        reason=move.reason,
        needs_approval=(asks := mode == "propose" or rule.approval.by == "human"),
        timeout_seconds=rule.approval.timeout_seconds if asks else 0,
        default=rule.approval.default,
        evidence=features if isinstance(features, dict) else {},
    )


def _reason(rule: Rule, situation: Situation) -> str:
    lacking = expressions.lacking(rule.when, situation.facts) if rule.no_data == "alarm" else []
    return f"{rule.when} (no data: {', '.join(lacking)})" if lacking else rule.when


def _in_flight(rule: Rule, proposal: InterventionProposed, situation: Situation) -> InFlight:
    return InFlight(
        intervention_id=proposal.intervention_id,
        rule=rule.name,
        action_json=ACTION.dump_json(proposal.action).decode(),
        stage="proposed",
        since_tick=situation.tick,
        expires_step=rule.ttl_steps,
        window_steps=window_of(rule.verify, proposal.action, situation),
        deadline_ticks=rule.approval.timeout_seconds,
        default=rule.approval.default,
        touches=proposal.action.touches,
    )


def window_of(verify: Verify, action: Action, situation: Situation) -> int:
    """The steps over which an action's effect is judged; 0 for one that is not meant to heal. A rollback first repeats
    the steps up to where the incident began: until then, all is well anyway.
    """
    if not interventions.is_verified(action):
        return 0
    back = 0
    if isinstance(action, Rollback) and action.checkpoint is not None:
        back = max(0, (_undone_from(action, situation) or 0) - action.checkpoint.step)
    return verify.initial_delay_steps + back + verify.window_steps
