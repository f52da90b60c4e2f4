"""Whole ranks under commands that come together, late, twice, out of order or past their time: what one applies, every
other that lives applies at the same step.
"""

import functools
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.events.actions import Action, CheckpointRef, Rollback, SetClip, SkipBatches, Stop
from pilothouse.events.decisions import OPERATOR, InterventionIssued
from pilothouse.events.errors import CheckpointError
from pilothouse.producers.checkpoints.retention import Judgement
from pilothouse.producers.steering.actuators import Actuators
from pilothouse.producers.steering.course import Course
from pilothouse.producers.steering.knobs import Knobs
from pilothouse.producers.steering.learning_rate import LrMultiplier
from pilothouse.producers.steering.rollback import Trainer
from pilothouse.producers.steering.safe_point import Links, Steering
from pilothouse.tests.pilot_world import Tape, issued
from pilothouse.tests.slow_ballots import Registers, SlowBallots


@dataclass
class Heard:
    """What rank 0 has heard and not yet taken up."""

    waiting: list[InterventionIssued] = field(default_factory=list)

    def take(self) -> InterventionIssued | None:
        return self.waiting.pop(0) if self.waiting else None

    def judged(self) -> Judgement:
        return Judgement()

    def close(self, within: float = 0.0) -> None:
        pass


@dataclass(frozen=True)
class Read:
    """What stands for a checkpoint in memory."""

    pilot: dict[str, float] = field(default_factory=lambda: {"worth_s": 0.0})


class Shelf:
    """What stands for `Saving`: one checkpoint, which this rank can read or not."""

    parent_attempt_id: str | None = None

    def __init__(self, readable: bool) -> None:
        self.readable = readable
        self.installed = 0
        self.checkpoints = self

    def prepare(self, ref: CheckpointRef) -> tuple[None, Read]:  # noqa: ARG002  # its shape
        if not self.readable:
            raise CheckpointError("one byte of it is another")
        return None, Read()

    def install(self, loaded: Read) -> None:  # noqa: ARG002  # its shape
        self.installed += 1

    def abandon_after(self, ref: CheckpointRef, attempt_id: str) -> None:
        pass

    def due(self, step: int) -> bool:
        return step % 5 == 0

    def save(self, *_: object) -> None:
        if not self.readable:
            raise CheckpointError("the disk is full")


class Rank:
    """One rank: the production's steering over registers that are slow."""

    def __init__(self, registers: Registers, rank: int, world: int, heard: Heard, readable: bool) -> None:
        self.ballots = SlowBallots(registers, rank, world)
        self.tape = Tape(rank, world)
        self.shelf = Shelf(readable)
        saving: Any = self.shelf
        self.trainer = Trainer(
            self.tape, self.ballots, LrMultiplier(()), Knobs({"clip": 1.0}), Course(self.tape), saving
        )
        self.steering = Steering(self.tape, Links(self.ballots, heard if rank == 0 else None), Actuators(self.trainer))
        self.step = -1

    def safe_point(self) -> None:
        if self.trainer.course.stopping or self.ballots.waiting:
            return
        self.step += 1
        self.trainer.lr.reached(self.step)
        self.steering.at(self.step)
        if (back := self.trainer.course.signal().rolled_back_to) is not None:
            self.step = back

    def now(self) -> tuple[object, ...]:
        """What every rank must have in common, once all words have arrived."""
        course = self.trainer.course
        steered = self.trainer.lr.value, self.trainer.knobs.value("clip")
        return course.stopping, self.tape.identity.attempt_id, steered, self.shelf.installed

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


