"""A loss that climbs too slowly for any single step to stand out: a cumulative sum over the medians of blocks.

Page's CUSUM (1954) of the blocks' z scores against the blocks before, among which a block counts only while nothing
climbs. The bound is for the false-alarm budget: `make bench-detection` shows what it costs and finds. Called by
`loss` for each step.
"""

import math
from statistics import median
from typing import NamedTuple

import msgspec

from .bounds import ABSTAINING, MOST_SHARE
from .usual import BLOCK, BLOCK_NOISE, MIN_BLOCKS, Block, scatter_of_rises

REFERENCE = 12
SLACK = 0.75
BOUND = 8.0
MOST_Z = 6.0
"""No block counts for more: a single high one is a matter of the z score, not of drift."""
LAG = 4
LAG_WEIGHT = 1.5
LEAST_CLIMB = 0.05
"""In logarithms: 5 percent. Less is no divergence, however sure."""
LEAST_NOISES = 2.0
"""... and so many times the noise of a single step."""
RATE_ROSE, EXPLAINED, STEEP = 1.5, 0.25, 0.05
"""A learning rate that is so many times the lowest in the reference explains what the loss has risen by since, up to so
much in logarithms, and to so much from block to block: re-warmed and cyclical rates take the loss along slowly.
"""
NORM_ROSE = 1.5
"""The factor by which the gradient norm has risen, where it bears a climb out."""
CALM_BLOCKS = 2
SUSPECT = 0.5
"""From this share of the bound on, a climb counts as evidence."""


class Beside(NamedTuple):
    """What is known beside the loss: the last learning rate (infinite: unknown) and the usual gradient norm."""

    rate: float
    norm: float | None


class Drift(msgspec.Struct):
    """`total` is the sum; `since` the first step of the block at which it left zero, -1 while it is there, and `norm`
    the gradient norm that was usual before (None: not known), by which the climb may be `borne_out`. `values` are those
    of the block that is not complete yet, which began at step `begun_at`; `rates` are the learning rates at the ends of
    the blocks of the reference.
    """

    reference: list[Block] = []
    rates: list[float] = []
    values: list[float] = []
    begun_at: int = 0
    total: float = 0.0
    rise: float = 0.0
    since: int = -1
    calm: int = 0
    norm: float | None = None
    borne_out: bool = False

    def observe(self, step: int, value: float) -> Block | None:
        """One more value, whether anything else learns from it or not; the block that it completes is to be judged."""
        if not self.values:
            self.begun_at = step
        self.values.append(value)
        if len(self.values) < BLOCK:
            return None
        block, self.values = Block(median(self.values), self.begun_at, step), []
        return block

    def judge(self, block: Block, recent: list[Block], noise: float, beside: Beside) -> None:
        """One more block. `recent` are the blocks that the baseline has learned, `noise` is that of a single step."""
        if len(self.reference) < MIN_BLOCKS:
            self.norm = beside.norm
            self._learn(block, beside)
            return
        newer = self.reference[len(self.reference) // 2 :]
        location = median([known.median for known in newer])
        z = (block.median - location) / self._scale(recent, noise)
        self.rise = block.median - location
        if self._explained(block, beside.rate):
            z = 0.0
        self.total = max(0.0, min(self.total + min(z, MOST_Z) - SLACK, MOST_SHARE * BOUND))
        self.calm = self.calm + 1 if z < 1.0 else 0
        if self.calm >= CALM_BLOCKS:
            self.total = 0.0
        self._follow_climb(block, beside.norm)
        if z < 1.0 or self.total <= BOUND / 3.0:
            self._learn(block, beside)

    def _follow_climb(self, block: Block, norm: float | None) -> None:
        if self.total == 0.0:
            self.since, self.norm, self.borne_out = -1, norm, False
            return
        self.since = self.since if self.since >= 0 else block.first
        self.borne_out = norm is not None and self.norm is not None and norm >= NORM_ROSE * self.norm

    def _learn(self, block: Block, beside: Beside) -> None:
        self.reference.append(block)
        self.rates.append(beside.rate)
        del self.reference[:-REFERENCE], self.rates[:-REFERENCE]

    def _explained(self, block: Block, rate: float) -> bool:
        """By a learning rate; one that is not known is infinite, and explains nothing."""
        if not RATE_ROSE * min(self.rates) <= rate < math.inf:
            return False
        lowest = min([known.median for known in self.reference])
        return block.median - lowest < EXPLAINED and block.median - self.reference[-1].median < STEEP

    def share(self, noise: float, least: float) -> float:
        """How much of its bound the sum has reached; under 1 unless the rise is large enough to matter."""
        share = self.total / BOUND
        matters = self.rise >= max(least, LEAST_NOISES * noise)
        return share if matters else min(share, ABSTAINING)

    def rewind(self, step: int) -> None:
        kept = sum(1 for block in self.reference if block.last <= step)
        del self.reference[kept:], self.rates[kept:]
        self.values = []
        self.total, self.rise, self.since, self.calm = 0.0, 0.0, -1, 0
        self.norm, self.borne_out = None, False

    def _scale(self, recent: list[Block], noise: float) -> float:
        scale = max(scatter_of_rises(self.reference, 1) / math.sqrt(2.0), BLOCK_NOISE * noise)
        if len(recent) >= LAG + MIN_BLOCKS:
            scale = max(scale, LAG_WEIGHT * scatter_of_rises(recent, LAG) / math.sqrt(2.0))
        return scale
