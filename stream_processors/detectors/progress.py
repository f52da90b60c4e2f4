"""A loss that stopped falling while it was still falling steadily: a plateau, which is no convergence.

The end of a training is flat too. What tells the two apart is how they begin: a loss that converges slows down before.
So the fall of the quarters of one window is carried on into the longer one behind it, ever slower, and a plateau is
where nothing of that came. A loss that was flat from its first step on says nothing: it may have been trained before.

The windows are counted in blocks, of which there are at most `MOST`: when they are full, neighbours become one, so that
a block is a share of the run's length and every scale is looked at once. Losses that are not positive are left alone.
"""

import math
from itertools import pairwise
from statistics import fmean, median

import msgspec

from .bounds import MOST_LOG, MOST_SHARE
from .sample import StepSample
from .usual import noise_of_bends

FIRST_SIZE = 8
"""Steps of a block at first."""
MOST = 64
QUARTER = 3
FALLING, FLAT = 4 * QUARTER, 16
"""Blocks in which the loss still falls, and those in which it does not."""
PARTS = 4
STEADY = 0.75
"""Every quarter falls by at least this share of an average one."""
SURE = 8.0
"""The fall that is expected, in standard deviations of a block."""
STUCK = 0.1
"""The parts of the flat window differ by less than this share of what is expected."""
RESUMED = 0.5
"""It goes on when it has fallen by this share of what was expected."""
RATE_MOVED = 2.0
"""A learning rate that was cut by such a factor, or moves by it while the loss stands, explains it."""


class Block(msgspec.Struct, frozen=True, array_like=True):
    """The median of the log losses from step `first` to step `last`, and the learning rate at its end."""

    value: float
    rate: float | None
    first: int
    last: int


class ProgressState(msgspec.Struct):
    """`values` are those of the block that is not complete yet; a block takes `size` of them. While the loss is stuck,
    `since` is the first step at which it was, `level` its value then (a logarithm) and `expected` by how much it should
    have fallen.
    """

    blocks: list[Block] = []
    values: list[float] = []
    begun_at: int = 0
    size: int = FIRST_SIZE
    since: int = -1
    level: float = 0.0
    expected: float = 0.0
    seen: dict[str, float] = {}


def observe(state: ProgressState, sample: StepSample) -> dict[str, float]:
    """`plateau`, 1 being one, as of the last complete block, and what it is judged by."""
    loss = sample.loss
    if loss is None or not 0.0 < loss < math.inf:
        return state.seen
    if not state.values:
        state.begun_at = sample.step
    state.values.append(math.log(loss))
    if len(state.values) < state.size:
        return state.seen
    state.blocks.append(Block(median(state.values), sample.told.get("lr"), state.begun_at, sample.step))
    state.values = []
    state.seen = _judge(state)
    if len(state.blocks) == MOST:
        _merge(state)
    return state.seen


def _merge(state: ProgressState) -> None:
    """Every two neighbours become one block."""
    pairs = zip(state.blocks[::2], state.blocks[1::2], strict=True)
    state.blocks = [Block((early.value + late.value) / 2.0, late.rate, early.first, late.last) for early, late in pairs]
    state.size *= 2


def _judge(state: ProgressState) -> dict[str, float]:
    if state.since >= 0:
        return _watch_stuck(state)
    if len(state.blocks) < FALLING + FLAT:
        return {}
    falling, flat = state.blocks[-FALLING - FLAT : -FLAT], state.blocks[-FLAT:]
    expected = _expected_fall(falling)
    share = 0.0
    if expected > 0.0 and not _rate_explains(falling, flat):
        share = min(MOST_SHARE, STUCK * expected / max(_spread(flat), 1e-12))
    if share < 1.0:
        return {"plateau": share}
    state.since, state.expected = flat[0].first, expected
    state.level = fmean(block.value for block in flat)
    return _watch_stuck(state)


def _expected_fall(falling: list[Block]) -> float:
    """By how much the loss would go on falling within the flat window; 0 where that is not sure.

    Each quarter falls by a constant share of what the one before did, as in an exponential approach; a power law would
    fall by more. Without a learning rate it may be a schedule that comes to its end: then each falls by a constant
    less, and half of that counts.
    """
    means = [fmean(block.value for block in falling[at : at + QUARTER]) for at in range(0, FALLING, QUARTER)]
    first, second, last = (early - late for early, late in pairwise(means))
    if min(first, second, last) < STEADY * (first + second + last) / 3.0 or last <= 0.0:
        return 0.0
    ratio, less = min(1.0, math.sqrt(last / first)), max(0.0, (first - last) / 2.0)
    quarters = range(2, FLAT // QUARTER + 1)  # the first of them lies half before the flat window
    if falling[0].rate is None:
        expected = 0.5 * math.fsum(max(0.0, last - less * number) for number in quarters)
    else:
        expected = math.fsum(last * ratio**number for number in quarters)
    return expected if expected >= SURE * noise_of_bends([block.value for block in falling]) else 0.0


def _spread(flat: list[Block]) -> float:
    size = FLAT // PARTS
    means = [fmean(block.value for block in flat[at : at + size]) for at in range(0, FLAT, size)]
    return max(means) - min(means)


def _rate_explains(falling: list[Block], flat: list[Block]) -> bool:
    before = [block.rate for block in falling if block.rate is not None]
    now = [block.rate for block in flat if block.rate is not None]
    if not before or not now:
        return False
    return max(*before, *now) >= RATE_MOVED * min(now)


def _watch_stuck(state: ProgressState) -> dict[str, float]:
    fallen = state.level - fmean(block.value for block in state.blocks[-QUARTER:])
    if fallen >= RESUMED * state.expected:
        state.since = -1
        return {"plateau": 0.0}
    level = math.exp(min(state.level, MOST_LOG))
    told = {"plateau_since": float(state.since), "plateau_level": level, "plateau_expected": state.expected}
    told["plateau_window"] = float((FALLING + FLAT) * state.size)
    return {"plateau": 1.0} | told


def onset(state: ProgressState) -> int:
    """The first step at which the loss was stuck; -1 while it is not."""
    return state.since


def rewind(state: ProgressState, step: int) -> None:
    """The run went back to `step`: keep only what was seen up to there."""
    state.blocks = [block for block in state.blocks if block.last <= step]
    state.values, state.seen = [], {}
    state.since = -1


def restart(state: ProgressState) -> None:
    """The recipe changed: what was expected is not any more."""
    rewind(state, -1)
    state.size = FIRST_SIZE
