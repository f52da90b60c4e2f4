"""The life of an intervention, and the ledger that limits are counted in.

proposed -> (approved | declined) -> issued -> applied | rejected | expired | failed -> verified. `decide` opens
interventions and asks the ledger whether another is allowed; `verification` closes them; `orders` is what people say
about them. Bounded: only what is in flight, the steps at which recent ones were issued, and the last answers.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from ..events.actions import QUANTITIES, Action, Revert
from .policy import MOST_COUNTED, Limit, Policy, Rule
from .questions import Advice
from .silences import Silence

Stage = Literal["proposed", "issued", "applied", "reverting"]
IN_FLIGHT_BYTES = 12_000
"""Room for what is in flight; who asks for more is refused."""
ANSWERS = 16
"""So many answers to proposals are remembered, for whoever comes too late."""
ANSWER_LENGTH = 200


class InFlight(msgspec.Struct):
    """One intervention between its proposal and its end. `action_json` is the action as the codec writes it, `touches`
    whether it changes the run, `costs` whether it was counted against the policy's budget, `who` had it issued.

    While it is verified: steps `observed`, measurements that `failed`, that were `well` and that nobody could make
    (`unanswered`), and what it changed, `before` and `after`. `undoes` names the intervention that this one reverts;
    `verdict` is why that one failed, kept there until it is reverted. `rung` is where in its rule's ladder it stands.
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
    costs: bool = False
    failed: int = 0
    well: int = 0
    unanswered: int = 0
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    undoes: str = ""
    verdict: str = ""
    who: str = ""
    rung: int = 0

    @property
    def is_rollback(self) -> bool:
        return '"action":"rollback"' in self.action_json


class RuleRecord(msgspec.Struct):
    """What a rule has done so far in this run: consecutive steps it held, when it last acted, how far up its ladder it
    is, since when the incident is over in which it climbed, and (a checksum of) what it said last without being able to
    do it.
    """

    held: int = 0
    last_step: int = -1
    issued_at: list[int] = []
    rung: int = 0
    calm_since: int = -1
    said: int = 0


class Ledger(msgspec.Struct):
    """Everything a run's limits are counted in. `total` counts against the policy's budget over the whole life of the
    run, `touched_at` against its limit in a window. `values` are those in force, as far as receipts told them;
    `answers` what became of the last proposals that waited for people, in words.
    """

    in_flight: list[InFlight] = []
    rules: dict[str, RuleRecord] = {}
    total: int = 0
    judged: int = 0
    touched_at: list[int] = []
    values: dict[str, float] = {}
    answers: dict[str, str] = {}
    silences: list[Silence] = []
    advice: Advice = msgspec.field(default_factory=Advice)

    def rule(self, name: str) -> RuleRecord:
        known = self.rules.get(name)
        if known is None:
            known = self.rules[name] = RuleRecord()
        return known

    def find(self, intervention_id: str) -> InFlight | None:
        return next((known for known in self.in_flight if known.intervention_id == intervention_id), None)

    def close(self, intervention: InFlight) -> None:
        self.in_flight.remove(intervention)

    def answered(self, intervention_id: str, words: str) -> None:
        """Remember what became of a proposal that waited."""
        self.answers[intervention_id] = words[:ANSWER_LENGTH]
        while len(self.answers) > ANSWERS:
            del self.answers[next(iter(self.answers))]

    def learn(self, values: Mapping[str, float]) -> None:
        """What a trainer says is in force now."""
        self.values |= known_values(values)

    @property
    def recovering(self) -> bool:
        """Whether something that touched the trainer was applied and is being verified."""
        return bool(self.in_flight) and any(known.stage == "applied" and known.is_rollback for known in self.in_flight)


def known_values(values: Mapping[str, float]) -> dict[str, float]:
    """Those of the quantities that actions change; a NaN says nothing."""
    return {name: values[name] for name in QUANTITIES if name in values and values[name] == values[name]}


def touches_trainer(action: Action) -> bool:
    """Whether an action changes the run; one that does excludes every other while it is in flight."""
    return action.touches


def is_verified(action: Action) -> bool:
    """Whether an action is meant to heal, so that its effect is measured."""
    return action.alters and not isinstance(action, Revert)


