"""A loss that climbs too slowly for any single step to stand out: a cumulative sum over the medians of blocks.

Page's CUSUM (1954) of the blocks' z scores against the blocks before, among which a block counts only while nothing
climbs. The bound is for the false-alarm budget: `make bench-detection` shows what it costs and finds. Called by
`loss` for each step.
"""

import math
from statistics import median

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
CALM_BLOCKS = 2
SUSPECT = 0.5
"""From this share of the bound on, a climb counts as evidence."""


class Drift(msgspec.Struct):
    """`total` is the sum; `since` the first step of the block at which it left zero, -1 while it is there. `values` are
    those of the block that is not complete yet, which began at step `begun_at`.
    """

    reference: list[Block] = []
    values: list[float] = []
    begun_at: int = 0
    total: float = 0.0
    rise: float = 0.0
    since: int = -1
    calm: int = 0

    def observe(self, step: int, value: float, recent: list[Block], noise: float) -> None:
        """One more value, whether anything else learns from it or not."""
        if not self.values:
            self.begun_at = step
        self.values.append(value)
        if len(self.values) == BLOCK:
            self._add(Block(median(self.values), self.begun_at, step), recent, noise)
            self.values = []

    def _add(self, block: Block, recent: list[Block], noise: float) -> None:
        """One more block. `recent` are the blocks that the baseline has learned, `noise` is that of a single step."""
        if len(self.reference) < MIN_BLOCKS:
            self.reference.append(block)
            return
        newer = self.reference[len(self.reference) // 2 :]
        location = median([known.median for known in newer])
        z = (block.median - location) / self._scale(recent, noise)
        self.rise = block.median - location
        self.total = max(0.0, min(self.total + min(z, MOST_Z) - SLACK, MOST_SHARE * BOUND))
        self.calm = self.calm + 1 if z < 1.0 else 0
        if self.calm >= CALM_BLOCKS:
            self.total = 0.0
        self.since = -1 if self.total == 0.0 else self.since if self.since >= 0 else block.first
        if z < 1.0 or self.total <= BOUND / 3.0:
            self.reference.append(block)
            del self.reference[:-REFERENCE]

    def share(self, noise: float, least: float) -> float:
        """How much of its bound the sum has reached; under 1 unless the rise is large enough to matter."""
        share = self.total / BOUND
        matters = self.rise >= max(least, LEAST_NOISES * noise)
        return share if matters else min(share, ABSTAINING)

    def rewind(self, step: int) -> None:
        self.reference = [block for block in self.reference if block.last <= step]
        self.values = []
        self.total, self.rise, self.since, self.calm = 0.0, 0.0, -1, 0

    def _scale(self, recent: list[Block], noise: float) -> float:
        scale = max(scatter_of_rises(self.reference, 1) / math.sqrt(2.0), BLOCK_NOISE * noise)
        if len(recent) >= LAG + MIN_BLOCKS:
            scale = max(scale, LAG_WEIGHT * scatter_of_rises(recent, LAG) / math.sqrt(2.0))
        return scale
