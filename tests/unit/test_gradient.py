"""Gradients that explode and that vanish, and all that looks like it and is everyday life."""

import math
import random
from collections.abc import Callable

import pytest

from pilothouse.stream_processors.detectors import gradient, updates
from pilothouse.stream_processors.detectors.gradient import ACCEPTED, GradientState
from pilothouse.stream_processors.detectors.sample import StepSample
from pilothouse.stream_processors.detectors.updates import BLOCK, BLOCKS, UpdateState

Series = Callable[[int], float | None]


def sample(step: int, norm: float | None, loss: float | None = 2.0, **told: float) -> StepSample:
    return StepSample(step, 0, 1, loss, norm, 0, told)


def noisy(seed: int, sigma: float = 0.3) -> Callable[[], float]:
    generator = random.Random(seed)
    return lambda: math.exp(generator.gauss(0.0, sigma))


def explosions(norm: Series, steps: int, state: GradientState | None = None) -> list[int]:
    """The steps at which the norm begins to be an explosion, learned from as a run is."""
    state, found, standing = state or GradientState(), [], False
    for step in range(steps):
        share = gradient.observe(state, sample(step, norm(step)), learning=not standing).get("grad_explosion", 0.0)
        found += [step] if share >= 1.0 and not standing else []
        standing = share >= (0.5 if standing else 1.0)
    return found


@pytest.mark.parametrize("factor", [10.0, 100.0, 1_000.0])
@pytest.mark.parametrize("seed", range(4))
def test_an_explosion_is_seen_at_its_third_step_with_its_first(seed: int, factor: float) -> None:
    noise, state = noisy(seed, 0.2), GradientState()
    assert explosions(lambda step: noise() * (factor if step >= 300 else 1.0), 304, state) == [302]
    assert gradient.onset(state) == 300


def test_a_lone_outlier_before_is_no_part_of_an_explosion() -> None:
    state = GradientState()
    assert explosions(lambda step: 50.0 if step == 280 or step >= 300 else 1.0, 304, state) == [302]
    assert gradient.onset(state) == 300


@pytest.mark.parametrize("seed", range(4))
def test_lone_outliers_and_pairs_of_them_are_everyday_life(seed: int) -> None:
    noise, generator = noisy(seed), random.Random(seed)
    high = {at + more for at in generator.sample(range(100, 3_000, 7), 60) for more in range(generator.choice([1, 2]))}
    state = GradientState()
    assert explosions(lambda step: noise() * (50.0 if step in high else 1.0), 3_000, state) == []
    assert gradient.onset(state) == -1


@pytest.mark.parametrize("seed", range(4))
def test_norms_that_fall_clip_or_grow_slowly_do_not_explode(seed: int) -> None:
    noise = noisy(seed)
    assert explosions(lambda step: noise() * (0.05 + 3.0 * math.exp(-step / 80)), 2_000) == []
    assert explosions(lambda _: min(1.0, noise()), 2_000) == []
    assert explosions(lambda step: noise() * math.exp(step / 300), 2_000) == []


def test_a_norm_that_stays_high_becomes_the_usual_one() -> None:
    """A loss that it harmed would say so itself."""
    noise, state = noisy(1, 0.1), GradientState()

    def norm(step: int) -> float:
        return noise() * (30.0 if step >= 200 else 1.0)

    assert explosions(norm, 200 + ACCEPTED + 40, state) == [202]
    assert gradient.onset(state) == -1
    seen = gradient.observe(state, sample(1_000, 30.0), learning=True)
    assert seen["grad_baseline"] == pytest.approx(30.0, rel=0.2)


@pytest.mark.parametrize("norm", [0.0, -1.0, math.nan, math.inf, None])
def test_norms_without_a_logarithm_say_nothing(norm: float | None) -> None:
    gradients, reach = GradientState(), UpdateState()
    for step in range(100 * BLOCK):
        value = 1.0 if step < 50 * BLOCK else norm
        seen = gradient.observe(gradients, sample(step, value), learning=True)
        seen |= updates.observe(reach, sample(step, value))
    assert seen.get("grad_vanishing", 0.0) == 0.0
    assert "grad_explosion" not in seen


def test_a_run_that_went_back_begins_its_excursions_anew() -> None:
    state = GradientState()
    explosions(lambda step: 100.0 if step >= 98 else 1.0, 100, state)
    gradient.rewind(state, 90)
    assert (state.since, state.shares, state.log_norm.steps[-1]) == (-1, (0.0, 0.0), 90)


