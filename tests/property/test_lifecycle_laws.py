"""Whatever happens, in whatever order: no value leaves its bounds, no budget is overspent, nothing is applied twice,
and the log decides it all again.

The real core governs the real hands of a trainer, over a network that delivers commands late, twice, out of order or
never, while people, forged receipts, restarts and other policies get in between.
"""

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.events.actions import Action, CheckpointNow, Notify, Revert, ScaleLr, SetClip, SetLr, SkipBatches
from pilothouse.events.commands import OperatorCommand
from pilothouse.events.decisions import OPERATOR, InterventionIssued, InterventionProposed
from pilothouse.events.envelope import LogPlace, TrainerFact
from pilothouse.events.telemetry import InterventionReceipt, RunStarted, StepBatch
from pilothouse.events.union import AnyDecision, Record
from pilothouse.governance.policy import load_policy
from pilothouse.producers.ranks.ballots import LocalBallots
from pilothouse.producers.steering.actuators import Actuators
from pilothouse.producers.steering.course import Course
from pilothouse.producers.steering.knobs import Knobs
from pilothouse.producers.steering.learning_rate import LrMultiplier
from pilothouse.producers.steering.rollback import Trainer
from pilothouse.producers.steering.safe_point import Links, Steering
from pilothouse.stream_processors.fold import fold
from pilothouse.stream_processors.run_state import dump_state, load_state, new_state
from pilothouse.tests.governed_run import decided
from pilothouse.tests.pilot_world import Tape
from pilothouse.tests.property.test_steering import Heard
from pilothouse.tests.run_builder import SECOND, START, activated, quiet_loss, tick

RUN = "run"
CLIP_BOUNDS, RATE_BOUNDS = (0.5, 6.0), (0.3, 1.0)
"""Of the multiplier: the policy bounds the rate itself by 0.03, and the trainer's own is 0.1."""
POLICY = """
name: p
mode: MODE
budget: BUDGET
limit: {count: 2, window_steps: 9}
bounds:
  {clip: {min: 0.5, max: 6.0, ratio: 10.0}, lr_multiplier: {min: 0.2, max: 1.0}, lr: {min: 0.03},
   skip_batches: {max: 5}}
rules:
- name: one
  when: conditions.Stable != 'Unknown'
  actions: [{action: set_clip, value: 1.0}, {action: scale_lr, factor: 0.5}, {action: skip_batches, count: 3}]
  cooldown_steps: 1
  limit: {count: 64}
  ttl_steps: 30
  verify: {window_steps: 4, success: conditions.Stable == 'False', on_failure: revert}
- name: two
  when: features.steps_observed > 8.0
  actions: [{action: scale_lr, factor: 0.5}]
  approval: {by: human, timeout_seconds: 5, default: approve}
  cooldown_steps: 2
  verify: {window_steps: 3, interval_steps: 1, failure_limit: 1, success: features.val_loss < 1.0}
"""
MODES = ("enforce", "propose", "observe")


class Optimizer:
    """What a multiplier needs of one."""

    def __init__(self) -> None:
        self.param_groups = [{"lr": 0.1}]

    def register_step_pre_hook(self, _: object) -> None: ...
    def register_step_post_hook(self, _: object) -> None: ...


