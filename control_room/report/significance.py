"""Whether two groups of runs differ by more than their seeds: an exact permutation test. Pure.

Every way to deal the runs into two groups of the same sizes is as likely as the one that was, if the groups do not
differ; p is the share of those in which the means are at least as far apart (Fisher, The Design of Experiments, 1935).
No distribution is assumed, which with three seeds a group nobody could know. With so few, p cannot be small: `least_p`
says how small it could have been. Called by `comparison`.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

MOST_DEALS = 20_000
"""Of more, so many are drawn, the same ones every time."""
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Test:
    """Means of both groups, and how likely chance alone sets them so far apart."""

    __test__ = False  # not one of pytest's

    mean: float
    other_mean: float
    p: float
    least_p: float
    exact: bool

    @property
    def verdict(self) -> str:
        """In words."""
        if self.p <= SIGNIFICANT:
            return "differs"
        return "too few runs to tell" if self.least_p > SIGNIFICANT else "no difference seen"


def permutation_test(ours: Sequence[float], theirs: Sequence[float]) -> Test | None:
    """None where a group has fewer than two values, or one that is not finite."""
    values = [*ours, *theirs]
    if min(len(ours), len(theirs)) < 2 or not all(map(math.isfinite, values)):
        return None
    observed = abs(fmean(ours) - fmean(theirs))
    deals = math.comb(len(values), len(ours))
    exact = deals <= MOST_DEALS
    tolerance = 1e-12 * max(map(abs, values))
    far = total = 0
    for chosen in _deals(len(values), len(ours), exact):
        total += 1
        far += _distance(values, chosen) >= observed - tolerance
    if not exact:  # the deal that was is one of them
        far, total = far + 1, total + 1
    least = (2 if len(ours) == len(theirs) else 1) / deals
    return Test(fmean(ours), fmean(theirs), far / total, least, exact)


def _deals(count: int, size: int, exact: bool) -> Iterator[Sequence[int]]:
    if exact:
        yield from combinations(range(count), size)
        return
    chance = random.Random(0)  # a draw that must be the same again, and no secret
    for _ in range(MOST_DEALS):
        yield chance.sample(range(count), size)


def _distance(values: Sequence[float], chosen: Sequence[int]) -> float:
    picked = set(chosen)
    return abs(
        fmean(values[index] for index in picked)
        - fmean(value for index, value in enumerate(values) if index not in picked)
    )
