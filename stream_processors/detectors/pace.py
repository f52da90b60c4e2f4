"""Is the run as fast as it usually is, and where does its time go? Block by block, never by a single step.

Three things are followed: how fast the run is (its throughput, or steps by their own durations, or steps by the times
at which their rows were logged), the share of the time that it waits for data, and the share that collectives take. A
block is `ROWS` rows and at least `SECONDS` long; of a fast run it keeps every n-th row. What a block says is robust:
the median speed, so that an evaluation or a checkpoint between two rows is nothing; the shares are of the block's whole
time, so that a loader whose every fourth batch is late is seen.

What is usual is the median of the last blocks that were as usual, and their scatter (scaled median absolute deviation;
Huber 1981). A statistic is in units of what it takes to alarm; it counts when two blocks in a row have it, and until
two in a row do not. The first block of an attempt is left out: compilation, workers that start. A lasting change that
is meant is announced (`RecipeChanged`), and then everything is learned anew; so it is after a restart, for another
attempt may have other machines.
"""

import math
from collections.abc import Iterable
from itertools import pairwise

import msgspec

from .sample import StepSample

ROWS = 16
SECONDS = 10.0
"""A block of fewer seconds says nothing: a sag of one second is no sag."""
USUAL_BLOCKS = 32
MIN_BLOCKS = 4
"""Blocks that were seen before anything can be compared with them."""
MAD_TO_SIGMA = 1.4826
SCATTERS = 4.0
"""No deviation counts that is under so many standard deviations of the blocks among each other."""
SAG = math.log(1.0 / 0.8)
"""A run is slow under 80% of its usual speed: what is lost then is more than any tuning of the loader gives back."""
STARVED_SHARE, STARVED_RISE, STARVED_ALWAYS = 0.3, 0.15, 0.5
"""A run waits for data too long when that is so large a share of its time, and by so much more than usual; or always,
when it waits longer than it computes.
"""
COMM_SHARE, COMM_RISE, COMM_ALWAYS = 0.3, 0.15, 0.5
"""The same of collectives. Their share is of their own time and all other time together, as if nothing overlapped: half
of that means that they take as long as everything else, and then no overlap hides them.
"""
STRIDE_RATIO = 1.5
"""Speeds by the clock are compared between rows that lie about as many steps apart."""
MICROSECONDS = 1e6
MOST = 1e15
"""Numbers enter within this, so that no sum of them overflows."""
MOST_LOG = 700.0

CLOCK, DURATION, THROUGHPUT = 1, 2, 3
"""What speed is taken from; the greatest that was ever told in the attempt counts."""


class Row(msgspec.Struct, frozen=True, array_like=True):
    """What a step says of time: seconds, but for its number, its stamp (microseconds) and its throughput."""

    step: int
    at: int
    throughput: float | None
    step_s: float | None
    data_wait_s: float | None
    compute_s: float | None
    comm_s: float | None


class Followed(msgspec.Struct):
    """One quantity, block by block. `usual` has its values in the blocks that were as usual, oldest first. `share` is
    how much of its bound the last block reached, `x` what counts: two blocks in a row. `since` is the first step of
    what stands out now, -1 without it.
    """

    usual: list[float] = []
    value: float | None = None
    share: float = 0.0
    x: float = 0.0
    since: int = -1

    def location(self) -> float | None:
        return _median(self.usual) if len(self.usual) >= MIN_BLOCKS else None

    def rise(self, value: float, least: float) -> float:
        """By how much a value is above the usual, in units of `least` or of the scatter, whichever is more."""
        location = self.location()
        if location is None:
            return 0.0
        scatter = MAD_TO_SIGMA * _median([abs(known - location) for known in self.usual])
        return (value - location) / max(least, SCATTERS * scatter)

    def take(self, value: float, share: float, step: int) -> None:
        """One more block, which began at `step` and reached this share of what it takes to alarm."""
        before, self.share, self.value = self.share, share, value
        self.x = max(before, share) if self.x >= 1.0 else min(before, share)
        if max(before, share) < 0.5:
            self.since = -1
        elif self.since < 0 and share >= 0.5:
            self.since = step
        if max(self.x, share) < 1.0:
            self.usual.append(value)
            del self.usual[:-USUAL_BLOCKS]


class PaceState(msgspec.Struct):
    """`rows` are those of the block that is not complete, behind the last of the one before; one row in `every` is
    kept, of `counted` in all, and `skipped` were not since the last. `source` is what speed is taken from, `stride` how
    many steps rows lie apart. `seen` has the features as of the last block.
    """

    rows: list[Row] = []
    every: int = 1
    counted: int = -1
    skipped: int = 0
    is_first: bool = True
    source: int = CLOCK
    stride: float = 0.0
    speed: Followed = msgspec.field(default_factory=Followed)
    waiting: Followed = msgspec.field(default_factory=Followed)
    comm: Followed = msgspec.field(default_factory=Followed)
    seen: dict[str, float] = {}


def observe(state: PaceState, sample: StepSample) -> dict[str, float]:
    """The features of time as of the last block that is complete; none before there is one to compare."""
    state.counted += 1
    state.skipped += 1
    if state.skipped < state.every:
        return state.seen
    state.skipped = 0
    told = sample.told.get
    row = Row(
        sample.step,
        sample.at,
        told("throughput"),
        told("step_s"),
        told("data_wait_s"),
        told("compute_s"),
        told("comm_s"),
    )
    rows = state.rows
    rows.append(row)
    if len(rows) > ROWS:
        _fill(state, row.at - rows[0].at)
    return state.seen


