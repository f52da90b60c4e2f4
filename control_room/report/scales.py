"""Axes: where a value stands between 0 and 1, and which values are written beside it. Pure.

Called by `chart_html` alone.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .figures import number, time_of_day

TICKS = 5
WIDE = 60.0
"""Positive values that differ by more than this factor are told apart on a logarithmic axis only."""
LEAST_POSITIVE = 1e-300
FURTHEST = 1e300
"""No axis goes further, so that its ends have a distance."""
LONG = 1e6


class Scale(NamedTuple):
    """From `low` to `high`, which differ; `log` for decades of equal length."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """0 at `low`, 1 at `high`; what lies outside is held at the edge."""
        if self.log:
            value, low, high = (math.log10(max(each, LEAST_POSITIVE)) for each in (value, self.low, self.high))
        else:
            low, high = self.low, self.high
        # Halves, for the difference of two finite numbers may be none.
        return min(1.0, max(0.0, (value / 2 - low / 2) / (high / 2 - low / 2)))


class Tick(NamedTuple):
    """A place from 0 to 1, and what is written there."""

    at: float
    text: str


def scale_of(values: Iterable[float], *, by_factor: bool = True) -> Scale:
    """The axis that holds these values; those that are not finite have no place on one."""
    known = [max(-FURTHEST, min(FURTHEST, value)) for value in values if math.isfinite(value)]
    if not known:
        return Scale(0.0, 1.0)
    low, high = min(known), max(known)
    if by_factor and low > 0 and high / WIDE > low:
        low = max(low, LEAST_POSITIVE)
        return Scale(10 ** math.floor(math.log10(low)), high * 1.1, log=True)
    if low == high:
        margin = abs(low) * 0.1 or 1.0
        return Scale(low - margin, high + margin)
    room = (high / 2 - low / 2) * 0.1
    return Scale(low - room, high + room) if by_factor else Scale(low, high)


def ticks_of(scale: Scale) -> list[Tick]:
    """Round values along a scale."""
    values = _decades(scale) if scale.log else _round_values(scale)
    return [Tick(scale.at(value), _short(value)) for value in values]


def _short(value: float) -> str:
    """Few letters, for there is little room."""
    return number(value, 3) if abs(value) < LONG or value % 1 else f"{value:.3g}".replace("e+0", "e").replace("e+", "e")


def clock_ticks(scale: Scale) -> list[Tick]:
    """Times of day along a scale of microseconds."""
    step = (scale.high - scale.low) / (TICKS - 1)
    return [Tick(index / (TICKS - 1), time_of_day(int(scale.low + index * step))) for index in range(TICKS)]


def _decades(scale: Scale) -> list[float]:
    first, last = math.ceil(math.log10(scale.low)), math.floor(math.log10(scale.high))
    every = max(1, math.ceil((last - first + 1) / TICKS))
    exponents: Sequence[int] = range(first, last + 1, every)
    return [10.0**exponent for exponent in exponents]


def _round_values(scale: Scale) -> list[float]:
    rough = (scale.high / TICKS) - (scale.low / TICKS)
    if not rough > 0:
        return [scale.low]
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * 0.999)
    first, last = math.ceil(scale.low / step), math.floor(scale.high / step)
    if not (math.isfinite(step) and last - first < 4 * TICKS):
        return [scale.low, scale.high]
    return [index * step for index in range(first, last + 1)]