def vanished(norm: Series, loss: Series, steps: int, **told: Series) -> list[int]:
    state = UpdateState()
    found, standing = [], False
    for step in range(steps):
        beside = {name: value for name, series in told.items() if (value := series(step)) is not None}
        share = updates.observe(state, sample(step, norm(step), loss(step), **beside)).get("grad_vanishing", 0.0)
        found += [step] if share >= 1.0 and not standing else []
        standing = share >= (0.5 if standing else 1.0)
    return found


def dying(step: int) -> float:
    return max(math.pow(10.0, -max(0, step - 800) / 50.0), 1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_a_gradient_that_vanishes_while_the_loss_stands_still_is_seen_within_two_hundred_steps(seed: int) -> None:
    noise = noisy(seed, 0.2)
    scatter = noisy(seed + 100, 0.02)
    [found] = vanished(lambda step: noise() * dying(step), lambda _: 2.0 * scatter(), 3_000)
    assert 800 < found < 1_000


def test_a_gradient_that_is_gone_for_a_block_alone_is_none() -> None:
    assert vanished(lambda step: 1e-3 if 800 <= step < 800 + BLOCK else 1.0, lambda _: 2.0, 1_600) == []


def test_a_gradient_that_falls_as_the_loss_does_is_healthy() -> None:
    def loss(step: int) -> float:
        return 2.0 + math.exp(-max(0, step - 800) / 100)

    assert vanished(dying, loss, 3_000) == []


def test_a_gradient_that_decays_at_the_start_of_a_training_is_healthy() -> None:
    def decay(step: int) -> float:
        return math.exp(-step / 60)

    assert vanished(lambda step: 0.02 + 3.0 * decay(step), lambda step: 2.0 + 4.0 * decay(step), 2_000) == []


def test_a_gradient_that_vanishes_with_a_loss_that_is_not_there_says_nothing() -> None:
    assert vanished(dying, lambda _: None, 3_000) == []


def test_what_vanished_is_not_learned_and_comes_back() -> None:
    state, shares = UpdateState(), {}
    for step in range(2_000 + 4 * BLOCK):
        norm = 1.0 if step < 320 or step >= 2_000 else 1e-3
        shares[step] = updates.observe(state, sample(step, norm)).get("grad_vanishing", 0.0)
    assert shares[320 + 3 * BLOCK] >= 1.0
    assert shares[1_999] >= 1.0
    assert shares[2_000 + 3 * BLOCK] == 0.0
    assert len(state.blocks) <= BLOCKS


@pytest.mark.parametrize("ratio, rate, found", [(1e-8, 1e-3, True), (1e-8, 1e-7, False), (1e-6, 1e-3, False)])
def test_an_update_of_nothing_is_seen_unless_the_schedule_explains_it(ratio: float, rate: float, found: bool) -> None:
    def ratios(step: int) -> float:
        return 1e-3 if step < 800 else ratio

    def rates(step: int) -> float:
        return 1e-3 if step < 800 else rate

    assert bool(vanished(lambda _: 1.0, lambda _: 2.0, 1_200, update_ratio=ratios, lr=rates)) is found


@pytest.mark.parametrize("before, after, excess", [(1e-3, 0.3, True), (1e-3, 0.05, False), (0.2, 0.3, False)])
def test_updates_of_a_tenth_of_the_weights_are_too_large_where_they_were_not_before(
    before: float, after: float, excess: bool
) -> None:
    state = UpdateState()
    for step in range(80 * BLOCK):
        seen = updates.observe(state, sample(step, 1.0, update_ratio=before if step < 70 * BLOCK else after))
    assert (seen["update_excess"] >= 1.0) is excess


@pytest.mark.parametrize("wild", [1.7e308, 5e-324, math.nan, math.inf])
def test_nothing_that_may_be_logged_makes_either_stumble(wild: float) -> None:
    gradients, reach = GradientState(), UpdateState()
    for step in range(60 * BLOCK):
        value = wild if step > 30 * BLOCK else 1.0
        told = sample(step, value, value * (-1) ** step, update_ratio=value, lr=value)
        seen = gradient.observe(gradients, told, learning=True) | updates.observe(reach, told)
        assert all(math.isfinite(known) for known in seen.values())
