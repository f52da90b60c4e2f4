"""Whole ranks under commands that come together, late, twice, out of order or past their time: what one applies, every
other that lives applies at the same step.
"""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.events.actions import Action, SkipBatches, Stop
from pilothouse.events.decisions import OPERATOR, InterventionIssued
from pilothouse.producers.actuators import Actuators
from pilothouse.producers.course import Course
from pilothouse.producers.knobs import Knobs
from pilothouse.producers.learning_rate import LrMultiplier
from pilothouse.producers.rollback import Trainer
from pilothouse.producers.steering import Links, Steering
from pilothouse.tests.pilot_world import Tape, issued
from pilothouse.tests.slow_ballots import Registers, SlowBallots


@dataclass
class Heard:
    """What rank 0 has heard and not yet taken up."""

    waiting: list[InterventionIssued] = field(default_factory=list)

    def take(self) -> InterventionIssued | None:
        return self.waiting.pop(0) if self.waiting else None

    def suspect_since(self) -> None:
        return None

    def close(self, within: float = 0.0) -> None:
        pass


class Rank:
    """One rank: the production's steering over registers that are slow."""

    def __init__(self, registers: Registers, rank: int, world: int, heard: Heard) -> None:
        self.ballots = SlowBallots(registers, rank, world)
        self.tape = Tape(rank, world)
        self.trainer = Trainer(self.tape, self.ballots, LrMultiplier(()), Knobs({}), Course(self.tape), None)
        self.steering = Steering(self.tape, Links(self.ballots, heard if rank == 0 else None), Actuators(self.trainer))
        self.step = -1

    def safe_point(self) -> None:
        if not self.trainer.course.stopping:
            self.step += 1
            self.steering.at(self.step)

    def exchange(self) -> None:
        self.ballots.let_one_out()
        self.ballots.listen()

    def ended(self) -> dict[str, tuple[str, int]]:
        """Each intervention that this rank is done with: its outcome and step. A second copy is refused as such."""
        ends: dict[str, tuple[str, int]] = {}
        for receipt in self.tape.of("intervention_receipt"):
            if not receipt["reason"].startswith("Duplicate"):
                assert receipt["intervention_id"] not in ends, "told twice"
                ends[receipt["intervention_id"]] = (receipt["outcome"], receipt["step"])
        return ends


def applied(rank: Rank) -> dict[str, int]:
    return {name: step for name, (outcome, step) in rank.ended().items() if outcome == "applied"}


ACTIONS: st.SearchStrategy[Action] = st.one_of(st.just(SkipBatches(count=3)), st.just(Stop()))
ORDERS = st.builds(
    lambda action, number, lives, attempt, rule: (action, number, lives, {"attempt_id": attempt, "rule": rule}),
    ACTIONS,
    st.integers(1, 6),
    st.integers(-2, 20),
    st.sampled_from(["attempt-1", "attempt-1", "attempt-0"]),
    st.sampled_from(["some-rule", OPERATOR]),
)
HAPPENS = st.one_of(
    st.tuples(st.sampled_from(["step", "exchange"]), st.integers(0, 3)),
    st.tuples(st.just("all step"), st.just(0)),
    st.tuples(st.just("order"), ORDERS),
)


@settings(max_examples=300)
@given(st.integers(1, 4), st.lists(HAPPENS, min_size=10, max_size=60))
def test_what_one_rank_applies_all_apply_at_the_same_step(world: int, happens: list[tuple[str, object]]) -> None:
    registers, heard = Registers(), Heard()
    ranks = [Rank(registers, number, world, heard) for number in range(world)]
    for what, which in happens:
        if what == "order":
            assert isinstance(which, tuple)
            action, number, lives, more = which
            heard.waiting.append(issued(action, number=number, expires_step=max(0, ranks[0].step + lives), **more))
            continue
        assert isinstance(which, int)
        for rank in ranks if what == "all step" else [ranks[which % world]]:
            rank.exchange() if what == "exchange" else rank.safe_point()
        agree(ranks)
    for _ in range(60):  # from here on every word arrives within a step
        for rank in ranks:
            rank.exchange()
        for rank in ranks:
            rank.safe_point()
        agree(ranks)
    catch_up(ranks)
    assert [applied(rank) for rank in ranks] == [applied(ranks[0])] * world
    assert len({rank.trainer.course.stopping for rank in ranks}) == 1


def agree(ranks: list[Rank]) -> None:
    """No intervention was applied by one rank and given up by another, or at another step."""
    for name in {name for rank in ranks for name in applied(rank)}:
        assert len({rank.ended()[name] for rank in ranks if name in rank.ended()}) == 1, name


def catch_up(ranks: list[Rank]) -> None:
    """Ranks that went slower reach the step of the fastest, as they do in training."""
    last = max(rank.step for rank in ranks)
    for rank in ranks:
        while rank.step < last and not rank.trainer.course.stopping:
            rank.exchange()
            rank.safe_point()
