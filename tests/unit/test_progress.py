"""A loss that got stuck, told from one that converged; and a run that never began to learn."""

import math
import random
from collections.abc import Callable

import pytest

from pilothouse.stream_processors.detectors import progress, start
from pilothouse.stream_processors.detectors.progress import FALLING, FIRST_SIZE, FLAT, MOST, ProgressState
from pilothouse.stream_processors.detectors.sample import StepSample
from pilothouse.stream_processors.detectors.start import StartState

Loss = Callable[[int], float]


def sample(step: int, loss: float | None, **told: float) -> StepSample:
    return StepSample(step, 0, 1, loss, None, 0, told)


def noisy(seed: int, sigma: float = 0.01) -> Callable[[], float]:
    generator = random.Random(seed)
    return lambda: math.exp(generator.gauss(0.0, sigma))


def plateaus(loss: Loss, steps: int, state: ProgressState | None = None, rate: Loss | None = None) -> list[int]:
    """The steps at which a plateau is found."""
    state, found, stuck = state or ProgressState(), [], False
    for step in range(steps):
        told = {} if rate is None else {"lr": rate(step)}
        share = progress.observe(state, sample(step, loss(step), **told)).get("plateau", 0.0)
        found += [step] if share >= 1.0 and not stuck else []
        stuck = share >= 1.0
    return found


def power(step: int) -> float:
    return 2.0 + 6.0 / math.sqrt(1.0 + step / 30.0)


def constant(_: int) -> float:
    return 1e-3


@pytest.mark.parametrize("onset", [375, 1_000, 4_000])
def test_a_loss_that_stops_falling_from_a_steady_fall_is_stuck(onset: int) -> None:
    noise, state = noisy(1), ProgressState()
    [found] = plateaus(lambda step: power(min(step, onset)) * noise(), 4 * onset, state, constant)
    assert onset < found < 3 * onset
    assert abs(progress.onset(state) - onset) < 0.3 * onset


@pytest.mark.parametrize(
    "loss",
    [
        power,
        lambda step: 1.5 + 6.0 * (1.0 + step / 5.0) ** -0.8,
        lambda step: 2.0 + 4.0 * math.exp(-step / 60),
        lambda step: 2.0 + 4.0 * math.exp(-step / 600),
        lambda _: 0.6,
        lambda step: 2.0 + 0.3 * (step < 1_000) + 0.3 * (step < 2_000),
        lambda step: 3.0 - 0.6 * (1 - math.exp(-max(0, step - 1_500) / 30)),
    ],
    ids=["power", "fast power", "exponential", "slow exponential", "flat", "stairs", "rate cut"],
)
@pytest.mark.parametrize("rate", [None, constant], ids=["rate unknown", "rate constant"])
@pytest.mark.parametrize("seed", range(2))
def test_a_loss_that_converges_is_not_stuck(loss: Loss, rate: Loss | None, seed: int) -> None:
    noise = noisy(seed)
    assert plateaus(lambda step: loss(step) * noise(), 8_000, rate=rate) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_loss_that_follows_its_schedule_to_the_end_is_not_stuck(seed: int) -> None:
    noise = noisy(seed)

    def share(step: int) -> float:
        return 0.5 + 0.5 * math.cos(math.pi * min(step, 3_000) / 3_000)

    assert plateaus(lambda step: (2.0 + 2.0 * share(step)) * noise(), 8_000, rate=lambda step: 1e-3 * share(step)) == []


def test_a_rate_that_is_cut_explains_a_halt() -> None:
    noise = noisy(1)

    def loss(step: int) -> float:
        return power(min(step, 1_000)) * noise()

    assert plateaus(loss, 4_000, rate=constant)
    assert plateaus(loss, 4_000, rate=lambda step: 1e-3 if step < 1_000 else 1e-5) == []


def test_a_plateau_ends_when_the_loss_falls_on() -> None:
    noise, state = noisy(2), ProgressState()

    def loss(step: int) -> float:
        return power(min(step, 500) if step < 2_000 else step - 1_500) * noise()

    found = plateaus(loss, 6_000, state, constant)
    assert len(found) == 1
    assert progress.onset(state) == -1


def test_a_loss_that_is_noise_or_not_positive_is_left_alone() -> None:
    for seed in range(30):
        noise = noisy(seed, 0.3)
        assert plateaus(lambda step: power(step) * noise(), 1_500, rate=constant) == []  # noqa: B023  # asked at once
    assert plateaus(lambda step: -power(min(step, 500)), 4_000, rate=constant) == []


