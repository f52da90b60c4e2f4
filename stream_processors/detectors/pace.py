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
from collections.abc import Sequence
from itertools import pairwise
from statistics import median_high

import msgspec

from .bounds import MOST_LOG
from .sample import StepSample
from .usual import MAD_TO_SIGMA

ROWS = 16
SECONDS = 10.0
"""A block of fewer seconds says nothing: a sag of one second is no sag."""
USUAL_BLOCKS = 32
MIN_BLOCKS = 4
"""Blocks that were seen before anything can be compared with them."""
EARLY_BLOCKS, LEARNED_EACH = 8, 4
"""What is usual is looked at anew with each of the first blocks, then with every fourth: it moves slowly."""
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

CLOCK, DURATION, THROUGHPUT = 1, 2, 3
"""What speed is taken from; the greatest that was ever told in the attempt counts."""


Row = tuple[int, int, float | None, float | None, float | None, float | None, float | None]
"""What a step says of time: its number, its stamp (microseconds), and what rank 0 told of `throughput`, `step_s`,
`data_wait_s`, `compute_s` and `comm_s`.
"""
Told = Sequence[float | None]
"""One column of a block."""


class Followed(msgspec.Struct):
    """One quantity, block by block. `usual` has its values in the blocks that were as usual, oldest first; `location`
    and `scatter` are theirs, as of the last `LEARNED_EACH`th. `share` is how much of its bound the last block reached,
    `x` what counts: two blocks in a row. `since` is the first step of what stands out now, -1 without it.
    """

    usual: list[float] = []
    learned: int = 0
    location: float | None = None
    scatter: float = 0.0
    value: float | None = None
    share: float = 0.0
    x: float = 0.0
    since: int = -1

    def rise(self, value: float, least: float) -> float:
        """By how much a value is above the usual, in units of `least` or of the scatter, whichever is more."""
        if self.location is None:
            return 0.0
        return (value - self.location) / max(least, SCATTERS * self.scatter)

    def take(self, value: float, share: float, step: int) -> None:
        """One more block, which began at `step` and reached this share of what it takes to alarm."""
        before, self.share, self.value = self.share, share, value
        self.x = max(before, share) if self.x >= 1.0 else min(before, share)
        if max(before, share) < 0.5:
            self.since = -1
        elif self.since < 0 and share >= 0.5:
            self.since = step
        if max(self.x, share) < 1.0:
            self._learn(value)

    def _learn(self, value: float) -> None:
        self.usual.append(value)
        self.learned += 1
        if len(self.usual) > USUAL_BLOCKS:
            del self.usual[0]
        if len(self.usual) >= MIN_BLOCKS and (self.learned <= EARLY_BLOCKS or self.learned % LEARNED_EACH == 0):
            self.location = location = median_high(self.usual)
            self.scatter = MAD_TO_SIGMA * median_high([abs(known - location) for known in self.usual])


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
    rows, get = state.rows, sample.told.get
    said = (get("throughput"), get("step_s"), get("data_wait_s"), get("compute_s"), get("comm_s"))
    rows.append((sample.step, sample.at, *said))
    if len(rows) > ROWS:
        _fill(state, sample.at - rows[0][1])
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
    """The last row of the block before only says when this one began."""
    throughput, step_s, wait, compute, comm = (column[1:] for column in list(zip(*block, strict=True))[2:])
    begun = block[1][0]
    _follow_speed(state, block, _usable(throughput), _usable(step_s))
    clock = (block[-1][1] - block[0][1]) / MICROSECONDS / state.counted
    if (share := _waiting_share(wait, compute, step_s, clock)) is not None:
        rise = state.waiting.rise(share, STARVED_RISE)
        state.waiting.take(share, max(min(share / STARVED_SHARE, rise), share / STARVED_ALWAYS), begun)
    if (share := _comm_share(comm, wait, compute, step_s, clock)) is not None:
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
            if followed.location is not None:
                seen[f"{name}_usual"] = followed.location
    slowness, usual_slowness = state.speed.value, state.speed.location
    if slowness is not None and usual_slowness is not None:
        seen["throughput_share"] = math.exp(min(usual_slowness - slowness, MOST_LOG))
        seen["throughput_sag"] = state.speed.x
    since = [followed.since for followed in (state.speed, state.waiting, state.comm) if followed.since >= 0]
    if since:
        seen["inefficient_since"] = float(min(since))
    return seen


