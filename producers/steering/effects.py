"""What became of an intervention on this rank, and the receipt that says so.

Made by `steering.actuators` and `steering.rollback`, told by `steering.safe_point`.
"""

from dataclasses import dataclass, field

from ...events.decisions import InterventionIssued
from ...events.telemetry import InterventionReceipt, ReceiptOutcome
from ..teller import Teller

REASON_CHARS = 4_000


@dataclass(frozen=True, slots=True)
class Effect:
    """`before` and `after`: the values that it changed, where they are known. `told`: its receipt is out already."""

    outcome: ReceiptOutcome
    reason: str = ""
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    told: bool = False


def tell_receipt(run: Teller, command: InterventionIssued, effect: Effect, step: int) -> None:
    """Publish this rank's receipt; it belongs to the attempt that the run is in now."""
    run.tell(
        InterventionReceipt,
        intervention_id=command.intervention_id,
        outcome=effect.outcome,
        step=step,
        reason=effect.reason[:REASON_CHARS],
        before=effect.before,
        after=effect.after,
    )
