"""What a step costs the core, in bytecodes: it grows neither with the run's history nor with what is not judged.

Seconds would say something of the machine; bytecodes are the same on every one. What C does at once (a sort of 64
values) counts as one, so that loops over steps, ranks, metrics or rules are what is seen.
"""

import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

import pytest

from pilothouse.benchmarks.core.training import ROWS, RUN, WARM_STEPS, Training
from pilothouse.events.union import Record
from pilothouse.stream_processors.fold import fold
from pilothouse.stream_processors.run_state import RunState, new_state

MOST_AT_ONE_RANK = 3_000
"""Bytecodes a step; 2,630 when this was written, some 45 microseconds with all that they call."""
MOST_A_RANK = 800
"""Bytecodes for each of many ranks; 690 when this was written."""


class Folded:
    """A training, and the state it has led to."""

    def __init__(self, ranks: int = 1, metrics: int = 12) -> None:
        self.training = Training(ranks, metrics)
        self.state: RunState = new_state(RUN)
        self.fold(self.training.opening(governed=True))
        self.to(WARM_STEPS)

    def fold(self, records: Iterable[Record]) -> None:
        for record in records:
            folded = fold(self.state, record)
            assert not folded.fault, folded.fault

    def to(self, step: int) -> "Folded":
        while self.training.step < step:
            self.fold([*self.training.batches(), *self.training.ticks()])
        return self

    def bytecodes_a_step(self, rounds: int = 2) -> float:
        judged = self.state.ledger.judged
        batches = [batch for _ in range(rounds) for batch in self.training.batches()]
        counted = bytecodes(lambda: self.fold(batches))
        assert self.state.ledger.judged == judged + rounds * ROWS
        return counted / (rounds * ROWS)


def bytecodes(work: Callable[[], object]) -> int:
    """How many run while `work` does."""
    count = 0

    def inside(_: FrameType, event: str, __: Any) -> Any:
        nonlocal count
        count += event == "opcode"
        return inside

    def entered(frame: FrameType, _: str, __: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return inside

    before = sys.gettrace()
    sys.settrace(entered)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def test_a_step_of_one_rank_stays_within_its_budget() -> None:
    assert Folded().bytecodes_a_step() <= MOST_AT_ONE_RANK


def test_a_step_costs_late_in_a_run_what_it_cost_early() -> None:
    folded = Folded()
    early = folded.bytecodes_a_step(8)
    assert folded.to(10_000).bytecodes_a_step(8) == pytest.approx(early, rel=0.05)


def test_metrics_that_nothing_is_judged_by_cost_nothing() -> None:
    assert Folded(metrics=1_000).bytecodes_a_step() == Folded(metrics=12).bytecodes_a_step()


@pytest.mark.parametrize("ranks", [8, 64, 256])
def test_a_rank_more_costs_no_more_than_the_rank_before(ranks: int) -> None:
    few, many = Folded(4).bytecodes_a_step(1), Folded(ranks).bytecodes_a_step(1)
    assert (many - few) / (ranks - 4) <= MOST_A_RANK
    assert many / ranks <= few / 4
