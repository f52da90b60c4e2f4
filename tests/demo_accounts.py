"""What the archive tells of the demo's runs, as values: a loop that closed, and every way in which one can stay open.

Tests of the demo's verdict, of its exit status and of the quiet benchmark judge these.
"""

import json
import math
from dataclasses import replace
from typing import Any

from pilothouse.cli.demo.account import Account
from pilothouse.cli.demo.plan import FEWEST_STEPS, Name, Setting

STEPS, RANKS = FEWEST_STEPS, 2
SETTING = Setting("test", STEPS, RANKS, 0)


def account(name: str, loss: float, **changes: Any) -> Account:
    run = {"run_id": name, "outcome": "completed", "phase": "Ended", "attempts": 1, "incident_list": []}
    whole = Account(
        run=run,
        phases=[{}, {}, {}],
        interventions=[],
        validation_losses=[(50, 3.0), (STEPS - 1, loss)],
        steps_by_rank=dict.fromkeys(range(RANKS), STEPS),
        decisions=[],
        replayed=True,
    )
    return replace(whole, **changes)


def with_run(told: Account, **changes: Any) -> Account:
    return replace(told, run=told.run | changes)


def incident(number: int, outcome: str = "recovered") -> dict[str, Any]:
    return {
        "incident_id": f"incident-{number}", "reason": "Bad", "onset_step": 40, "outcome": outcome, "steps_lost": 10
    }  # fmt: skip


def intervention(number: int, **changes: Any) -> dict[str, Any]:
    applied = {
        "intervention_id": f"{number}-intervention",
        "incident_id": f"incident-{number}",
        "action": "rollback",
        "action_body": json.dumps({"action": "rollback", "skip_batches": 4}),
        "world_size": RANKS,
        "issued_step": 42,
        "applied_steps": [50],
        "ranks_by_step": {50: [0, 1]},
        "receipts": [receipt(50, rank) for rank in range(RANKS)],
        "verification": "recovered",
    }
    return applied | changes


def receipt(step: int, rank: int) -> dict[str, Any]:
    return {
        "step": step, "rank": rank, "outcome": "applied", "at": step, "attempt": 1, "before": {"step": step},
        "after": {"step": 40}, "reason": "",
    }  # fmt: skip


def torn() -> dict[str, Any]:
    """Applied by each rank at a step of its own."""
    return intervention(2, ranks_by_step={50: [0], 51: [1]}, receipts=[receipt(50, 0), receipt(51, 1)])


def proposal() -> dict[str, Any]:
    return intervention(1, issued_step=None, applied_steps=[], ranks_by_step={}, receipts=[], verification="")


HEALTHY = account("fault-free", 2.0)
BROKEN = account("ungoverned", math.nan, interventions=[proposal()])
GOVERNED = with_run(
    account("governed", 2.05, interventions=[intervention(1), intervention(2)]),
    incident_list=[incident(1), incident(2)],
)
CLOSED: dict[Name, Account] = {"fault-free": HEALTHY, "ungoverned": BROKEN, "governed": GOVERNED}
QUIET = account("quiet", 2.0)

OPEN: dict[str, tuple[Name, Account, str]] = {
    "a rank's telemetry is missing": ("governed", replace(GOVERNED, steps_by_rank={0: STEPS}), "every step"),
    "a step is missing": ("fault-free", replace(HEALTHY, steps_by_rank={0: STEPS, 1: STEPS - 1}), "every step"),
    "the run crashed": ("fault-free", with_run(HEALTHY, outcome="crashed"), "judged to its end"),
    "nobody judged": ("fault-free", replace(HEALTHY, phases=[]), "judged to its end"),
    "replay differs": ("governed", replace(GOVERNED, replayed=False), "replaying"),
    "a healthy run was touched": ("fault-free", replace(HEALTHY, interventions=[intervention(1)]), "no intervention"),
    "a healthy run had an incident": ("fault-free", with_run(HEALTHY, incident_list=[incident(1)]), "no intervention"),
    "a healthy run ends in NaN": (
        "fault-free",
        replace(HEALTHY, validation_losses=[(STEPS - 1, math.nan)]),
        "ends finite",
    ),
    "nothing was proposed": ("ungoverned", replace(BROKEN, interventions=[]), "not touched"),
    "the observed run was touched": ("ungoverned", replace(BROKEN, interventions=[intervention(1)]), "not touched"),
    "the faults did no harm": ("ungoverned", replace(BROKEN, validation_losses=[(STEPS - 1, 2.01)]), "ruin"),
    "nothing was applied": ("governed", replace(GOVERNED, interventions=[proposal()]), "were applied"),
    "an incident went unanswered": ("governed", replace(GOVERNED, interventions=[intervention(1)]), "was answered"),
    "an incident was only told to people": (
        "governed",
        replace(GOVERNED, interventions=[intervention(1), intervention(2, action="notify")]),
        "was answered",
    ),
    "a fault went unseen": ("governed", with_run(GOVERNED, incident_list=[incident(1)]), "both faults"),
    "a receipt is missing": (
        "governed",
        replace(
            GOVERNED,
            interventions=[intervention(1), intervention(2, ranks_by_step={50: [0]}, receipts=[receipt(50, 0)])],
        ),
        "same step",
    ),
    "ranks applied at different steps": (
        "governed",
        replace(GOVERNED, interventions=[intervention(1), torn()]),
        "same step",
    ),
    "nothing was verified": (
        "governed",
        replace(
            GOVERNED, interventions=[intervention(1, verification=""), intervention(2, verification="ineffective")]
        ),
        "verified",
    ),
    "an incident stays open": (
        "governed",
        with_run(GOVERNED, incident_list=[incident(1), incident(2, "ended")]),
        "resolved",
    ),
    "the governed run is not finite": (
        "governed",
        replace(GOVERNED, validation_losses=[(STEPS - 1, math.nan)]),
        "within",
    ),
    "the governed run is too far off": ("governed", replace(GOVERNED, validation_losses=[(STEPS - 1, 2.2)]), "within"),
    "no validation at all": ("governed", replace(GOVERNED, validation_losses=[]), "within"),
}
"""By the way in which the loop stays open: whose account tells of it, and a word of the promise that it breaks."""
