"""Ranks are compared in any order and in any batches to the same result, whatever they tell."""

import math
import random
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.events.telemetry import RunStarted, StepBatch
from pilothouse.stream_processors import gathering
from pilothouse.stream_processors.detectors.sample import StepSample
from pilothouse.stream_processors.detectors.spread import Spread, merge
from pilothouse.stream_processors.run_state import Attempt

NAMES = ("loss", "grad_norm", "data_wait_s", "compute_s", "comm_s", "param_norm", "local_grad_norm")
NUMBERS = st.one_of(
    st.none(),
    st.floats(0.5, 2.0),
    st.floats(),
    st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -1.0, 5e-324, 1e308, 1.0]),
)
ROWS = st.dictionaries(st.sampled_from(NAMES), NUMBERS)
RANKS = 3


@st.composite
def tables(draw: st.DrawFn) -> list[list[tuple[int, dict[str, float | None]]]]:
    """For each rank its rows, (step, metrics): of the same steps, some of which a rank leaves out."""
    steps = sorted(draw(st.sets(st.integers(0, 40), min_size=1, max_size=20)))
    return [[(step, draw(ROWS)) for step in steps if draw(st.integers(0, 9))] for _ in range(RANKS)]


def batches(rank: int, rows: list[tuple[int, dict[str, float | None]]], data: st.DataObject) -> Iterator[StepBatch]:
    """The rows of a rank, cut anywhere."""
    while rows:
        cut = data.draw(st.integers(1, len(rows)))
        now, rows = rows[:cut], rows[cut:]
        names = {name for _, row in now for name in row} or {"nothing"}
        yield StepBatch(
            run_id="run", writer_id=f"rank-{rank}", seq=1, at=1, attempt_id="attempt-1", attempt=1, rank=rank,
            steps=tuple(step for step, _ in now), times=(1,) * len(now),
            metrics={name: tuple(row.get(name) for _, row in now) for name in names},
        )  # fmt: skip


def samples(table: list[list[tuple[int, dict[str, float | None]]]], data: st.DataObject) -> tuple[list[str], bytes]:
    """The steps as they come out when all ranks have told theirs, in any order and any batches; what is remembered."""
    attempt, past = Attempt("attempt-1", 1), bytearray()
    told = [list(batches(rank, rows, data)) for rank, rows in enumerate(table)]
    started = RunStarted(
        run_id="run", writer_id="rank-0", seq=1, at=1, attempt_id="attempt-1", attempt=1, rank=0, reason="start",
        first_step=0, world_size=RANKS,
    )  # fmt: skip
    gathering.start(attempt, started, 0)
    while any(told):
        rank = data.draw(st.sampled_from([rank for rank in range(RANKS) if told[rank]]))
        gathering.add_rows(attempt, told[rank].pop(0), 0, past)
    steps = [repr(_in_order(item)) for item in gathering.ready(attempt, closing=True) if isinstance(item, StepSample)]
    return steps, bytes(past)


def _in_order(sample: StepSample) -> tuple[object, ...]:
    spreads = sorted((what, repr(spread)) for what, spread in sample.spreads.items())
    return sample.step, sample.ranks, sample.loss, sample.grad_norm, sample.nonfinite, sample.told, spreads


@settings(max_examples=60)
@given(tables(), st.data())
def test_steps_come_out_the_same_however_ranks_interleave_and_batches_are_cut(
    table: list[list[tuple[int, dict[str, float | None]]]], data: st.DataObject
) -> None:
    assert samples(table, data) == samples(table, data)


@given(st.lists(st.integers(-(2**31), 2**31), min_size=2, max_size=9), st.randoms())
def test_a_spread_knows_no_order(values: list[int], any_order: random.Random) -> None:
    told = list(enumerate(values))
    any_order.shuffle(told)
    spreads: dict[int, Spread] = {}
    for rank, value in told:
        merge(spreads, 0, value, rank)
    low, high = min(values), max(values)
    assert spreads[0] == Spread(len(values), sum(values), low, values.index(low), high, values.index(high))
    assert low <= spreads[0].middle <= high
    assert spreads[0].others(high) <= spreads[0].mean <= spreads[0].others(low)