BACK = CheckpointRef(checkpoint_id="c", step=2, path="c", manifest_sha256="0" * 64)
ACTIONS: st.SearchStrategy[Action] = st.sampled_from(
    [
        SkipBatches(count=3),
        Stop(),
        SetClip(value=0.5),  # risky: a checkpoint is taken before it
        Rollback(checkpoint=BACK, lr_factor=0.5),
        Rollback(checkpoint=BACK, skip_batches=2, lr_factor=0.7, lr_ramp_steps=4),
    ]
)
ORDERS = st.builds(
    lambda action, number, lives, attempt, rule: (action, number, lives, {"attempt_id": attempt, "rule": rule}),
    ACTIONS,
    st.integers(1, 6),
    st.integers(-2, 20),
    st.sampled_from(["now", "now", "attempt-1", "attempt-0"]),
    st.sampled_from(["some-rule", OPERATOR]),
)
MOVES = st.one_of(
    st.tuples(st.sampled_from(["step", "exchange"]), st.integers(0, 3)), st.tuples(st.just("all step"), st.just(0))
)
HAPPENS = st.one_of(MOVES, st.tuples(st.just("order"), ORDERS))


Happens = list[tuple[str, object]]


def play(world: int, happens: Happens, unreadable: int | None = None) -> list[Rank]:
    """What becomes of the ranks, some time after the last word has arrived."""
    registers, heard = Registers(), Heard()
    ranks = [Rank(registers, number, world, heard, number != unreadable) for number in range(world)]
    for rank in ranks:
        rank.ballots.others_go_on = functools.partial(go_on, ranks)
    for what, which in happens:
        if what == "order":
            assert isinstance(which, tuple)
            action, number, lives, told = which
            attempt = ranks[0].tape.identity.attempt_id if told["attempt_id"] == "now" else told["attempt_id"]
            expires = max(0, ranks[0].step + lives)
            heard.waiting.append(
                issued(action, number=number, expires_step=expires, **(told | {"attempt_id": attempt}))
            )
            continue
        assert isinstance(which, int)
        for rank in ranks if what == "all step" else [ranks[which % world]]:
            rank.exchange() if what == "exchange" else rank.safe_point()
        agree(ranks)
    for _ in range(60):  # from here on every word arrives within a step
        go_on(ranks)
        agree(ranks)
    catch_up(ranks)
    assert [applied(rank) for rank in ranks] == [applied(ranks[0])] * world
    assert len({rank.now() for rank in ranks}) == 1
    return ranks


@settings(max_examples=250)
@given(st.integers(1, 4), st.lists(HAPPENS, min_size=10, max_size=60), st.sampled_from([None, None, 0, 1, 3]))
def test_what_one_rank_applies_all_apply_at_the_same_step(world: int, happens: Happens, unreadable: int | None) -> None:
    play(world, happens, unreadable)


@settings(max_examples=100)
@given(
    st.integers(1, 4),
    st.lists(MOVES, min_size=4, max_size=30),
    st.lists(MOVES, max_size=12),
    st.booleans(),
    st.sampled_from(["now", "attempt-1"]),
)
def test_a_rollback_that_races_a_stop_leaves_all_ranks_stopped(
    world: int, before: Happens, between: Happens, stop_first: bool, attempt: str
) -> None:
    """A person's stop holds whether it was ordered before the rollback or after it, and for which attempt."""
    back = ("order", (Rollback(checkpoint=BACK, lr_factor=0.5), 1 + stop_first, 1_000, {"attempt_id": "now"}))
    stop = ("order", (Stop(), 2 - stop_first, 1_000, {"attempt_id": attempt, "rule": OPERATOR}))
    race = [stop, *between, back] if stop_first else [back, *between, stop]
    for rank in play(world, [*before, *race]):
        ends = rank.ended()
        assert ends["i-1" if stop_first else "i-2"][0] == "applied"
        assert rank.trainer.course.stopping
        assert (rank.shelf.installed == 1) == (ends.get("i-2" if stop_first else "i-1", ("",))[0] == "applied")


def go_on(ranks: list[Rank]) -> None:
    for rank in ranks:
        rank.exchange()
    for rank in ranks:
        rank.safe_point()


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
