"""The life of an intervention, and the ledger that limits are counted in.

proposed -> (approved | declined) -> issued -> applied | rejected | expired | failed -> verified. `decide` opens
interventions and asks the ledger whether another is allowed; `verification` closes them. Bounded: only what is in
flight, and the steps at which recent ones were issued.
"""

from typing import Literal, assert_never

import msgspec

from ..events.actions import (
    Action,
    CheckpointNow,
    Notify,
    Pause,
    Resume,
    Rollback,
    ScaleLr,
    SetClip,
    SetDropout,
    SetWeightDecay,
    SkipBatches,
    Stop,
)
from .policy import Policy, Rule

Stage = Literal["proposed", "issued", "applied"]
IN_FLIGHT_BYTES = 12_000
"""Room for what is in flight; who asks for more is refused."""


class InFlight(msgspec.Struct):
    """One intervention between its proposal and its end. `action_json` is the action as the codec writes it, `touches`
    whether it changes the run.
    """

    intervention_id: str
    rule: str
    action_json: str
    stage: Stage
    since_tick: int
    expires_step: int = 0
    applied_step: int = -1
    observed: int = 0
    window_steps: int = 0
    deadline_ticks: int = 0
    default: str = "decline"
    touches: bool = False

    @property
    def is_rollback(self) -> bool:
        return '"action":"rollback"' in self.action_json


class RuleRecord(msgspec.Struct):
    """What a rule has done so far in this run: consecutive steps it held, when it last acted, how far up its ladder it
    is, and (a checksum of) what it said last without being able to do it.
    """

    held: int = 0
    last_step: int = -1
    issued_at: list[int] = []
    rung: int = 0
    said: int = 0


class Ledger(msgspec.Struct):
    """Everything a run's limits are counted in. `total` counts against the policy's budget over the whole life of the
    run.
    """

    in_flight: list[InFlight] = []
    rules: dict[str, RuleRecord] = {}
    total: int = 0
    judged: int = 0

    def rule(self, name: str) -> RuleRecord:
        known = self.rules.get(name)
        if known is None:
            known = self.rules[name] = RuleRecord()
        return known

    def find(self, intervention_id: str) -> InFlight | None:
        return next((known for known in self.in_flight if known.intervention_id == intervention_id), None)

    def close(self, intervention: InFlight) -> None:
        self.in_flight.remove(intervention)

    @property
    def recovering(self) -> bool:
        """Whether something that touched the trainer was applied and is being verified."""
        return bool(self.in_flight) and any(known.stage == "applied" and known.is_rollback for known in self.in_flight)


def touches_trainer(action: Action) -> bool:
    """Whether an action changes the run; one that does excludes every other while it is in flight."""
    match action:
        case Notify() | CheckpointNow():
            return False
        case ScaleLr() | SetClip() | SetWeightDecay() | SetDropout():
            return True
        case SkipBatches() | Rollback() | Pause() | Resume() | Stop():
            return True
        case _ as unreachable:
            assert_never(unreachable)


def is_verified(action: Action) -> bool:
    """Whether an action is meant to heal, so that its effect is measured."""
    match action:
        case ScaleLr() | SetClip() | SetWeightDecay() | SetDropout() | SkipBatches() | Rollback():
            return True
        case Notify() | CheckpointNow() | Pause() | Resume() | Stop():
            return False
        case _ as unreachable:
            assert_never(unreachable)


def refusal(ledger: Ledger, policy: Policy, rule: Rule, action: Action) -> str | None:
    """Why a rule that holds may not act now; None when it may. `ledger.judged` is the clock: steps judged in this
    run's life.
    """
    record = ledger.rule(rule.name)
    if record.last_step >= 0 and ledger.judged - record.last_step <= rule.cooldown_steps:
        return "cooldown"
    recent = [when for when in record.issued_at if ledger.judged - when < rule.limit.window_steps]
    if len(recent) >= rule.limit.count:
        return "limit"
    if any(known.rule == rule.name for known in ledger.in_flight):
        return "its last is in flight"
    if touches_trainer(action):
        if ledger.total >= policy.budget:
            return "budget"
        if any(known.touches for known in ledger.in_flight):
            return "another in flight"
    return None


def has_room(ledger: Ledger, intervention: InFlight) -> bool:
    """Whether one more may be in flight."""
    return len(msgspec.msgpack.encode([*ledger.in_flight, intervention])) <= IN_FLIGHT_BYTES


def count(ledger: Ledger, rule: Rule, action: Action) -> None:
    """Enter an intervention of `rule` into the books."""
    record = ledger.rule(rule.name)
    record.last_step = ledger.judged
    record.issued_at = [*record.issued_at, ledger.judged][-rule.limit.count :]
    climb(record, rule)
    if touches_trainer(action):
        ledger.total += 1


def climb(record: RuleRecord, rule: Rule) -> None:
    """The next action of the rule's ladder is its turn."""
    record.rung = min(record.rung + 1, len(rule.actions) - 1)


def keep_rules(ledger: Ledger, policy: Policy) -> None:
    """Another policy governs: forget the rules that it does not have."""
    names = {rule.name for rule in policy.rules}
    ledger.rules = {name: record for name, record in ledger.rules.items() if name in names}
