"""What the ranks say of one step, side by side: how many, how far apart, and who is at the ends.

Merged in any order to the same result, bit for bit: values are whole numbers, natural logarithms in fixed point, whose
sum knows no order. Made by `rank_rows` while a step waits for its ranks, read by the detectors that compare ranks.
"""

import math

import msgspec

COARSE = 512
"""Units of a natural logarithm: 0.2 percent, and two bytes hold what is between 1e-27 and 1e27."""
LEAST, MOST = 1e-27, 1e27
FINE = 2**22
"""... and for what must be equal: 2.4e-7."""
FINE_MOST = 500.0
"""Nats; four bytes hold so many."""

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

    @classmethod
    def of(cls, value: int, rank: int) -> "Spread":
        return cls(1, value, value, rank, value, rank)

    def add(self, value: int, rank: int) -> None:
        self.count += 1
        self.total += value
        if value <= self.low and (value < self.low or rank < self.low_rank):
            self.low, self.low_rank = value, rank
        if value >= self.high and (value > self.high or rank < self.high_rank):
            self.high, self.high_rank = value, rank

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


def coarse(value: float) -> int:
    """A positive number in `COARSE` units; what is too small, too large or no number, at the ends."""
    return int(COARSE * math.log(min(MOST, max(LEAST, value))))


def fine(value: float) -> int:
    """Any number by its size, in `FINE` units; infinite or no number, at the upper end."""
    size = abs(value)
    if not size < math.inf:
        return int(FINE * FINE_MOST)
    return int(FINE * max(-FINE_MOST, min(math.log(size), FINE_MOST))) if size else int(-FINE * FINE_MOST)
