"""From a proposal to a command, or to a no: what is sent, who agreed, and what nobody answered in time.

Called by `decide` for rules, by `orders` for people, by `verification` for what is put back, and by
`stream_processors.judging` as steps and time go by.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from ..events.actions import ACTION, Action, Revert
from ..events.bounds import Bound, Quantity
from ..events.decisions import InterventionApproved, InterventionDeclined, InterventionExpired, InterventionIssued
from . import interventions
from .desk import Desk
from .interventions import InFlight, Ledger
from .policy import Policy

EXPIRY_GRACE_STEPS = 20
"""A receipt travels; only when none came this many steps after the time to live does the governor call it expired."""
WHO_LENGTH = 100
NO_ROOM = "too much is in flight already: wait until the trainer has answered"


class Command(NamedTuple):
    """How a command is sent: in whose name, until which step, within the bounds of which policy."""

    who: str
    expires_step: int
    policy: Policy


class Answer(msgspec.Struct, frozen=True):
    """What somebody, or a timeout for them, said to a proposal."""

    approve: bool
    who: str
    why: str


def issue(ledger: Ledger, intervention: InFlight, command: Command, desk: Desk) -> None:
    """Send the command. What leaves the trainer alone is done with being said."""
    action = ACTION.validate_json(intervention.action_json)
    desk.decide(
        InterventionIssued,
        intervention.intervention_id,
        intervention_id=intervention.intervention_id,
        rule=intervention.rule,
        action=action,
        expires_step=max(0, command.expires_step),
        who=command.who,
        bounds=bounds_of(command.policy, action),
    )
    known = ledger.find(intervention.intervention_id)
    if known is not None:
        ledger.close(known)
    if action.action != "notify":
        intervention.stage, intervention.expires_step = "issued", command.expires_step
        intervention.who = command.who[:WHO_LENGTH]
        ledger.in_flight.append(intervention)


def bounds_of(policy: Policy, action: Action) -> Mapping[Quantity, Bound]:
    """The policy's bounds for what an action changes."""
    changed = action.values if isinstance(action, Revert) else action.changes
    return {name: bound for name, bound in policy.bounds.items() if name in changed}


def decline(intervention_id: str, who: str, why: str, desk: Desk) -> None:
    """Say that nothing will come of it."""
    desk.decide(InterventionDeclined, intervention_id, intervention_id=intervention_id, who=who, why=why)


def answer(ledger: Ledger, known: InFlight, said: Answer, policy: Policy, desk: Desk) -> None:
    """A proposal that waited gets its answer: the first one counts."""
    intervention_id = known.intervention_id
    words = f"{'approved' if said.approve else 'declined'} by {said.who}"
    ledger.answered(intervention_id, f"{words}: {said.why}" if said.why else words)
    if not said.approve:
        ledger.close(known)
        interventions.give_back(ledger, known)
        decline(intervention_id, said.who, said.why, desk)
        return
    desk.decide(InterventionApproved, intervention_id, intervention_id=intervention_id, who=said.who, why=said.why)
    issue(ledger, known, Command(said.who, desk.step + known.expires_step, policy), desk)


def time_out(ledger: Ledger, tick: int, policy: Policy, desk: Desk) -> None:
    """Proposals that nobody answered take their default."""
    for known in list(ledger.in_flight):
        if known.stage == "proposed" and tick - known.since_tick >= known.deadline_ticks:
            why = f"nobody answered within {known.deadline_ticks} s"
            answer(ledger, known, Answer(known.default == "approve", "timeout", why), policy, desk)


def overdue(ledger: Ledger, desk: Desk) -> list[InFlight]:
    """Give up on commands that no trainer answered in time: they are closed, and said to have expired."""
    late = [
        known
        for known in ledger.in_flight
        if known.stage == "issued" and desk.step > known.expires_step + EXPIRY_GRACE_STEPS
    ]
    for known in late:
        reason = f"no receipt by step {desk.step}; it was to be applied by step {known.expires_step}"
        ledger.close(known)
        expired(known, reason, desk)
    return late


def expired(known: InFlight, reason: str, desk: Desk) -> None:
    """Say that nothing will come of it any more."""
    desk.decide(InterventionExpired, known.intervention_id, intervention_id=known.intervention_id, reason=reason)
