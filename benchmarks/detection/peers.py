"""The rules that others ship or publish, written again from their sources, each with its own defaults.

Each is told the losses and gradient norms of one training and says at which rows it would have raised its alarm. A peer
that stops the training at its first alarm is let go on, as its users do by restarting. Where a rule has faults (a NaN
that blinds it, a window that a NaN stays in), they are kept. `tests/integration/test_detection_peers.py` holds the one
that is installed here to its original.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from .series import Alarm, Column, Series

Rule = Callable[[Series], Iterator[int]]


def kill_loss_spike(series: Series) -> Iterator[int]:
    """llm-foundry's KillLossSpike (llmfoundry/callbacks/kill_loss_spike_callback.py, 03826b5): 2x the mean of the last
    100 losses five times in a row; or, from batch 200 on, half of them over 10.
    """
    window: deque[float] = deque(maxlen=100)
    outliers = 0
    for batch, (row, loss) in enumerate(_values(series.column("loss")), start=1):
        if len(window) == window.maxlen:
            outliers = outliers + 1 if loss >= 2.0 * _mean(window) else 0
            high = batch >= 2 * len(window) and sum(known > 10.0 for known in window) >= len(window) / 2
            if outliers > 4 or high:
                yield row
        window.append(loss)


def megatron_spiky_loss(series: Series) -> Iterator[int]:
    """Megatron-LM's `--check-for-spiky-loss` (megatron/core/rerun_state_machine.py, 00caa53: `is_unexpectedly_large`
    with SPIKY_LOSS_FACTOR 10): 10x the largest of the first 100 finite losses, the first iteration not looked at.
    """
    largest, count = 0.0, 0
    for iteration, (row, loss) in enumerate(_values(series.column("loss"))):
        if iteration == 0 or not math.isfinite(loss):
            continue
        if count < 100:
            largest, count = max(largest, abs(loss)), count + 1
        elif abs(loss) >= 10.0 * largest:
            yield row


def lightning_spike_detection(series: Series) -> Iterator[int]:
    """Lightning's SpikeDetection (lightning/fabric/utilities/spike.py, 2.6.6): not finite, or higher than the loss
    before and further from the mean of the last 10 than twice that mean. What alarms does not enter the mean.
    """
    window: deque[float] = deque(maxlen=10)
    last = 0.0
    for batch, (row, loss) in enumerate(_values(series.column("loss"))):
        mean = _mean(window) if window else math.nan
        is_worse = not loss - last <= 0.0
        if batch >= 1 and (not math.isfinite(loss) or (is_worse and abs(loss - mean) >= abs(2.0 * mean))):
            yield row
        else:
            last = loss
            window.extend([] if math.isnan(loss) else [loss])  # torchmetrics' mean leaves NaNs out


def olmo_skip_step(series: Series) -> Iterator[int]:
    """OLMo-core's SkipStepOptimizer (src/olmo_core/optim/skip_step_optimizer.py, a14de85): loss or gradient norm more
    than 6 standard deviations over the mean of the last 128, once there are 64 losses.
    """
    losses: deque[float] = deque(maxlen=128)
    norms: deque[float] = deque(maxlen=128)
    for row, (loss, norm) in enumerate(zip(series.column("loss"), series.column("grad_norm"), strict=True)):
        watched = [
            (value, window)
            for value, window in ((loss, losses), (norm, norms))
            if value is not None and len(losses) >= 63 and len(window) >= 2
        ]
        if any(not value - _mean(window) <= 6.0 * _deviation(window) for value, window in watched):
            yield row
        losses.extend([] if loss is None else [loss])
        norms.extend([] if norm is None else [norm])


def zclip(series: Series) -> Iterator[int]:
    """ZClip (arXiv 2504.02507; zclip.py, 134344f): gradient norm 2.5 deviations over its exponential mean (0.97, begun
    with the first 25), which it enters clipped. An alarm is a clipped gradient; a NaN blinds it for good.
    """
    first: list[float] = []
    mean = variance = 0.0
    for row, norm in _values(series.column("grad_norm")):
        if len(first) < 25:
            first.append(norm)
            if len(first) == 25:
                mean = _mean(first)
                variance = _mean([(known - mean) * (known - mean) for known in first])
            continue
        deviation = math.sqrt(variance)
        z = (norm - mean) / (deviation + 1e-6)
        if z > 2.5:
            yield row
        counted = mean + 2.5 * deviation * 2.5 / z if z > 2.5 else norm
        mean = 0.97 * mean + 0.03 * counted
        variance = 0.97 * variance + 0.03 * (counted - mean) * (counted - mean)


def z_score(series: Series) -> Iterator[int]:
    """Weights & Biases' MetricZScoreFilter (wandb.automations) with its defaults, window 30 and threshold 3.0, upwards:
    loss 3 standard deviations over the mean of the 30 before. How its server counts is not public: NaNs are left out.
    """
    window: deque[float] = deque(maxlen=30)
    for row, loss in _values(series.column("loss")):
        if len(window) == window.maxlen and not loss - _mean(window) <= 3.0 * _deviation(window):
            yield row
        if math.isfinite(loss):
            window.append(loss)


def page_hinkley(series: Series) -> Iterator[int]:
    """River's PageHinkley (river.drift) on the loss with its defaults, but upwards only: a loss falls."""
    from river.drift import PageHinkley

    detector = PageHinkley(mode="up")
    for row, loss in _values(series.column("loss")):
        if math.isfinite(loss):
            detector.update(loss)
            if detector.drift_detected:
                yield row


def adwin(series: Series) -> Iterator[int]:
    """River's ADWIN (river.drift) on the loss with its defaults; only a change upwards is an alarm."""
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
NEEDS = {"Page-Hinkley (river)": "river.drift", "ADWIN (river)": "river.drift"}
"""The module that a rule is taken from as installed."""
WATCHED = (
    "transient_spike", "sustained_spike", "slow_divergence", "fast_divergence", "nan", "inf", "gradient_explosion",
    "spike", "diverged", "grad_explosion",
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


def _mean(values: Sequence[float]) -> float:
    """NaN, like everybody's arrays, where there is one, or where infinities cancel."""
    return sum(values) / len(values)


def _deviation(values: Sequence[float]) -> float:
    """The standard deviation of a sample, in two passes."""
    mean = _mean(values)
    squares = [(value - mean) * (value - mean) for value in values]
    return math.sqrt(sum(squares) / (len(values) - 1))
