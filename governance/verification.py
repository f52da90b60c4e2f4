"""What became of an intervention: the trainer's receipt, whether it helped, and what is put back because it did not.

A receipt of rank 0 moves an intervention on (rank 0 leads the agreement; the receipts of the others are the proof
that all did the same). What was applied to heal is then measured over its window (`policy.Verify`), as an analysis of
Argo Rollouts is: measurements at an interval, of which so many may fail and so many may lack data. The window ends
where anything else changes how training goes on: what comes after is no longer its effect. Called by
`stream_processors.fold` and `judging`.
"""

from typing import Literal

import msgspec

from ..events.actions import ACTION, LR_MULTIPLIER, Action, Revert, Rollback
from ..events.decisions import OPERATOR, InterventionProposed, InterventionVerified, VerificationOutcome
from ..events.envelope import derived_attempt_id
from ..events.telemetry import ReceiptOutcome
from . import expressions, interventions
from .desk import Desk
from .interventions import InFlight, Ledger, known_values
from .issuing import NO_ROOM, Command, expired, issue, overdue
from .policy import Policy, Rule, Verify
from .recovery import Candidate, pass_over
from .situation import Situation

UNUSABLE = ("CheckpointCorrupt", "CheckpointMissing")
BY_HAND = Verify()
"""How people's own interventions are judged."""
Measured = Literal["well", "failed", "unanswered", ""]


class Receipt(msgspec.Struct, frozen=True, tag=True):
    """What rank 0 reported of an intervention, as far as a judgement needs it: the values before and after are those
    of `events.actions.QUANTITIES`.
    """

    intervention_id: str
    outcome: ReceiptOutcome
    step: int
    reason: str
    before: dict[str, float] = {}
    after: dict[str, float] = {}


# ----------------------------------------------------------------------------------------------------------- receipts


def receive(ledger: Ledger, receipt: Receipt, candidates: list[Candidate], desk: Desk) -> None:
    """Enter rank 0's receipt. A checkpoint that could not be used is never offered again, and the next may be tried
    at once.
    """
    known = ledger.find(receipt.intervention_id)
    if known is None or known.stage != "issued":
        return
    action = ACTION.validate_json(known.action_json)
    if receipt.outcome == "applied":
        _applied(ledger, known, action, receipt, desk)
        return
    ledger.close(known)
    _not_put_back(ledger, known, f"{receipt.outcome}: {receipt.reason}", desk)
    ref = action.checkpoint if isinstance(action, Rollback) and receipt.reason.startswith(UNUSABLE) else None
    if ref is not None and pass_over(candidates, ref.checkpoint_id, receipt.reason, desk):
        interventions.take_back(ledger, known)


def _applied(ledger: Ledger, known: InFlight, action: Action, receipt: Receipt, desk: Desk) -> None:
    ledger.learn(receipt.after)
    if isinstance(action, Rollback) and action.lr_ramp_steps:
        ledger.values.pop(LR_MULTIPLIER, None)  # it moves, until the trainer says that the ramp is at its end
    if action.alters:
        what = f"intervention {known.intervention_id[:8]} ({known.rule}: {action.action})"
        cut_short(ledger, f"{what} was applied at step {receipt.step}", desk)
    if known.window_steps:
        known.stage, known.applied_step = "applied", receipt.step
        known.before, known.after = known_values(receipt.before), known_values(receipt.after)
        return
    ledger.close(known)
    undone = ledger.find(known.undoes)
    if undone is not None:
        ledger.close(undone)
        back = ", ".join(f"{name} is {value:g} again" for name, value in undone.before.items())
        _conclude(undone, "reverted", f"{undone.verdict}; {back}", {}, desk)


def cut_short(ledger: Ledger, why: str, desk: Desk, but: str = "") -> None:
    """Something else changes how training goes on: what is being measured would be credited to the wrong cause."""
    for known in list(ledger.in_flight):
        if known.stage == "applied" and known.intervention_id != but:
            ledger.close(known)
            _conclude(known, "inconclusive", why, {}, desk)