def _fill(state: PaceState, lasted: int) -> None:
    """As many rows as a block needs: is it long enough?"""
    if lasted >= SECONDS * MICROSECONDS:
        if not state.is_first:
            _judge(state, state.rows)
        _begin_block(state)
        state.is_first = False
    elif lasted < 0:  # the clock was set back
        _begin_block(state)
    elif len(state.rows) > 2 * ROWS:
        state.rows, state.every = state.rows[::2], min(2 * state.every, 2**30)


def _begin_block(state: PaceState) -> None:
    state.rows, state.every, state.counted = state.rows[-1:], 1, 0


def _judge(state: PaceState, block: list[Row]) -> None:
    begun = block[1].step
    _speed(state, block, begun)
    clock = (block[-1].at - block[0].at) / MICROSECONDS / state.counted
    if (share := _waiting_share(block[1:], clock)) is not None:
        rise = state.waiting.rise(share, STARVED_RISE)
        state.waiting.take(share, max(min(share / STARVED_SHARE, rise), share / STARVED_ALWAYS), begun)
    if (share := _comm_share(block[1:], clock)) is not None:
        rise = state.comm.rise(share, COMM_RISE)
        state.comm.take(share, max(min(share / COMM_SHARE, rise), share / COMM_ALWAYS), begun)
    state.seen = _features(state)


def _features(state: PaceState) -> dict[str, float]:
    seen: dict[str, float] = {}
    for followed, name, statistic in (
        (state.waiting, "data_wait", "data_starved"),
        (state.comm, "comm", "comm_bound"),
    ):
        if followed.value is not None:
            seen[f"{name}_share"], seen[statistic] = followed.value, followed.x
            if (usual := followed.location()) is not None:
                seen[f"{name}_usual"] = usual
    slowness, usual_slowness = state.speed.value, state.speed.location()
    if slowness is not None and usual_slowness is not None:
        seen["throughput_share"] = math.exp(min(usual_slowness - slowness, MOST_LOG))
        seen["throughput_sag"] = state.speed.x
    since = [followed.since for followed in (state.speed, state.waiting, state.comm) if followed.since >= 0]
    if since:
        seen["inefficient_since"] = float(min(since))
    return seen


# ------------------------------------------------------------------------------------------------- what a block says


def _speed(state: PaceState, block: list[Row], begun: int) -> None:
    throughputs = _usable(row.throughput for row in block[1:])
    durations = _usable(row.step_s for row in block[1:])
    source = THROUGHPUT if throughputs else DURATION if durations else CLOCK
    if source < state.source:
        return  # it is told now and then
    if source > state.source:
        state.source, state.speed = source, Followed()
    if source == THROUGHPUT:
        slowness = -math.log(_median(throughputs))
    elif source == DURATION:
        slowness = math.log(_median(durations))
    else:
        by_clock = _by_clock(state, block)
        if by_clock is None:
            return
        slowness = by_clock
    state.speed.take(slowness, state.speed.rise(slowness, SAG), begun)


def _by_clock(state: PaceState, block: list[Row]) -> float | None:
    """The logarithm of the seconds that a step takes, by the stamps of rows; None where those say nothing."""
    pairs = list(pairwise(block))
    taken = _usable(
        (later.at - row.at) / MICROSECONDS / (later.step - row.step) for row, later in pairs if later.step > row.step
    )
    if len(taken) < ROWS // 2:
        return None
    stride = (block[-1].step - block[0].step) / state.counted
    if state.stride and not 1.0 / STRIDE_RATIO < stride / state.stride < STRIDE_RATIO:
        state.speed = Followed()
    state.stride = stride
    return math.log(_median(taken))


def _waiting_share(rows: list[Row], clock: float) -> float | None:
    waited, total = 0.0, 0.0
    for row in rows:
        if (wait := _number(row.data_wait_s)) is not None:
            compute, step = _number(row.compute_s), _number(row.step_s)
            waited += wait
            total += wait + compute if compute is not None else max(wait, clock if step is None else step)
    return waited / total if total > 0.0 else None


def _comm_share(rows: list[Row], clock: float) -> float | None:
    taken, total = 0.0, 0.0
    for row in rows:
        if (comm := _number(row.comm_s)) is not None:
            compute, step = _number(row.compute_s), _number(row.step_s)
            taken += comm
            if compute is not None:
                total += comm + compute + (_number(row.data_wait_s) or 0.0)
            else:
                total += max(comm, clock if step is None else step)
    return taken / total if total > 0.0 else None


def _number(value: float | None) -> float | None:
    """A duration that can be one."""
    return None if value is None or not 0.0 <= value < math.inf else min(value, MOST)


def _usable(values: Iterable[float | None]) -> list[float]:
    """Those that have a logarithm."""
    return [value for value in values if value is not None and 0.0 < value < math.inf]


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


# ------------------------------------------------------------------------------------------------------ another time


def restart(state: PaceState) -> None:
    """Another attempt, or another recipe: what was usual is not any more."""
    fresh = PaceState()
    for name in PaceState.__struct_fields__:
        setattr(state, name, getattr(fresh, name))