class World(Tape):
    """A trainer that tells the core at once, and a core whose commands hang in the air."""

    def __init__(self, budget: int = 4) -> None:
        super().__init__(run_id=RUN)
        self.budget = budget
        self.records: list[Record] = []
        self.decisions: list[AnyDecision] = []
        self.air: list[InterventionIssued] = []
        self.heard, self.step, self.ticks, self.seq, self.people, self.policies = Heard(), 0, 0, 0, 0, 0
        self.state = new_state(RUN)
        self.trainer = Trainer(
            self, LocalBallots(), LrMultiplier([Optimizer()]), Knobs({"clip": 5.0}), Course(self), None
        )
        self.steering = Steering(self, Links(LocalBallots(), self.heard), Actuators(self.trainer))
        self.activate(0)
        self.started("start", 0)

    def fold(self, event: Any) -> None:
        record = Record(LogPlace(0, 0, len(self.records)), event)
        self.records.append(record)
        folded = fold(self.state, record)
        assert not folded.fault, folded.fault
        self.state = folded.state
        self.decisions += folded.decisions
        self.air += [decision for decision in folded.decisions if isinstance(decision, InterventionIssued)]

    def tell(self, fact: type[TrainerFact], **fields: Any) -> None:
        super().tell(fact, **fields)
        self.say(fact, **fields)

    def say(self, fact: type[Any], **fields: Any) -> None:
        self.seq += 1
        run_id, attempt_id, attempt, rank, _ = self.identity
        who: dict[str, Any] = {"run_id": run_id, "attempt_id": attempt_id, "attempt": attempt, "rank": rank}
        self.fold(fact(writer_id="trainer", seq=self.seq, at=START, **who, **fields))

    def started(self, reason: str, first_step: int) -> None:
        steers = self.steering.actuators.steers
        self.say(RunStarted, reason=reason, first_step=first_step, world_size=1, steers=steers)

    # --------------------------------------------------------------------------------------------------- what happens

    def train(self, bad: float) -> None:
        for _ in range(4):
            loss = quiet_loss(self.step) + bad
            self.say(StepBatch, steps=(self.step,), times=(START,), metrics={"loss": (loss,)})
            self.steering.at(self.step)
            self.step += 1
            self.check()

    def seconds(self, count: int) -> None:
        for _ in range(count):
            self.ticks += 1
            self.fold(tick(self.ticks, START + self.ticks * SECOND))

    def deliver(self, which: int) -> None:
        """Any command that ever was: late, again, or before one that came earlier; the newest twice."""
        if self.air:
            self.heard.waiting += [self.air[which % len(self.air)]] * (1 + (which < 0))

    def order(self, told: tuple[str, int, Action | None]) -> None:
        verb, which, action = told
        self.people += 1
        asked = [each.intervention_id for each in self.decisions if isinstance(each, InterventionProposed)] or ["none"]
        about: dict[str, Any] = {"action": action} if verb == "intervene" else {"steps": which}
        if verb in ("approve", "decline"):
            about = {"intervention_id": asked[-1 - which % len(asked)]}
        person: dict[str, Any] = {"writer_id": "person", "seq": self.people, "at": START, "who": "ada", "why": "so"}
        self.fold(OperatorCommand(run_id=RUN, verb=verb, **person, **about))  # type: ignore[arg-type]  # one of the verbs

    def forge(self, told: tuple[int, str, float]) -> None:
        """A receipt that rank 0 never meant: of any intervention, with any numbers."""
        which, outcome, number = told
        issued = self.air[which % len(self.air)].intervention_id if self.air else "none"
        values = {"clip": number, "lr_multiplier": number}
        fields: dict[str, Any] = {"intervention_id": issued, "outcome": outcome, "step": self.step}
        self.say(InterventionReceipt, **fields, before=values, after={"clip": 1.0})

    def restart(self, remembers: int) -> None:
        """Another attempt, in this process or in one that remembers nothing but the values."""
        attempt_id = f"attempt-{self.identity.attempt + 1}"
        self.identity = self.identity._replace(attempt_id=attempt_id, attempt=self.identity.attempt + 1)
        if not remembers:
            self.steering = Steering(self, Links(LocalBallots(), self.heard), Actuators(self.trainer))
        self.started("restart", self.step)

    def activate(self, which: int) -> None:
        self.policies += 1
        text = POLICY.replace("MODE", MODES[which % len(MODES)]).replace("BUDGET", str(self.budget))
        assert load_policy(text).budget == self.budget
        self.fold(activated(RUN, text, seq=self.policies))

    # ------------------------------------------------------------------------------------------------ what must be so

    def values(self) -> tuple[float, float, int]:
        skipped = sum(count for count, _ in self.trainer.course._to_skip)
        return self.trainer.knobs.value("clip") or 0.0, self.trainer.lr.value, skipped

    def check(self) -> None:
        clip, rate, _ = self.values()
        assert CLIP_BOUNDS[0] <= clip <= CLIP_BOUNDS[1]
        assert RATE_BOUNDS[0] * (1 - 1e-9) <= rate <= RATE_BOUNDS[1]

    def applied(self) -> list[str]:
        told = self.of("intervention_receipt")
        return [receipt["intervention_id"] for receipt in told if receipt["outcome"] == "applied"]


