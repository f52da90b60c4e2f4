"""What still reaches the weights: a gradient that vanishes while the loss stands still, and updates out of proportion.

Watched in medians of blocks of `BLOCK` steps, each against the blocks that are half a window back. A norm falls by
itself, tenfold and more, as a training goes on; then the loss falls too. Where it falls to a hundredth and the loss has
stood still since, nothing is learned any more. The size of the update over that of the weights, where it is logged, is
about 1e-3 in a training that goes well (A. Karpathy, "Building makemore Part 3: Activations & Gradients, BatchNorm",
2022); above a tenth, or under 1e-7, and far from what it was in this run, it is evidence by itself.
"""

import math
from collections.abc import Sequence
from statistics import median, median_high

import msgspec

from .bounds import HUGE, MOST_LOG, MOST_SHARE
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


Row = tuple[float | None, float | None, float | None]
"""Loss, gradient norm and update ratio of one step, as they were logged."""


class Levels(msgspec.Struct, frozen=True, array_like=True):
    """Medians of a block of steps: the loss with its scatter, and the logarithms of norm and ratio; None where too
    little was logged. `rate` is that of the last learning rate.
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
    which began at step `begun_at`. `earlier` is the share by which the one before had vanished, `since` the first step
    after the last block in which the norm had not begun to.
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
    state.rows.append((sample.loss, sample.grad_norm, told.get("update_ratio")))
    if len(state.rows) == BLOCK:
        _judge(state, _levels(state, sample.step, told.get("lr")))
        state.rows = []
    return state.seen


def _levels(state: UpdateState, last: int, rate: float | None) -> Levels:
    losses, norms, ratios = zip(*state.rows, strict=True)
    loss, scatter = _middle(losses, -math.inf), 0.0
    if loss is not None:
        loss = max(-HUGE, min(loss, HUGE))
        scatter = sorted([abs(known - loss) for known in losses if known is not None])[BLOCK // 4]
    return Levels(
        state.begun_at, last, loss, scatter, _log(_middle(norms, 0.0)), _log(_middle(ratios, 0.0)), _log(rate)
    )


def _middle(values: Sequence[float | None], above: float) -> float | None:
    """Of those that are finite and above this; None where they are fewer than half. Norms that are logged as 0 have no
    logarithm and say nothing.
    """
    known = [value for value in values if value is not None and above < value < math.inf]
    return median_high(known) if 2 * len(known) >= BLOCK else None


def _log(value: float | None) -> float | None:
    return math.log(value) if value is not None and 0.0 < value < math.inf else None


def _judge(state: UpdateState, now: Levels) -> None:
    before = state.blocks[: len(state.blocks) // 2]
    usual = Levels(
        first=-1,
        last=-1,
        loss=None,
        scatter=0.0,
        norm=_usual([known.norm for known in before]),
        ratio=_usual([known.ratio for known in before]),
        rate=_usual([known.rate for known in before]),
    )
    vanishing = max(_norm_vanishes(state, usual, now), _ratio_vanishes(state, usual, now))
    excess = _ratio_exceeds(usual, now)
    lasting = min(vanishing, state.earlier)
    state.earlier = vanishing
    if vanishing < 1.0 and excess < 1.0:
        state.blocks.append(now)
        del state.blocks[:-BLOCKS]
    state.seen = _seen(usual, now, lasting, excess)
    if lasting >= 1.0:
        state.seen["vanishing_since"] = float(state.since)


def _seen(usual: Levels, now: Levels, vanishing: float, excess: float) -> dict[str, float]:
    seen = {}
    if usual.norm is not None:
        seen = {"grad_vanishing": vanishing, "grad_norm_before": math.exp(min(usual.norm, MOST_LOG))}
    if usual.ratio is not None and now.ratio is not None:
        seen |= {"grad_vanishing": vanishing, "update_excess": excess}
    return seen


def _usual(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if len(known) >= BEFORE else None


def _norm_vanishes(state: UpdateState, usual: Levels, now: Levels) -> float:
    """The share of the fall that counts, 0 while the loss moves."""
    if usual.norm is None or now.norm is None or now.norm > usual.norm - STIRRED:
        return 0.0
    stirred = usual.norm - STIRRED
    high = (known for known in reversed(state.blocks) if known.norm is not None and known.norm > stirred)
    since = next(high, None)
    if since is None or not _stands_still(since, now):
        return 0.0
    state.since = since.last + 1
    return min((usual.norm - now.norm) / VANISHED, MOST_SHARE)


def _ratio_vanishes(state: UpdateState, usual: Levels, now: Levels) -> float:
    """Updates of nothing, though the learning rate is what it was; without the rate that cannot be told."""
    if usual.ratio is None or usual.rate is None or now.ratio is None or now.rate is None:
        return 0.0
    is_tiny = now.ratio <= min(SMALL, usual.ratio - 2.0 * FAR) and now.rate >= usual.rate - FAR
    if not (is_tiny and _stands_still(state.blocks[-1], now)):
        return 0.0
    state.since = state.blocks[-1].last + 1
    return 1.0


def _ratio_exceeds(usual: Levels, now: Levels) -> float:
    if usual.ratio is None or now.ratio is None:
        return 0.0
    return max(0.0, min(math.exp(min(now.ratio - LARGE, FAR)), (now.ratio - usual.ratio) / FAR, MOST_SHARE))


def _stands_still(then: Levels, now: Levels) -> bool:
    if then.loss is None or now.loss is None:
        return False
    return abs(now.loss - then.loss) <= STILL * abs(then.loss) + max(then.scatter, now.scatter)


def rewind(state: UpdateState, step: int) -> None:
    """The run went back to `step`: keep only what was seen up to there."""
    state.blocks = [block for block in state.blocks if block.last <= step]
    state.rows, state.earlier, state.since, state.seen = [], 0.0, -1, {}


def restart(state: UpdateState) -> None:
    """The recipe changed: what was usual is not any more."""
    rewind(state, -1)