# ------------------------------------------------------------------------------------------------- what a block says


def _follow_speed(state: PaceState, block: list[Row], throughputs: list[float], durations: list[float]) -> None:
    source = THROUGHPUT if throughputs else DURATION if durations else CLOCK
    if source < state.source:
        return  # it is told now and then
    if source > state.source:
        state.source, state.speed = source, Followed()
    if source == THROUGHPUT:
        slowness: float | None = -math.log(median_high(throughputs))
    elif source == DURATION:
        slowness = math.log(median_high(durations))
    else:
        slowness = _by_clock(state, block)
    if slowness is not None:
        state.speed.take(slowness, state.speed.rise(slowness, SAG), block[1][0])


def _by_clock(state: PaceState, block: list[Row]) -> float | None:
    """The logarithm of the seconds that a step takes, by the stamps of rows; None where those say nothing."""
    taken = _usable([(later[1] - row[1]) / (later[0] - row[0]) for row, later in pairwise(block) if later[0] > row[0]])
    if len(taken) < ROWS // 2:
        return None
    stride = (block[-1][0] - block[0][0]) / state.counted
    if state.stride and not 1.0 / STRIDE_RATIO < stride / state.stride < STRIDE_RATIO:
        state.speed = Followed()
    state.stride = stride
    return math.log(median_high(taken) / MICROSECONDS)


def _waiting_share(wait: Told, compute: Told, step_s: Told, clock: float) -> float | None:
    """Of the time of the rows that tell how long they waited; what a step took in all is told, or by the clock."""
    waits, computes = _sum(wait), _sum(compute)
    if waits is not None and computes is not None:
        return waits / (waits + computes) if waits + computes > 0.0 else None
    waited = whole = 0.0
    for index, told in enumerate(wait):
        if (seconds := _number(told)) is not None:
            computed, step = _number(compute[index]), _number(step_s[index])
            waited += seconds
            whole += seconds + computed if computed is not None else max(seconds, clock if step is None else step)
    return waited / whole if whole > 0.0 else None


def _comm_share(comm: Told, wait: Told, compute: Told, step_s: Told, clock: float) -> float | None:
    comms, waits, computes = _sum(comm), _sum(wait), _sum(compute)
    if comms is not None and waits is not None and computes is not None:
        whole = comms + waits + computes
        return comms / whole if whole > 0.0 else None
    taken = whole = 0.0
    for index, told in enumerate(comm):
        if (seconds := _number(told)) is not None:
            computed, step = _number(compute[index]), _number(step_s[index])
            taken += seconds
            if computed is not None:
                whole += seconds + computed + (_number(wait[index]) or 0.0)
            else:
                whole += max(seconds, clock if step is None else step)
    return taken / whole if whole > 0.0 else None


def _sum(column: Told) -> float | None:
    """Of a column that every row has and whose values can be times, as nearly always; None where it is not so."""
    if None in column:
        return None
    total = 0.0
    for value in column:  # one after the other, as in `gathering`
        total += value or 0.0
    return total if total < MOST and min(column) >= 0.0 else None  # type: ignore[type-var,operator]  # no None is in it


def _number(value: float | None) -> float | None:
    """A duration that can be one."""
    return None if value is None or not 0.0 <= value < math.inf else min(value, MOST)


def _usable(values: Told) -> list[float]:
    """Those that have a logarithm."""
    return [value for value in values if value is not None and 0.0 < value < math.inf]


# ------------------------------------------------------------------------------------------------------ another time


def restart(state: PaceState) -> None:
    """Another attempt, or another recipe: what was usual is not any more."""
    fresh = PaceState()
    for name in PaceState.__struct_fields__:
        setattr(state, name, getattr(fresh, name))
