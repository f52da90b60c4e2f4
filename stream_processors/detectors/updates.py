"""What still reaches the weights: a gradient that vanishes while the loss stands still, and updates out of proportion.

Watched in medians of blocks of `BLOCK` steps, each against the blocks that are half a window back. A norm falls by
itself, tenfold and more, as a training goes on; then the loss falls too. Where it falls to a hundredth and the loss has
stood still since, nothing is learned any more. The size of the update over that of the weights, where it is logged, is
about 1e-3 in a training that goes well (A. Karpathy, "Building makemore Part 3: Activations & Gradients, BatchNorm",
2022); above a tenth, or under 1e-7, and far from what it was in this run, it is evidence by itself.
"""

import math
from statistics import median
from typing import NamedTuple

import msgspec

from .sample import StepSample

BLOCK = 16
BLOCKS = 32
BEFORE = 8
"""Blocks of the older half that must be known before anything is compared with them."""
VANISHED = math.log(100.0)
STIRRED = math.log(3.0)
"""A norm that has not fallen by so much has not begun to vanish."""
STILL = 0.02
"""A loss within so much of itself, beside its scatter, stands still."""
LARGE, SMALL = math.log(0.1), math.log(1e-7)
FAR = math.log(10.0)
"""... and so far from what was usual in this run, twice that far for a small one."""
MOST_SHARE = 9.0
HUGE, MOST_LOG = 1e150, 700.0
"""Losses, and logarithms, are taken within this, so that nothing overflows."""


class Row(NamedTuple):
    """One step as it was logged."""

    loss: float | None
    norm: float | None
    ratio: float | None
    rate: float | None


class Levels(msgspec.Struct, frozen=True, array_like=True):
    """Medians of a block of steps: of the loss, and of the logarithms of the others; None where too little was logged.
    `scatter` is that of the loss.
    """

    first: int
    last: int
    loss: float | None
    scatter: float
    norm: float | None
    ratio: float | None
    rate: float | None


class UpdateState(msgspec.Struct):
    """`blocks` are the last ones in which nothing had vanished, `rows` those of the block that is not complete yet,
    which began at step `begun_at`. `earlier` is the share that the block before had vanished by.
    """

    blocks: list[Levels] = []
    rows: list[Row] = []
    begun_at: int = 0
    earlier: float = 0.0
    since: int = -1
    seen: dict[str, float] = {}


def observe(state: UpdateState, sample: StepSample) -> dict[str, float]:
    """`grad_vanishing` and `update_excess`, 1 being an alarm, as of the last complete block."""
    if not state.rows:
        state.begun_at = sample.step
    told = sample.told
    state.rows.append(Row(sample.loss, sample.grad_norm, told.get("update_ratio"), told.get("lr")))
    if len(state.rows) == BLOCK:
        _judge(state, _levels(state, sample.step))
        state.rows = []
    return state.seen


def _levels(state: UpdateState, last: int) -> Levels:
    losses = [max(-HUGE, min(row.loss, HUGE)) for row in state.rows if row.loss is not None and math.isfinite(row.loss)]
    loss = median(losses) if 2 * len(losses) >= BLOCK else None
    scatter = median([abs(known - loss) for known in losses]) if loss is not None else 0.0
    norm, ratio, rate = (_log_median([row[column] for row in state.rows]) for column in (1, 2, 3))
    return Levels(state.begun_at, last, loss, scatter, norm, ratio, rate)


def _log_median(values: list[float | None]) -> float | None:
    """None where fewer than half of the values have a logarithm: norms that are logged as 0 say nothing."""
    logs = [math.log(value) for value in values if value is not None and 0.0 < value < math.inf]
    return median(logs) if 2 * len(logs) >= BLOCK else None


def _judge(state: UpdateState, now: Levels) -> None:
    before = state.blocks[: len(state.blocks) // 2]
    vanishing = max(_norm_vanishes(state, before, now), _ratio_vanishes(state, before, now))
    excess = _ratio_exceeds(before, now)
    lasting = min(vanishing, state.earlier)
    state.earlier = vanishing
    if vanishing < 1.0 and excess < 1.0:
        state.blocks.append(now)
        del state.blocks[:-BLOCKS]
        state.since = -1
    elif state.since < 0:
        state.since = now.first
    state.seen = _seen(before, now, lasting, excess)


def _seen(before: list[Levels], now: Levels, vanishing: float, excess: float) -> dict[str, float]:
    seen = {"grad_vanishing": vanishing} if len(before) >= BEFORE else {}
    usual = _usual([known.norm for known in before])
    if usual is not None:
        seen["grad_norm_before"] = math.exp(min(usual, MOST_LOG))
    if now.ratio is not None:
        seen["update_excess"] = excess
    return seen


def _usual(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if len(known) >= BEFORE else None


def _norm_vanishes(state: UpdateState, before: list[Levels], now: Levels) -> float:
    """The share of the fall that counts, 0 while the loss moves."""
    usual = _usual([known.norm for known in before])
    if usual is None or now.norm is None:
        return 0.0
    high = (known for known in reversed(state.blocks) if known.norm is not None and known.norm > usual - STIRRED)
    since = next(high, None)
    if since is None or not _stands_still(since, now):
        return 0.0
    return max(0.0, min((usual - now.norm) / VANISHED, MOST_SHARE))


def _ratio_vanishes(state: UpdateState, before: list[Levels], now: Levels) -> float:
    """Updates of nothing, though the learning rate is what it was; without the rate that cannot be told."""
    ratio, rate = _usual([known.ratio for known in before]), _usual([known.rate for known in before])
    if ratio is None or rate is None or now.ratio is None or now.rate is None or now.rate < rate - FAR:
        return 0.0
    still = _stands_still(state.blocks[-1], now)
    return 1.0 if now.ratio <= SMALL and now.ratio <= ratio - 2.0 * FAR and still else 0.0


def _ratio_exceeds(before: list[Levels], now: Levels) -> float:
    ratio = _usual([known.ratio for known in before])
    if ratio is None or now.ratio is None:
        return 0.0
    return max(0.0, min(math.exp(min(now.ratio - LARGE, FAR)), (now.ratio - ratio) / FAR, MOST_SHARE))


def _stands_still(then: Levels, now: Levels) -> bool:
    if then.loss is None or now.loss is None:
        return False
    return abs(now.loss - then.loss) <= STILL * abs(then.loss) + max(then.scatter, now.scatter)


def onset(state: UpdateState) -> int:
    """The first step of the block in which it began; -1 while nothing is wrong."""
    return state.since


def rewind(state: UpdateState, step: int) -> None:
    """The run went back to `step`: keep only what was seen up to there."""
    state.blocks = [block for block in state.blocks if block.last <= step]
    state.rows, state.earlier, state.since, state.seen = [], 0.0, -1, {}


def restart(state: UpdateState) -> None:
    """The recipe changed: what was usual is not any more."""
    rewind(state, -1)
