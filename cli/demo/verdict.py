"""Whether every leg of the loop closed: telemetry archived, judged, commanded, obeyed by all ranks at one step, healed.
Pure.

`story` asks, `report` shows the findings, and `command` ends with a status other than 0 if one of them is bad. Each
finding stands for a promise of the whole system; none looks at anything but the archive's account.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...events.event_words import number
from .account import Account
from .plan import Name, Setting

TOLERANCE = 1.05
"""How much greater than the fault-free run's the governed run's validation loss may be."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise, whether it held, and by what one sees it."""

    promise: str
    held: bool
    seen: str


def findings(setting: Setting, accounts: Mapping[Name, Account]) -> list[Finding]:
    """Every promise that this demo makes, in the order of an event's path."""
    found = [finding for name, account in accounts.items() for finding in _watched(name, account, setting)]
    if "quiet" in accounts:
        return [*found, *_left_alone("quiet", accounts["quiet"])]
    governed = accounts["governed"]
    if len(accounts) == 1:
        return [*found, *_acted_upon(governed, setting), *_healed(governed), _finite("governed", governed)]
    healthy, broken = accounts["fault-free"], accounts["ungoverned"]
    return [
        *found,
        *_left_alone("fault-free", healthy),
        *_really_broken(broken, healthy),
        *_acted_upon(governed, setting),
        *_healed(governed),
        _as_good(governed, healthy),
    ]


def ratio(account: Account, healthy: Account) -> float:
    """A run's validation loss over the fault-free run's; NaN where it is not finite."""
    return account.validation_loss / healthy.validation_loss if healthy.validation_loss else math.nan


def _watched(name: str, account: Account, setting: Setting) -> Iterator[Finding]:
    steps = account.steps_by_rank
    whole = set(steps) == set(range(setting.ranks)) and set(steps.values()) == {setting.steps}
    seen = ", ".join(f"rank {rank}: {count}" for rank, count in sorted(steps.items())) or "nothing"
    yield Finding(f"{name}: every step of every rank is archived", whole, f"steps {seen}")
    ended = account.run["outcome"] == "completed" and account.run["phase"] == "Ended"
    seen = f"outcome {account.run['outcome'] or 'none'}, phase {account.run['phase']}, {len(account.phases)} phases"
    yield Finding(f"{name}: the run was judged to its end", ended and len(account.phases) >= 3, seen)
    seen = f"{len(account.decisions)} decisions"
    yield Finding(f"{name}: replaying the archived log gives the archived decisions", account.replayed, seen)


def _left_alone(name: str, account: Account) -> Iterator[Finding]:
    count, incidents = len(account.interventions), len(account.incidents)
    seen = f"{count} interventions, {incidents} incidents"
    yield Finding(f"{name}: no intervention, not even proposed", count == 0 and incidents == 0, seen)
    yield _finite(name, account)


def _really_broken(broken: Account, healthy: Account) -> Iterator[Finding]:
    issued = [row for row in broken.interventions if row["issued_step"] is not None]
    seen = f"{len(broken.interventions)} proposed, {len(issued)} issued"
    yield Finding("ungoverned: seen, proposed, not touched", bool(broken.interventions) and not issued, seen)
    times = ratio(broken, healthy)
    yield Finding("ungoverned: the faults ruin it", not times <= TOLERANCE, _loss(broken, times))


def _acted_upon(governed: Account, setting: Setting) -> Iterator[Finding]:
    # What only tells people is answered by rank 0 alone, and heals nothing.
    applied = [row for row in governed.interventions if row["applied_steps"] and row["action"] != "notify"]
    seen = f"{len(governed.interventions)} proposed, {len(applied)} applied"
    yield Finding("governed: interventions were applied", bool(applied), seen)
    for incident in governed.incidents:
        answers = [row["action"] for row in applied if row["incident_id"] == incident["incident_id"]]
        seen = f"{incident['reason']} from step {incident['onset_step']}: {', '.join(answers) or 'nothing'}"
        yield Finding("governed: an incident was answered", bool(answers), seen)
    yield Finding(
        "governed: both faults were seen", len(governed.incidents) >= 2, f"{len(governed.incidents)} incidents"
    )
    for row in applied:
        together, seen = _together(row, setting.ranks)
        yield Finding(f"governed: {row['action']} at the same step on all ranks", together, seen)


def _together(row: Mapping[str, Any], ranks: int) -> tuple[bool, str]:
    """By the receipts: one step, and every rank at it."""
    by_step: Mapping[int, list[int]] = row["ranks_by_step"]
    seen = "; ".join(f"step {step}: ranks {', '.join(map(str, who))}" for step, who in by_step.items())
    return len(by_step) == 1 and all(who == list(range(ranks)) for who in by_step.values()), seen


def _healed(governed: Account) -> Iterator[Finding]:
    verified = [row["verification"] for row in governed.interventions if row["verification"]]
    seen = f"verified: {', '.join(verified) or 'none'}"
    yield Finding("governed: an intervention was verified to have helped", "recovered" in verified, seen)
    outcomes = [row["outcome"] or "open" for row in governed.incidents]
    seen = f"incidents: {', '.join(outcomes) or 'none'}"
    yield Finding("governed: every incident was resolved", bool(outcomes) and set(outcomes) == {"recovered"}, seen)


def _finite(name: str, account: Account) -> Finding:
    finite = math.isfinite(account.validation_loss)
    return Finding(f"{name}: ends finite", finite, f"validation loss {number(account.validation_loss)}")


def _as_good(governed: Account, healthy: Account) -> Finding:
    times = ratio(governed, healthy)
    promise = f"governed: ends finite, within {TOLERANCE}x of the fault-free run"
    return Finding(promise, times <= TOLERANCE, _loss(governed, times))


def _loss(account: Account, times: float) -> str:
    against = f", {times:.3f}x of the fault-free run's" if math.isfinite(times) else ""
    return f"validation loss {number(account.validation_loss)}{against}"
