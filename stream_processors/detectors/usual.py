"""Where a series usually is and how much it scatters, learned from its own recent past, in steps of any spacing.

Location and scale are robust (median, scaled median absolute deviation; Huber 1981). The scale has two parts: the noise
from step to step, taken about the medians of the window's two halves so that a trend is not taken for noise, and the
*wander* of the series, by which the medians of whole blocks differ more than that noise explains. A running mean, or a
loss that goes up and down with the difficulty of its data, wanders; a z score that knew only the noise would alarm at
it. `loss` and `gradient` keep one each.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import sub
from statistics import median

import msgspec

WINDOW = 64
MIN_BASELINE, MAX_WARMUP = 8, 32
"""Values needed before there is a baseline to be compared with: the fewest, and those that are always enough."""
ALIKE = 3.0
"""Between them the scatter has settled once that of the older half and that of the newer differ by no larger factor."""
FEW = 8.0
"""An estimate from few values may be far too small: of n values the noise counts 1 + FEW (1/n - 1/WINDOW) times."""
BLOCK = 16
"""Steps of which a block's median is taken."""
BLOCKS = 40
MIN_BLOCKS = 6
MAD_TO_SIGMA = 1.4826
RENEWED = 8
"""The scatter about the medians is taken anew with every eighth value of a full window, and with every one before."""
CLIP_Z = 4.0
WANDER_WEIGHT = 2.0
LEAST_RISES = 0.25
"""Of the changes between blocks: with fewer rises a series does not wander, it falls."""
BLOCK_NOISE = 0.31
"""The standard deviation of the median of a block of independent noise, in units of that noise's own: 1.2533 / 4."""


class Baseline(msgspec.Struct, frozen=True):
    """Where a value usually is, how much it scatters (noise and wander), and how much of that is noise alone."""

    location: float
    scale: float
    noise: float

    def z(self, value: float) -> float:
        return (value - self.location) / self.scale


class Block(msgspec.Struct, frozen=True, array_like=True):
    """The median of `BLOCK` values, and the first and last step of them."""

    median: float
    first: int
    last: int


class Recent(msgspec.Struct):
    """The last values and blocks of one series, oldest first. `newer` is the newer half of the values in ascending
    order; `scatter` about the medians of both halves is as of `RENEWED`. `begun` values came since the last block was
    completed; `wander` is as of then. `settled` tells that the warm-up is over.
    """

    values: list[float] = []
    steps: list[int] = []
    newer: list[float] = []
    scatter: float = 0.0
    begun: int = 0
    blocks: list[Block] = []
    wander: float = 0.0
    settled: bool = False

    def baseline(self, floor: float) -> Baseline | None:
        """None until the scatter has settled. The noise is never taken for less than `floor`: a plateau without noise
        is not a reason to alarm.
        """
        if not self.settled:
            return None
        noise = max(self.scatter, floor)
        count = len(self.values)
        if count < WINDOW:
            noise *= 1.0 + FEW * (1.0 / count - 1.0 / WINDOW)
        return Baseline(middle(self.newer), math.hypot(noise, WANDER_WEIGHT * self.wander), noise)

    def push(self, step: int, value: float, usual: Baseline | None) -> None:
        """Learn one more value, clipped into what is usual."""
        if usual is not None:
            value = min(value, usual.location + CLIP_Z * usual.scale)
        values, newer = self.values, self.newer
        values.append(value)
        self.steps.append(step)
        insort(newer, value)
        is_full = len(values) > WINDOW
        if is_full:
            del values[0], self.steps[0]
        half = len(values) // 2
        if len(newer) > len(values) - half:
            del newer[bisect_left(newer, values[half - 1])]
        self.begun += 1
        if not is_full or self.begun % RENEWED == 0:
            self._renew_scatter()
        if self.begun == BLOCK:
            self._complete_block(usual)

    def _renew_scatter(self) -> None:
        if len(self.values) < MIN_BASELINE:
            return
        older = self.values[: len(self.values) // 2]
        before, now = [*_distances(older, median(older))], [*_distances(self.newer, middle(self.newer))]
        self.scatter = MAD_TO_SIGMA * median([*before, *now])
        if not self.settled:
            least, most = sorted((median(before), median(now)))
            self.settled = len(self.values) >= MAX_WARMUP or most <= ALIKE * least

    def _complete_block(self, usual: Baseline | None) -> None:
        self.begun = 0
        self.blocks.append(Block(median(self.values[-BLOCK:]), self.steps[-BLOCK], self.steps[-1]))
        del self.blocks[:-BLOCKS]
        if usual is not None and len(self.blocks) >= MIN_BLOCKS:
            excess = scatter_of_rises(self.blocks, 1) ** 2 - 2.0 * (BLOCK_NOISE * usual.noise) ** 2
            self.wander = math.sqrt(max(0.0, excess))

    def rewind(self, step: int) -> None:
        """Forget what came after `step`: the run went back there."""
        kept = sum(1 for known in self.steps if known <= step)
        del self.values[kept:], self.steps[kept:]
        self.settled = self.settled and len(self.values) >= MIN_BASELINE
        self._sort()
        self.blocks = [block for block in self.blocks if block.last <= step]
        self.begun = 0
        if len(self.blocks) < MIN_BLOCKS:
            self.wander = 0.0

    def transform(self, by: Callable[[float], float]) -> None:
        """Go over to another unit, in which nothing is known of the wander yet."""
        self.values = [by(value) for value in self.values]
        self._sort()
        self.blocks, self.begun, self.wander = [], 0, 0.0

    def _sort(self) -> None:
        self.newer = sorted(self.values[len(self.values) // 2 :])
        self._renew_scatter()


def _distances(values: Iterable[float], centre: float) -> Iterator[float]:
    """Of each value, without a step of the interpreter for any: this is half of what a baseline costs."""
    return map(abs, map(centre.__rsub__, values))


def middle(ascending: Sequence[float]) -> float:
    """The median of at least one value, in ascending order."""
    half = len(ascending) // 2
    if len(ascending) % 2:
        return ascending[half]
    return (ascending[half - 1] + ascending[half]) / 2.0


def scatter_of_rises(blocks: list[Block], lag: int) -> float:
    """How much a series rises over `lag` blocks where it does, as the standard deviation of noise that would do the
    same. A loss that falls, however unevenly, hardly rises.
    """
    medians = [block.median for block in blocks]
    changes = sorted(map(sub, medians[lag:], medians))
    rises = changes[bisect_right(changes, 0.0) :]
    return MAD_TO_SIGMA * middle(rises) if len(rises) >= LEAST_RISES * len(changes) > 0 else 0.0


def noise_of_changes(values: Sequence[float]) -> float:
    """The standard deviation of independent noise, by how differently neighbours change: the same change at every step
    is a trend. At least two values.
    """
    changes = [*map(sub, values[1:], values)]
    return MAD_TO_SIGMA * median(_distances(changes, median(changes))) / math.sqrt(2.0)


def noise_of_bends(values: Sequence[float]) -> float:
    """The same where the trend may bend. At least three values."""
    bends = [abs(a - 2.0 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    return MAD_TO_SIGMA * median(bends) / math.sqrt(6.0)
