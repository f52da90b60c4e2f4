"""What became of an intervention: the trainer's receipt, and whether it helped.

A receipt of rank 0 moves an intervention on (rank 0 leads the agreement; the receipts of the others are the proof
that all did the same). What was applied to heal is then watched for its window. Called by `stream_processors.fold`
and `judging`.
"""

import msgspec

from ..events.decisions import CheckpointRejected, InterventionExpired, InterventionVerified, VerificationOutcome
from ..events.telemetry import ReceiptOutcome
from . import expressions
from .decide import ACTION
from .desk import Desk
from .interventions import InFlight, Ledger
from .policy import Policy, Verify
from .recovery import Candidate, reject

UNUSABLE = ("CheckpointCorrupt", "CheckpointMissing")


class Receipt(msgspec.Struct, frozen=True, tag=True):
    """What rank 0 reported of an intervention, as far as a judgement needs it."""

    intervention_id: str
    outcome: ReceiptOutcome
    step: int
    reason: str


def receive(ledger: Ledger, receipt: Receipt, candidates: list[Candidate], desk: Desk) -> None:
    """Enter rank 0's receipt. A checkpoint that could not be used is never offered again, and the next may be tried
    at once.
    """
    known = ledger.find(receipt.intervention_id)
    if known is None or known.stage != "issued":
        return
    if receipt.outcome == "applied" and known.window_steps:
        known.stage, known.applied_step = "applied", receipt.step
        return
    ledger.close(known)
    if receipt.outcome != "applied" and receipt.reason.startswith(UNUSABLE):
        _reject_checkpoint(ledger, known, receipt, candidates, desk)


def _reject_checkpoint(
    ledger: Ledger, known: InFlight, receipt: Receipt, candidates: list[Candidate], desk: Desk
) -> None:
    action = ACTION.validate_json(known.action_json)
    ref = action.checkpoint if action.action == "rollback" else None
    if ref is not None and reject(candidates, ref.checkpoint_id) is not None:
        desk.decide(CheckpointRejected, ref.checkpoint_id, checkpoint=ref, reason=receipt.reason)
        ledger.rule(known.rule).last_step = -1


def watch(ledger: Ledger, policy: Policy, facts: dict[str, object], desk: Desk) -> None:
    """One more judged step for whatever is being verified."""
    for known in list(ledger.in_flight):
        if known.stage != "applied":
            continue
        known.observed += 1
        verify = _verify_of(policy, known.rule)
        if expressions.holds(verify.failure, facts):
            ledger.close(known)
            _conclude(known, "ineffective", verify.failure, facts, desk)
        elif known.observed >= known.window_steps:
            helped = expressions.holds(verify.success, facts)
            ledger.close(known)
            _conclude(known, "recovered" if helped else "ineffective", verify.success, facts, desk)


def abandon(ledger: Ledger, reason: str, desk: Desk) -> None:
    """The run ended or began anew: what was not answered never will be, what was applied cannot be judged any more."""
    for known in list(ledger.in_flight):
        ledger.close(known)
        if known.stage == "applied":
            _conclude(known, "inconclusive", reason, {}, desk)
        else:
            desk.decide(
                InterventionExpired, known.intervention_id, intervention_id=known.intervention_id, reason=reason
            )


def _verify_of(policy: Policy, rule: str) -> Verify:
    return next((known.verify for known in policy.rules if known.name == rule), Verify())


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