def test_what_is_kept_is_bounded_however_long_a_run_is_and_goes_back_with_it() -> None:
    state = ProgressState()
    for step in range(20_000):
        progress.observe(state, sample(step, 2.0))
        assert len(state.blocks) < MOST
        assert len(state.values) < state.size
    assert state.size == FIRST_SIZE * 2 ** round(math.log2(state.size / FIRST_SIZE))
    assert len(state.blocks) * state.size <= 20_000 < (len(state.blocks) + 1) * state.size
    progress.rewind(state, 9_999)
    assert state.blocks[-1].last <= 9_999
    progress.restart(state)
    assert (state.blocks, state.size) == ([], FIRST_SIZE)


def test_nothing_is_said_before_there_is_enough() -> None:
    state = ProgressState()
    for step in range((FALLING + FLAT) * FIRST_SIZE - 1):
        assert progress.observe(state, sample(step, power(step))) == {}


@pytest.mark.parametrize("wild", [1.7e308, 5e-324, math.nan, math.inf, 0.0, -1.0, None])
def test_nothing_that_may_be_logged_makes_either_stumble(wild: float | None) -> None:
    state, begun = ProgressState(), StartState()
    for step in range(1_000):
        told = sample(step, wild if step % 2 else 2.0, lr=wild or 0.0)
        seen = progress.observe(state, told) | start.observe(begun, told)
        assert all(math.isfinite(value) for value in seen.values())


def broken_from(loss: Loss, steps: int, state: StartState | None = None) -> int | None:
    state = state or StartState()
    shares = [start.observe(state, sample(step, loss(step))).get("broken_start", 0.0) for step in range(steps)]
    return next((step for step, share in enumerate(shares) if share >= 1.0), None)


@pytest.mark.parametrize("seed", range(4))
def test_a_loss_that_rises_from_its_first_steps_on_is_a_broken_start(seed: int) -> None:
    noise = noisy(seed, 0.02)
    for length in (10, 40):  # steps until it stays up; in ten of them the first group is all rise
        found = broken_from(lambda step: (12.0 + 5.0 * min(1.0, step / length)) * noise(), 100)  # noqa: B023  # asked at once
        assert found is not None
        assert found < 48


@pytest.mark.parametrize("seed", range(4))
def test_an_enormous_loss_that_never_falls_is_a_broken_start_in_the_end_unless_it_is_a_sum(seed: int) -> None:
    noise = noisy(seed, 0.02)
    found = broken_from(lambda _: 18.6 * noise(), 1_200)
    assert found is not None
    assert 1_000 <= found < 1_016
    assert broken_from(lambda _: 11.0 * noise(), 1_200) is None
    assert broken_from(lambda _: 300.0 * noise(), 1_200) is None


def test_a_rise_is_a_broken_start_only_with_something_beside_it() -> None:
    """Its gradient, guessing as a level that it leaves, or a size that no cross-entropy has."""
    noise = noisy(9, 0.02)

    def rising(step: int) -> float:
        return (1.0 + min(1.0, step / 40)) * noise()

    assert broken_from(lambda step: 0.7 * rising(step), 1_000) is None
    assert broken_from(lambda step: 5.0 * rising(step), 100) is not None
    assert broken_from(lambda step: 5.0 * rising(step) * noisy(step, 0.3)(), 1_000) is None
    assert broken_from(lambda step: 100.0 * rising(step), 1_000) is None
    assert broken_from(lambda step: 1.0 if step < 8 else 30.0 * noise(), 100) is not None
    state = StartState()
    norms = [StepSample(step, 0, 1, 0.7 * rising(step), 0.5 * rising(step) ** 5, 0) for step in range(100)]
    assert max(start.observe(state, told).get("broken_start", 0.0) for told in norms) >= 1.0


@pytest.mark.parametrize(
    "loss",
    [
        lambda step: 6.9 + 23.0 * math.exp(-((step - 5) ** 2) / 8),
        lambda step: 12.0 + 6.0 * (8 <= step < 16),
        lambda step: 156.0 * math.exp(-step / 30) + 2.0,
        lambda _: 0.6,
        lambda step: 10.9 - 4.0 * min(1.0, step / 300),
        lambda step: 2.0 + 0.1 * math.sin(step / 10),
    ],
    ids=["overshoot", "eight high steps", "untrained head", "flat", "slow warm-up", "wavy"],
)
def test_a_start_that_is_healthy_is_none_of_that(loss: Loss) -> None:
    noise = noisy(5, 0.02)
    assert broken_from(lambda step: loss(step) * noise(), 2_000) is None


def test_a_run_that_has_proven_itself_is_asked_no_more_until_it_begins_anew() -> None:
    state = StartState()
    assert broken_from(lambda step: 20.0 - step / 10 if step < 60 else 30.0, 200, state) is None
    assert state.proven
    start.rewind(state, 50)
    assert state.proven
    start.rewind(state, -1)
    assert state == StartState()
