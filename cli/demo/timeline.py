"""What happened to a run and why: its phases and interventions in one order, each with the evidence for it. Pure.

`report` shows it, and the demo's JSON carries it.
"""

from collections.abc import Iterator, Mapping

from ...events.decisions import (
    CheckpointRejected,
    IncidentOpened,
    IncidentResolved,
    InterventionDeclined,
    InterventionExpired,
    InterventionIssued,
    InterventionProposed,
    InterventionVerified,
    PhaseChanged,
)
from ...events.event_words import action, number, numbers, short, text_of
from ...events.union import AnyDecision
from ..rendering import Row
from .account import Account

SHOWN_EVIDENCE = ("loss", "loss_z", "loss_baseline", "loss_drift", "grad_norm", "grad_z", "nonfinite", "lr")


def timeline(account: Account) -> list[Row]:
    """Rows of step, attempt, what and why. What the ranks applied stands where they did it."""
    happened = [*_decided(account), *_applied(account)]
    return [row for _, row in sorted(happened, key=lambda pair: pair[0])]


def _decided(account: Account) -> Iterator[tuple[int, Row]]:
    at = 0
    for decision in account.decisions:
        at = max(at, decision.at)  # the order of the log counts, also where event time goes back
        told = _told(decision)
        if told is not None:
            what, why = told
            yield at, {"step": decision.step, "attempt": decision.attempt, "what": what, "why": why}


def _applied(account: Account) -> Iterator[tuple[int, Row]]:
    issued_at = {
        known.intervention_id: known.at for known in account.decisions if isinstance(known, InterventionIssued)
    }
    for row in account.interventions:
        for step, ranks in row["ranks_by_step"].items():
            receipts = [known for known in row["receipts"] if known["step"] == step and known["outcome"] == "applied"]
            before, after = receipts[0]["before"], receipts[0]["after"]
            change = ", ".join(
                f"{name} {text_of(before.get(name))} → {text_of(value)}" for name, value in after.items()
            )
            what = f"applied by ranks {text_of(ranks)}"
            why = f"{row['action']} {short(row['intervention_id'])}: {change or receipts[0]['reason']}"
            # The ranks' clocks are not the governor's: nothing was applied before it was issued.
            at = max(issued_at.get(row["intervention_id"], 0), *(known["at"] for known in receipts))
            yield at, {"step": step, "attempt": receipts[0]["attempt"], "what": what, "why": why}


def _told(decision: AnyDecision) -> tuple[str, str] | None:
    """What a decision says and by which evidence; None for what the timeline leaves out."""
    match decision:
        case PhaseChanged():
            why = f"{decision.reason}, margin {number(decision.margin, 2)}: {_evidence(decision.evidence)}"
            return f"phase {decision.was} → {decision.phase}", why
        case IncidentOpened():
            why = f"{decision.reason} since step {decision.onset_step}: {_evidence(decision.evidence)}"
            return "incident opened", why
        case IncidentResolved():
            return "incident resolved", f"{decision.outcome}, {decision.steps_lost} steps lost"
        case _:
            return _of_intervention(decision)


def _of_intervention(decision: AnyDecision) -> tuple[str, str] | None:
    match decision:
        case InterventionProposed():
            what = action(decision.action.model_dump())
            return "proposed", f"{what}, for {decision.reason}: {_evidence(decision.evidence)}"
        case InterventionIssued():
            return "issued", f"{short(decision.intervention_id)}, good until step {decision.expires_step}"
        case InterventionDeclined():
            return "declined", f"{short(decision.intervention_id)}: {decision.why}"
        case InterventionExpired() | CheckpointRejected():
            return decision.kind.replace("_", " "), decision.reason
        case InterventionVerified():
            why = (
                f"{short(decision.intervention_id)} after {decision.window_steps} steps: {_evidence(decision.evidence)}"
            )
            return f"verified: {decision.outcome}", why
        case _:
            return None


def _evidence(evidence: Mapping[str, float]) -> str:
    return numbers({name: evidence[name] for name in SHOWN_EVIDENCE if name in evidence})