def refusal(ledger: Ledger, policy: Policy, rule: Rule, action: Action) -> str | None:  # noqa: PLR0911  # one return a limit
    """Why a rule that holds may not act now; None when it may. `ledger.judged` is the clock: steps judged in this
    run's life.
    """
    record = ledger.rule(rule.name)
    if record.last_step >= 0 and ledger.judged - record.last_step <= rule.cooldown_steps:
        return "cooldown"
    if _is_spent(rule.limit, record.issued_at, ledger.judged):
        return "limit"
    if any(known.rule == rule.name for known in ledger.in_flight):
        return "its last is in flight"
    if action.touches:
        if ledger.total >= policy.budget:
            return "budget"
        if policy.limit is not None and _is_spent(policy.limit, ledger.touched_at, ledger.judged):
            return "policy limit"
        if any(known.touches for known in ledger.in_flight):
            return "another in flight"
    return None


def _is_spent(limit: Limit, at: list[int], now: int) -> bool:
    return sum(now - when < limit.window_steps for when in at) >= limit.count


def has_room(ledger: Ledger, intervention: InFlight) -> bool:
    """Whether one more may be in flight."""
    return len(msgspec.msgpack.encode([*ledger.in_flight, intervention])) <= IN_FLIGHT_BYTES


def count(ledger: Ledger, rule: Rule, action: Action) -> None:
    """Enter an intervention of `rule` into the books."""
    record = ledger.rule(rule.name)
    record.last_step = ledger.judged
    record.issued_at = [*record.issued_at, ledger.judged][-rule.limit.count :]
    climb(record, rule)
    if action.touches:
        ledger.total += 1
        ledger.touched_at = [*ledger.touched_at, ledger.judged][-MOST_COUNTED:]


def give_back(ledger: Ledger, intervention: InFlight) -> None:
    """What was declined never touched the run: it costs none of the policy's budget."""
    if intervention.costs:
        intervention.costs = False
        ledger.total = max(0, ledger.total - 1)
        ledger.touched_at = ledger.touched_at[:-1]


def climb(record: RuleRecord, rule: Rule) -> None:
    """The next action of the rule's ladder is its turn."""
    record.rung = min(record.rung + 1, len(rule.actions) - 1)


def keep_rules(ledger: Ledger, policy: Policy) -> None:
    """Another policy governs: forget the rules that it does not have."""
    names = {rule.name for rule in policy.rules}
    ledger.rules = {name: record for name, record in ledger.rules.items() if name in names}


def calm(ledger: Ledger) -> None:
    """An incident is over: unless it comes back, every ladder begins at its foot again."""
    for record in ledger.rules.values():
        record.calm_since = ledger.judged


def rung_of(record: RuleRecord, rule: Rule, judged: int) -> int:
    """Where in its ladder a rule stands. What comes back within `relapse_steps` is the same trouble and goes on with
    the ladder: a judged step is a step further in the data, which never goes back, so it is the same place in it.
    """
    if record.calm_since >= 0 and judged - record.calm_since >= rule.relapse_steps:
        return 0
    return min(record.rung, len(rule.actions) - 1)


def next_action(ledger: Ledger, rule: Rule) -> Action:
    """What the rule's ladder says, now that it holds."""
    record = ledger.rule(rule.name)
    record.rung, record.calm_since = rung_of(record, rule, ledger.judged), -1
    return rule.actions[record.rung]


def take_back(ledger: Ledger, intervention: InFlight) -> None:
    """It came to nothing, and not because it did not help: its rule may do the same again, at once."""
    give_back(ledger, intervention)
    record = ledger.rules.get(intervention.rule)
    if record is not None:
        record.last_step, record.rung = -1, intervention.rung
        record.issued_at = record.issued_at[:-1]


def untried(ledger: Ledger, intervention: InFlight) -> None:
    """No trainer answered, so nobody knows whether it would have helped: its rule does the same again, when it may. It
    is paid for all the same: it may have been applied, and the receipt lost.
    """
    record = ledger.rules.get(intervention.rule)
    if record is not None and not intervention.undoes:
        record.rung = min(record.rung, intervention.rung)