def went_back(ledger: Ledger, parent: str, attempt_id: str, desk: Desk) -> None:
    """The run went back, in another attempt: by one of these rollbacks, or by the script's own."""
    mine = (
        known.intervention_id
        for known in ledger.in_flight
        if known.is_rollback and derived_attempt_id(parent, known.intervention_id) == attempt_id
    )
    cut_short(ledger, "the run went back to an earlier step", desk, but=next(mine, ""))


def expire(ledger: Ledger, desk: Desk) -> None:
    """Give up on commands that no trainer answered in time."""
    for known in overdue(ledger, desk):
        interventions.untried(ledger, known)
        _not_put_back(ledger, known, "no receipt came in time", desk)


def abandon(ledger: Ledger, reason: str, desk: Desk) -> None:
    """The run ended or began anew: what was not answered never will be, what was applied cannot be judged any more."""
    for known in list(ledger.in_flight):
        ledger.close(known)
        if known.stage == "applied":
            _conclude(known, "inconclusive", reason, {}, desk)
        elif known.stage == "reverting":
            _conclude(known, "ineffective", f"{known.verdict}; not put back: {reason}", {}, desk)
        else:
            if known.stage == "proposed":
                ledger.answered(known.intervention_id, f"void: {reason}")
            expired(known, reason, desk)


# ---------------------------------------------------------------------------------------------------- measuring effects


def watch(ledger: Ledger, situation: Situation, desk: Desk) -> None:
    """One more judged step for whatever is being verified."""
    for known in list(ledger.in_flight):
        if known.stage != "applied":
            continue
        known.observed += 1
        verify = _verify_of(situation.policy, known.rule)
        if verify is None:
            ledger.close(known)
            why = f"policy {situation.policy.name} governs now, and has no rule {known.rule}"
            _conclude(known, "inconclusive", why, situation.facts, desk)
        elif known.observed > verify.initial_delay_steps:
            _measure(ledger, known, verify, situation, desk)


def _measure(ledger: Ledger, known: InFlight, verify: Verify, situation: Situation, desk: Desk) -> None:
    facts = situation.facts
    failing = expressions.holds(verify.failure, facts)
    measured = "failed" if failing else _asked(known, verify, facts)
    known.failed += measured == "failed"
    known.well += measured == "well"
    known.unanswered += measured == "unanswered"
    if known.failed > verify.failure_limit:
        _failed(ledger, known, _counted(verify.failure if failing else verify.success, known, verify), situation, desk)
    elif known.unanswered > verify.inconclusive_limit or (known.observed >= known.window_steps and not known.well):
        ledger.close(known)
        lacks = ", ".join(expressions.undecided(verify.success, facts)) or "nothing could be measured"
        _conclude(known, "inconclusive", f"{verify.success} (no data: {lacks})", facts, desk)
    elif known.observed >= known.window_steps:
        ledger.close(known)
        _conclude(known, "recovered", _counted(verify.success, known, verify), facts, desk)


def _asked(known: InFlight, verify: Verify, facts: dict[str, object]) -> Measured:
    """What `success` says at this step, where it is asked: every interval, counted back from the window's end."""
    left = known.window_steps - known.observed
    if left >= verify.window_steps or left % verify.interval:
        return ""
    if expressions.holds(verify.success, facts):
        return "well"
    return "unanswered" if expressions.undecided(verify.success, facts) else "failed"


def _counted(expression: str, known: InFlight, verify: Verify) -> str:
    """Where more than one measurement decides, how many failed."""
    if verify.interval_steps is None and not verify.failure_limit:
        return expression
    return f"{expression} ({known.failed} failed, {known.well} well; {verify.failure_limit} may fail)"


def _verify_of(policy: Policy, rule: str) -> Verify | None:
    if rule == OPERATOR:
        return BY_HAND
    known = _rule_of(policy, rule)
    return None if known is None else known.verify


