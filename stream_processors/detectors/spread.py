"""What the ranks say of one step, side by side: how many, how far apart, and who is at the ends.

Merged in any order to the same result, bit for bit: values are whole numbers, natural logarithms in fixed point, whose
sum knows no order. Made by `rank_rows` while a step waits for its ranks, read by the detectors that compare ranks.
"""

from collections.abc import Sequence
from math import inf, log

import msgspec

COARSE = 512
"""Units of a natural logarithm: 0.2 percent, and two bytes hold what is between 1e-27 and 1e27."""
COARSE_MOST = 62 * COARSE
FINE = 2**22
"""... and for what must be equal: 2.4e-7."""
FINE_MOST = 750 * FINE
"""Beyond the logarithm of any number, and of none."""

Column = Sequence[float | None]
"""What one rank logged of a metric, a value a row."""
Units = list[int | None]

OWN, DATA, COMM, WEIGHTS, GRADS, LOCAL_NORM, LOCAL_LOSS = range(7)
"""What is compared. The first three are coarse and smoothed over a rank's last rows: its time computing and waiting for
data, the latter alone, and its time in collectives. Two must be equal, where they are seen to be: the norms of weights
and of (reduced) gradients, fine. Two are coarse, relative to what is usual for the rank: its own gradient's norm, and
its loss.
"""


class Spread(msgspec.Struct, array_like=True):
    """The ranks' values: their count and sum, the least and the largest, each with the lowest rank that has it."""

    count: int
    total: int
    low: int
    low_rank: int
    high: int
    high_rank: int

    @property
    def width(self) -> int:
        return self.high - self.low

    @property
    def mean(self) -> float:
        return self.total / self.count

    def others(self, value: int) -> float:
        """The mean over all ranks but the one that has this value; there must be two."""
        return (self.total - value) / (self.count - 1)

    @property
    def middle(self) -> float:
        """The mean over all ranks but those at the ends, or between two."""
        if self.count < 3:
            return (self.low + self.high) / 2.0
        return (self.total - self.low - self.high) / (self.count - 2)


def merge(spreads: dict[int, Spread], what: int, value: int, rank: int) -> None:
    """One more rank says this: called for every value that is compared, hence in one piece."""
    spread = spreads.get(what)
    if spread is None:
        spreads[what] = Spread(1, value, value, rank, value, rank)
        return
    spread.count += 1
    spread.total += value
    if value <= spread.low and (value < spread.low or rank < spread.low_rank):
        spread.low, spread.low_rank = value, rank
    if value >= spread.high and (value > spread.high or rank < spread.high_rank):
        spread.high, spread.high_rank = value, rank


def coarse(told: Column, least: float = 0.0) -> Units:
    """Positive numbers (once `least` was added to them) in `COARSE` units, at the ends what is beyond those; None what
    is not positive, or not finite.
    """
    try:
        units: Units = [int(COARSE * log(value + least)) for value in told]  # type: ignore[operator]  # nearly always
    except (TypeError, ValueError, OverflowError):
        units = [
            int(COARSE * log(value + least)) if value is not None and 0.0 < value + least < inf else None
            for value in told
        ]
    else:
        if min(units) >= -COARSE_MOST and max(units) <= COARSE_MOST:  # type: ignore[type-var, operator]  # no None here
            return units
    return [None if known is None else max(-COARSE_MOST, min(known, COARSE_MOST)) for known in units]


def fine(told: Column) -> Units:
    """Numbers by their size in `FINE` units; what is infinite or no number above all others."""
    try:
        return [int(FINE * log(value)) for value in told]  # type: ignore[arg-type]  # nearly always
    except (TypeError, ValueError, OverflowError):
        return [None if value is None else _fine(abs(value)) for value in told]


def _fine(size: float) -> int:
    if not size < inf:
        return FINE_MOST
    return int(FINE * log(size)) if size else -FINE_MOST
