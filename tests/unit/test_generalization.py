"""A validation loss that leaves the training loss, told from noise and from the end of a training."""

import math
import random
from collections.abc import Callable

import pytest

from pilothouse.stream_processors.detectors import generalization
from pilothouse.stream_processors.detectors.generalization import LEAST_LOST, MOST, GeneralizationState

Losses = Callable[[int], tuple[float, float]]
"""Validation and training loss at an evaluation."""


def alarms(losses: Losses, evaluations: int, state: GeneralizationState | None = None, sigma: float = 0.0) -> list[int]:
    """The evaluations at which it begins to be an alarm."""
    state, generator, found, standing = state or GeneralizationState(), random.Random(7), [], False
    for number in range(evaluations):
        val, train = losses(number)
        generalization.observe(state, 100 * number, val * math.exp(generator.gauss(0.0, sigma)), math.log(train))
        is_alarm = state.seen.get("overfitting", 0.0) >= 1.0
        found += [number] if is_alarm and not standing else []
        standing = state.since >= 0
    return found


def turning(number: int) -> tuple[float, float]:
    """Down to the twenty-eighth evaluation, and up from there; the training loss goes on falling."""
    gap = 0.02 * max(0, number - 20)
    train = 0.5 + 2.0 * math.exp(-number / 15)
    return train + 0.1 + gap, train


@pytest.mark.parametrize("sigma", [0.0, 0.005, 0.02])
def test_a_validation_loss_that_turns_while_training_goes_on_is_seen(sigma: float) -> None:
    state = GeneralizationState()
    [found] = alarms(turning, 80, state, sigma)
    assert 24 < found < 50
    assert state.seen["train_fall"] > 0.01
    assert 1_500 <= state.seen["val_best_step"] <= 4_000


@pytest.mark.parametrize("sigma", [0.005, 0.02, 0.1, 0.5])
@pytest.mark.parametrize(
    "losses",
    [
        lambda number: (0.5 + 2.0 * math.exp(-number / 15), 0.4 + 2.0 * math.exp(-number / 15)),
        lambda number: (1.5, 1.5 * math.exp(-number / 40)),
        lambda number: (1.5 - 0.002 * number, 1.5 * math.exp(-number / 40)),
        lambda number: (1.5 + 4.0 * math.exp(-number / 5) + 0.0005 * number, 1.5 * math.exp(-number / 40)),
    ],
    ids=["both fall", "a gap that widens", "a gap that widens slowly", "a creep at the end"],
)
def test_noise_and_gaps_alone_are_no_alarm(losses: Losses, sigma: float) -> None:
    assert alarms(losses, 300, sigma=sigma) == []


def test_a_loss_that_rises_with_its_validation_is_not_its_matter() -> None:
    def losses(number: int) -> tuple[float, float]:
        level = 2.0 + 0.02 * max(0, number - 20)
        return level + 0.1, level

    assert alarms(losses, 80) == []


def test_a_validation_loss_that_stays_far_up_needs_no_long_trend() -> None:
    def losses(number: int) -> tuple[float, float]:
        return (1.0 + 0.01 * (number % 2)) * (1.3 if number >= 20 else 1.0), 1.0 - 0.001 * number

    [found] = alarms(losses, 40)
    assert found <= 26


@pytest.mark.parametrize("bump, found", [(0.0, 1), (0.08, 0)])
def test_a_rise_such_as_came_back_before_is_none(bump: float, found: int) -> None:
    def losses(number: int) -> tuple[float, float]:
        scatter = 0.01 * (-1) ** number
        before = bump * math.sin(math.pi * (number - 10) / 6) if 10 <= number < 16 else 0.0
        after = 0.004 * min(20, max(0, number - 24))
        return math.exp(scatter + before + after - 0.002 * min(24, number)), math.exp(-0.01 * number)

    assert len(alarms(losses, 46)) == found


def test_single_evaluations_far_out_are_no_rise() -> None:
    assert alarms(lambda number: (2.0 * (10.0 if number % 17 == 0 else 1.0), 2.0 * math.exp(-number / 100)), 200) == []


def test_it_clears_when_the_gap_closes() -> None:
    state = GeneralizationState()

    def losses(number: int) -> tuple[float, float]:
        return turning(number if number < 60 else 28)

    assert len(alarms(losses, 70, state)) == 1
    assert state.since == -1


def test_a_rise_counts_by_what_was_gained_before() -> None:
    """Three percent up: much after a fine-tuning that gained five, the end of a training that gained two hundred."""

    def losses(gained: float) -> Losses:
        def at(number: int) -> tuple[float, float]:
            fall = gained * math.exp(-number / 3)
            return math.exp(fall + 0.002 * min(15, max(0, number - 20))), math.exp(fall - 0.01 * number)

        return at

    assert alarms(losses(0.05), 60)
    assert alarms(losses(2.0), 60) == []
    assert LEAST_LOST * 2.0 > 0.03


def test_what_is_kept_is_bounded_and_goes_back_with_the_run() -> None:
    state = GeneralizationState()
    alarms(turning, 1_000, state)
    assert len(state.points) < MOST
    assert state.size > 1
    generalization.rewind(state, 40_000)
    assert state.points[-1].last <= 40_050
    assert state.seen["val_best_step"] <= 40_000
    generalization.restart(state)
    assert state == GeneralizationState()


def test_a_few_steps_back_forget_no_evaluation() -> None:
    """As logs that begin each epoch a little before the end of the last one."""
    state = GeneralizationState()
    for number in range(1, 11):
        generalization.observe(state, 100 * number, 2.0, 0.5)
        generalization.rewind(state, 100 * number - 20)
    assert [known.last for known in state.points] == [100 * number for number in range(2, 11)]
    generalization.rewind(state, 500)
    assert state.points[-1].last == 500


@pytest.mark.parametrize("wild", [1.7e308, 5e-324, math.nan, math.inf, -math.inf, 0.0, -1.0])
def test_nothing_that_an_evaluation_may_say_makes_it_stumble(wild: float) -> None:
    state = GeneralizationState()
    for number in range(200):
        generalization.observe(state, number, wild if number % 3 else 2.0, 0.5 if number % 5 else None)
        assert all(math.isfinite(value) for value in state.seen.values())


def test_a_steep_rise_is_none_of_its_own_noise() -> None:
    def losses(number: int) -> tuple[float, float]:
        return 0.4 * math.exp(0.08 * max(0, number - 5)), 0.5 * math.exp(-0.05 * number)

    [found] = alarms(losses, 40, sigma=0.002)
    assert found <= 12