def _rule_of(policy: Policy, name: str) -> Rule | None:
    return next((known for known in policy.rules if known.name == name), None)


# --------------------------------------------------------------------------------------------------------- putting back


def _failed(ledger: Ledger, known: InFlight, reason: str, situation: Situation, desk: Desk) -> None:
    """It did not help: put back what it changed, where its rule says so."""
    rule = _rule_of(situation.policy, known.rule)
    if rule is None or rule.verify.on_failure == "keep":
        ledger.close(known)
        _conclude(known, "ineffective", reason, situation.facts, desk)
        return
    undoing = _undoing(known)
    obstacle = _obstacle(ledger, known, undoing, situation)
    if undoing is None or obstacle is not None:
        ledger.close(known)
        _conclude(known, "ineffective", f"{reason}; not put back: {obstacle}", situation.facts, desk)
        return
    known.stage, known.verdict = "reverting", reason
    _put_back(ledger, known, undoing, rule, situation, desk)


def _undoing(known: InFlight) -> Revert | None:
    """The action that puts back exactly what an intervention found; None where that is not known."""
    found = {name: value for name, value in known.before.items() if name in known.after}
    if not ACTION.validate_json(known.action_json).undoable or not found:
        return None
    return Revert(intervention_id=known.intervention_id, values=found, left=known.after)


def _obstacle(ledger: Ledger, known: InFlight, undoing: Revert | None, situation: Situation) -> str | None:
    action = ACTION.validate_json(known.action_json)
    if not action.undoable:
        return f"a {action.action} cannot be"
    if undoing is None:
        return "the receipt does not say what it was before"
    if situation.policy.mode == "observe":
        return f"policy {situation.policy.name} only observes"
    if undoing.action not in situation.steers:
        return "this trainer cannot revert"
    return None if interventions.has_room(ledger, _in_flight("0" * 36, known, undoing, situation)) else NO_ROOM


def _put_back(  # noqa: PLR0913, PLR0917  # what it answers to, what it does, in whose name
    ledger: Ledger, known: InFlight, undoing: Revert, rule: Rule, situation: Situation, desk: Desk
) -> None:
    """A command as any other, with its receipt; it asks nobody and costs no budget, for it was part of what was agreed
    to.
    """
    intervention_id = desk.new_id(f"intervention/{known.rule}", f"revert {known.intervention_id}")
    features = situation.facts["features"]
    desk.decide(
        InterventionProposed,
        intervention_id,
        intervention_id=intervention_id,
        incident_id=situation.incident_id,
        rule=known.rule,
        severity=rule.severity,
        mode=situation.policy.mode,
        action=undoing,
        reason=f"intervention {known.intervention_id[:8]} did not help: {known.verdict}",
        evidence=features if isinstance(features, dict) else {},
    )
    in_flight = _in_flight(intervention_id, known, undoing, situation)
    issue(ledger, in_flight, Command("policy", desk.step + rule.ttl_steps, situation.policy), desk)


def _in_flight(intervention_id: str, known: InFlight, undoing: Revert, situation: Situation) -> InFlight:
    text = ACTION.dump_json(undoing).decode()
    undoes = known.intervention_id
    return InFlight(intervention_id, known.rule, text, "proposed", situation.tick, touches=True, undoes=undoes)


def _not_put_back(ledger: Ledger, revert: InFlight, why: str, desk: Desk) -> None:
    """The trainer did not revert: what did not help stays, and is said to."""
    known = ledger.find(revert.undoes)
    if known is not None:
        ledger.close(known)
        _conclude(known, "ineffective", f"{known.verdict}; not put back: {why}", {}, desk)


def _conclude(known: InFlight, outcome: VerificationOutcome, reason: str, facts: dict[str, object], desk: Desk) -> None:
    features = facts.get("features", {})
    desk.decide(
        InterventionVerified,
        known.intervention_id,
        intervention_id=known.intervention_id,
        outcome=outcome,
        reason=reason,
        window_steps=known.observed,
        evidence=features if isinstance(features, dict) else {},
    )