NUMBERS = st.sampled_from([-1e9, 0.0, 0.4, 1.0, 5.0, 100.0, math.inf, math.nan])
ACTIONS: st.SearchStrategy[Action] = st.sampled_from(
    [
        SetClip(value=1.0),
        SetClip(value=6.0),
        SetClip(value=500.0),
        ScaleLr(factor=0.3),
        ScaleLr(factor=2.0),
        SetLr(value=0.05),
        SetLr(value=0.025),
        SetLr(value=5.0),
        SkipBatches(count=9),
        CheckpointNow(),
        Notify(message="m"),
        Revert(intervention_id="mine", values={"clip": 900.0}),
    ]
)
VERBS = st.sampled_from(["approve", "approve", "decline", "intervene", "intervene", "silence"])
MOVES = st.one_of(
    st.tuples(st.just("train"), st.sampled_from([0.0, 0.0, 4.0, math.nan])),
    st.tuples(st.just("train"), st.just(0.0)),
    st.tuples(st.just("deliver"), st.integers(-1, 6)),
    st.tuples(st.just("deliver"), st.just(-1)),
    st.tuples(st.just("order"), st.tuples(VERBS, st.integers(0, 3), ACTIONS)),
    st.tuples(st.just("seconds"), st.integers(1, 6)),
    st.tuples(
        st.just("forge"), st.tuples(st.integers(0, 5), st.sampled_from(["applied", "failed", "expired"]), NUMBERS)
    ),
    st.tuples(st.just("restart"), st.integers(0, 1)),
    st.tuples(st.just("activate"), st.integers(0, 2)),
)
HISTORIES = st.lists(MOVES, min_size=5, max_size=30)
MANY = settings(max_examples=25)


def lived(moves: list[tuple[str, Any]], budget: int = 4) -> World:
    world = World(budget)
    world.train(0.0)
    for what, told in moves:
        getattr(world, what)(told)
    world.train(0.0)
    return world


@MANY
@given(HISTORIES, st.integers(0, 2))
def test_no_value_leaves_its_bounds_no_budget_is_overspent_and_nothing_is_applied_twice(
    moves: list[tuple[str, Any]], budget: int
) -> None:
    world = lived(moves, budget)
    applied = world.applied()
    assert len(applied) == len(set(applied))
    assert set(applied) <= {issued.intervention_id for issued in world.air}
    by_rules = [issued for issued in world.air if issued.rule != OPERATOR and not isinstance(issued.action, Revert)]
    assert len(by_rules) <= budget
    assert max((issued.action.count for issued in by_rules if isinstance(issued.action, SkipBatches)), default=0) <= 5
    assert world.state.ledger.total <= budget


@MANY
@given(HISTORIES, st.integers(0, 100))
def test_the_log_decides_it_all_again_also_from_a_state_that_was_written_and_read(
    moves: list[tuple[str, Any]], cut: int
) -> None:
    world = lived(moves)
    assert list(map(repr, decided(world.records))) == list(map(repr, world.decisions))
    at, state = cut % len(world.records), new_state(RUN)
    again: list[AnyDecision] = []
    for record in world.records[:at]:
        folded = fold(state, record)
        state, again = folded.state, [*again, *folded.decisions]
    again += decided(world.records[at:], load_state(dump_state(state)))
    assert list(map(repr, again)) == list(map(repr, world.decisions))


@MANY
@given(HISTORIES, st.data())
def test_a_command_that_is_stale_or_comes_again_changes_nothing(
    moves: list[tuple[str, Any]], data: st.DataObject
) -> None:
    world = lived(moves)
    for _ in range(12):  # what is under way is applied, or given up
        world.steering.at(world.step)
        world.step += 1
    dealt_with = world.steering.orders.dealt_with
    old = [
        issued
        for issued in world.air
        if issued.intervention_id in dealt_with or issued.attempt_id != world.identity.attempt_id
    ]
    before, told = world.values(), world.applied()
    for _ in range(3 if old else 0):
        world.heard.waiting.append(data.draw(st.sampled_from(old)))
        for _ in range(4):
            world.steering.at(world.step)
            world.step += 1
    assert (world.values(), world.applied()) == (before, told)


def test_these_histories_have_what_the_laws_are_about() -> None:
    """A revert, a command refused for its bounds, one that comes twice: or the laws would say nothing of them."""
    world = World()
    for _ in range(12):
        world.train(0.0)
        world.deliver(-1)
    world.deliver(0)
    world.order(("intervene", 0, SetClip(value=500.0)))
    world.train(0.0)
    kinds = {issued.action.action for issued in world.air}
    assert {"set_clip", "revert", "scale_lr"} <= kinds
    reasons = [receipt["reason"] for receipt in world.of("intervention_receipt")]
    assert any(reason.startswith("Duplicate") for reason in reasons)
