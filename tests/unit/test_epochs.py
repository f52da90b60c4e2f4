"""Logs of running means, and of few digits: what they do by themselves is no alarm, and a spike in them is found."""

import random
from itertools import pairwise

import pytest

from pilothouse.stream_processors.detectors.epochs import Epochs
from pilothouse.stream_processors.detectors.sample import StepSample
from pilothouse.stream_processors.features import FeatureState, observe

EPOCH = 100


def batches(rows: int, seed: int, sigma: float = 0.15) -> list[float]:
    rng = random.Random(seed)
    return [(1.0 + 2.0 / (1.0 + row / 400.0)) * rng.lognormvariate(0.0, sigma) for row in range(rows)]


def running_means(losses: list[float], epoch: int = EPOCH) -> list[float]:
    """What a script logs that averages since its epoch began."""
    means, total = [], 0.0
    for row, loss in enumerate(losses):
        at = row % epoch
        total = loss if at == 0 else total + loss
        means.append(total / (at + 1))
    return means


def unstable_rows(losses: list[float]) -> list[int]:
    state = FeatureState()
    rows = []
    for row, loss in enumerate(losses):
        seen = observe(state, StepSample(step=row, at=0, ranks=1, loss=loss, grad_norm=None, nonfinite=0))
        if seen.get("instability", 0.0) >= 1.0:
            rows.append(row)
    return rows


def episodes(alarms: list[int]) -> list[int]:
    return [row for row in alarms if row - 1 not in alarms]


def test_a_running_mean_that_begins_anew_with_each_epoch_is_seldom_an_alarm_once_that_is_known() -> None:
    begun = [
        row
        for seed in range(3)
        for row in episodes(unstable_rows(running_means(batches(3_000, seed))))
        if row > 5 * EPOCH
    ]
    assert len(begun) <= 1  # twelve where epochs are not known


def test_a_spike_in_a_running_mean_is_found() -> None:
    losses = batches(3_000, 1)
    losses[2_450:2_500] = [5.0 * loss for loss in losses[2_450:2_500]]
    alarms = [row for row in unstable_rows(running_means(losses)) if row > 5 * EPOCH]
    assert alarms
    assert 2_450 <= alarms[0] < 2_470


def test_epochs_are_known_after_four_beginnings_and_forgotten_when_there_are_none() -> None:
    epochs = Epochs()
    for row, loss in enumerate(running_means(batches(1_000, 2))):
        epochs.follow(loss, climbs=False)
        if row == 2 * EPOCH:
            assert not epochs.period
    assert abs(epochs.period - EPOCH) <= 2.0
    for loss in batches(1_000, 3, sigma=0.001):
        epochs.follow(loss, climbs=False)
    assert epochs.period == 0.0


def test_abrupt_rows_at_unequal_distances_are_no_epochs() -> None:
    rng, epochs = random.Random(4), Epochs()
    outliers = set(rng.sample(range(100, 20_000), 60))
    known = 0
    for row in range(20_000):
        epochs.follow(2.0 + 0.02 * rng.gauss(0.0, 1.0) + (row in outliers), climbs=False)
        known += bool(epochs.period)
    assert known < 2_000


@pytest.mark.parametrize("level, digits", [(0.02, 2), (0.004, 3), (-0.03, 2)])
def test_losses_of_few_digits_are_no_alarm_by_their_last(level: float, digits: int) -> None:
    rng = random.Random(6)
    losses = [round(level * rng.lognormvariate(0.0, 0.3), digits) for _ in range(4_000)]
    assert len({*losses}) < 15
    assert unstable_rows(losses) == []


def test_a_spike_is_found_in_losses_of_few_digits() -> None:
    rng = random.Random(7)
    losses = [round(0.05 + 0.01 * rng.gauss(0.0, 1.0), 2) + (0.5 if 500 <= row < 505 else 0.0) for row in range(600)]
    assert any(later - row == 1 for row, later in pairwise(unstable_rows(losses)))
    assert unstable_rows(losses)[0] in (500, 501)
