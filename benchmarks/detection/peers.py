"""The rules that others ship or publish, written again from their sources, each with its own defaults.

Each is told the losses and gradient norms of one training and says at which rows it would have raised its alarm. A peer
that stops the training at its first alarm is let go on, as its users do by restarting.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from statistics import fmean, pstdev, stdev

from .series import Alarm, Column, Series

Rule = Callable[[Series], Iterator[int]]


def kill_loss_spike(series: Series) -> Iterator[int]:
    """llm-foundry's KillLossSpike: 2x the mean of 100 losses five times in a row, or half of them over 10."""
    window: deque[float] = deque(maxlen=100)
    outliers = 0
    for row, loss in _values(series.column("loss")):
        if len(window) == window.maxlen:
            outliers = outliers + 1 if loss >= 2.0 * fmean(window) else 0
            high = row >= 2 * len(window) and sum(known > 10.0 for known in window) >= len(window) / 2
            if outliers > 4 or high:
                yield row
        window.append(loss)


def megatron_spiky_loss(series: Series) -> Iterator[int]:
    """Megatron-LM's `check_for_spiky_loss`: 10x the largest of the first 100 losses."""
    largest, count = 0.0, 0
    for row, loss in _values(series.column("loss")):
        if not math.isfinite(loss):
            continue
        if count < 100:
            largest, count = max(largest, abs(loss)), count + 1
        elif abs(loss) >= 10.0 * largest:
            yield row


def lightning_spike_detection(series: Series) -> Iterator[int]:
    """Lightning's SpikeDetection: not finite, or further from the mean of 10 losses than twice that mean."""
    window: deque[float] = deque(maxlen=10)
    last = 0.0
    for row, loss in _values(series.column("loss")):
        mean = fmean(window) if window else 0.0
        spiky = not math.isfinite(loss) or (loss > last and abs(loss - mean) >= abs(2.0 * mean))
        if window and spiky:
            yield row
        elif math.isfinite(loss):
            window.append(loss)
            last = loss


def olmo_skip_step(series: Series) -> Iterator[int]:
    """OLMo-core's SkipStepOptimizer: loss or gradient norm 6 standard deviations over the mean of 128."""
    losses: deque[float] = deque(maxlen=128)
    norms: deque[float] = deque(maxlen=128)
    for row, (loss, norm) in enumerate(zip(series.column("loss"), series.column("grad_norm"), strict=True)):
        over = [
            value is not None and len(window) >= 63 and not value - fmean(window) <= 6.0 * _stdev(window)
            for value, window in ((loss, losses), (norm, norms))
        ]
        if any(over):
            yield row
        losses.extend([] if loss is None else [loss])
        norms.extend([] if norm is None else [norm])


def zclip(series: Series) -> Iterator[int]:
    """ZClip (arXiv 2504.02507): gradient norm 2.5 deviations over its exponential mean, clipped into it."""
    first: list[float] = []
    mean = variance = 0.0
    for row, norm in _values(series.column("grad_norm")):
        if not math.isfinite(norm):
            yield row
            continue
        if len(first) < 25:
            first.append(norm)
            mean, variance = fmean(first), pstdev(first) ** 2
            continue
        deviation = math.sqrt(variance)
        z = (norm - mean) / (deviation + 1e-6)
        if z > 2.5:
            yield row
        counted = mean + 2.5 * deviation * 2.5 / z if z > 2.5 else norm
        mean = 0.97 * mean + 0.03 * counted
        variance = 0.97 * variance + 0.03 * (counted - mean) ** 2


def z_score(series: Series) -> Iterator[int]:
    """What an alert on a tracker's rolling statistics does: loss 3 standard deviations over the mean of 30."""
    window: deque[float] = deque(maxlen=30)
    for row, loss in _values(series.column("loss")):
        if len(window) == window.maxlen and not loss - fmean(window) <= 3.0 * _stdev(window):
            yield row
        if math.isfinite(loss):
            window.append(loss)


def page_hinkley(series: Series) -> Iterator[int]:
    """River's PageHinkley on the loss, upwards, with its defaults."""
    from river.drift import PageHinkley

    detector = PageHinkley(mode="up")
    for row, loss in _values(series.column("loss")):
        if math.isfinite(loss):
            detector.update(loss)
            if detector.drift_detected:
                yield row


def adwin(series: Series) -> Iterator[int]:
    """River's ADWIN on the loss, with its defaults; only a change upwards is an alarm."""
    from river.drift import ADWIN

    detector = ADWIN()
    before = math.nan
    for row, loss in _values(series.column("loss")):
        if math.isfinite(loss):
            detector.update(loss)
            if detector.drift_detected and detector.estimation > before:
                yield row
            before = detector.estimation


RULES: dict[str, Rule] = {
    "KillLossSpike": kill_loss_spike,
    "Megatron spiky loss": megatron_spiky_loss,
    "Lightning SpikeDetection": lightning_spike_detection,
    "OLMo-core 6 sigma": olmo_skip_step,
    "ZClip": zclip,
    "z > 3 of 30": z_score,
    "Page-Hinkley (river)": page_hinkley,
    "ADWIN (river)": adwin,
}
WATCHED = (
    "transient_spike", "sustained_spike", "slow_divergence", "fast_divergence", "nan", "inf", "gradient_explosion",
    "spike", "diverged",
)  # fmt: skip
"""What rules on loss and gradient norm could see."""


def alarms_of(rule: Rule, series: Series) -> list[Alarm]:
    """One alarm for each run of neighbouring rows."""
    rows = list(rule(series))
    if not rows:
        return []
    starts = [rows[0], *(later for earlier, later in pairwise(rows) if later > earlier + 1)]
    ends = [*(earlier for earlier, later in pairwise(rows) if later > earlier + 1), rows[-1]]
    return [Alarm(first, last) for first, last in zip(starts, ends, strict=True)]


def _values(column: Column) -> Iterator[tuple[int, float]]:
    return ((row, value) for row, value in enumerate(column) if value is not None)


def _stdev(window: deque[float]) -> float:
    return stdev(window) if all(map(math.isfinite, window)) else math.nan
