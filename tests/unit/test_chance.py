"""A loss that stands where guessing does, told from all that is flat for other reasons."""

import math
import random
from collections.abc import Callable

import pytest

from pilothouse.stream_processors.detectors import chance
from pilothouse.stream_processors.detectors.chance import ChanceState
from pilothouse.stream_processors.detectors.sample import StepSample

Loss = Callable[[int], float]


def found(loss: Loss, rows: int = 60, *, every: int = 100, rate: Loss | None = None) -> list[int]:
    """The rows at which it is said to begin, or to be over (negative)."""
    state, said, was = ChanceState(), [], False
    for row in range(rows):
        told = {} if rate is None else {"lr": rate(row)}
        stands = bool(chance.observe(state, StepSample(row * every, 0, 1, loss(row), None, 0, told)))
        said += [row if stands else -row] if stands != was else []
        was = stands
    return said


def quiet(level: float, share: float = 0.001) -> Loss:
    rng = random.Random(3)
    return lambda _: level * (1.0 + share * rng.gauss(0.0, 1.0))


@pytest.mark.parametrize("classes", [2, 3, 10, 400, 50_257])
def test_a_loss_at_the_logarithm_of_its_classes_is_seen_in_sixteen_rows_and_until_it_falls(classes: int) -> None:
    level = quiet(math.log(classes))
    assert found(lambda row: level(row) * (1.0 if row < 40 else 0.9)) == [15, -47]


def test_a_level_that_is_reached_at_the_first_rows_must_last_as_long_as_they_did() -> None:
    level = quiet(6.0)
    assert found(lambda row: 7.0 - 0.1 * row if row < 8 else level(row)) == [23]


@pytest.mark.parametrize(
    "loss",
    [
        lambda row: 6.0 - 0.002 * row,
        quiet(2.0),
        quiet(0.3),
        quiet(30.0),
        quiet(math.log(10), 0.03),
        quiet(-2.3),
    ],
    ids=["falling", "no-level-of-guessing", "low", "a-sum", "as-noisy-as-batches", "negative"],
)
def test_what_falls_or_is_flat_for_other_reasons_is_not_guessing(loss: Loss) -> None:
    assert found(loss, 200) == []


def test_a_few_hundred_steps_and_a_rate_that_warms_up_are_waited_for() -> None:
    assert found(quiet(math.log(10)), every=10) == []
    assert found(quiet(math.log(10)), rows=16, rate=lambda row: 1e-5 * (row + 1)) == []


def test_a_run_that_goes_back_behind_its_first_rows_begins_anew() -> None:
    state = ChanceState()
    for row in range(20):
        chance.observe(state, StepSample(row * 100, 0, 1, 1.0986, None, 0))
    assert chance.onset(state) == 0
    chance.rewind(state, 1_500)
    assert chance.onset(state) == 0
    chance.rewind(state, -1)
    assert state == ChanceState()
