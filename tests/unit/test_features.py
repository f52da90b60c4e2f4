import math
import random
from collections.abc import Callable

import pytest

from pilothouse.events.metric_names import TOLD
from pilothouse.governance.conditions import STABLE, Condition, hysteresis
from pilothouse.governance.expressions import FEATURES
from pilothouse.stream_processors.detectors.sample import StepSample
from pilothouse.stream_processors.detectors.spread import Spread
from pilothouse.stream_processors.detectors.usual import BLOCK, MAX_WARMUP, MIN_BASELINE, WINDOW
from pilothouse.stream_processors.features import FeatureState, evaluate, observe, onset, restart, rewind

Loss = Callable[[int], float]
NOT_OF_A_STEP = {
    "steps_since_good_checkpoint",
    "overflows",
    "nonfinite_losses",
    "nonfinite_rank",
    "vanishing_since",
    "input_drift",
    "input_psi",
    "input_ks",
    "inefficient_since",
    "guessing_among",
}
"""Features that are known of the run, or only while something is suspect."""


def sample(step: int, loss: float | None, grad_norm: float | None = 1.0, nonfinite: int = 0) -> StepSample:
    return StepSample(step, 0, 1, loss, grad_norm, nonfinite)


def alarms(loss: Loss, steps: int, state: FeatureState | None = None, grad_norm: Loss = lambda _: 1.0) -> list[int]:
    """The steps at which the loss becomes unstable, judged as a run is."""
    state, condition, found = state or FeatureState(), Condition("Stable"), []
    for step in range(steps):
        seen = observe(state, sample(step, loss(step), grad_norm(step)), learning=condition.status != "False")
        if "instability" not in seen:
            continue
        was, condition.status = condition.status, hysteresis(condition, STABLE, seen["instability"])
        found += [step] if was != "False" == condition.status else []
    return found


def noisy(seed: int, sigma: float = 0.03) -> Callable[[], float]:
    generator = random.Random(seed)
    return lambda: generator.gauss(0.0, sigma)


def falling(step: int) -> float:
    return 2.0 + 2.0 * math.exp(-step / 60)


@pytest.mark.parametrize("seed", range(12))
def test_quiet_noise_is_never_unstable(seed: int) -> None:
    """24,000 steps here; 240,000 of flat and falling losses gave no alarm when this was written."""
    noise = noisy(seed)
    assert alarms(lambda step: falling(step) + noise(), 2_000) == []


@pytest.mark.parametrize("height", [0.4, 0.8, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_spike_that_lasts_is_seen_at_its_second_step(seed: int, height: float) -> None:
    noise = noisy(seed)
    assert alarms(lambda step: falling(step) + noise() + height * (300 <= step < 312), 330) == [301]


@pytest.mark.parametrize("height", [1.0, 10.0, 1e6])
def test_one_step_alone_is_a_hard_batch_whatever_its_size(height: float) -> None:
    noise = noisy(1)
    assert alarms(lambda step: falling(step) + noise() + height * (step == 300), 400) == []


@pytest.mark.parametrize("per_step", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_loss_that_runs_away_faster_than_its_noise_is_seen(seed: int, per_step: float) -> None:
    noise = noisy(seed)
    found = alarms(lambda step: 2.0 + noise() + per_step * max(0, step - 200), 260)
    assert len(found) == 1
    assert found[0] > 200


def test_a_spike_of_two_nats_is_seen_while_the_loss_still_falls_fast() -> None:
    noise = noisy(1)
    assert alarms(lambda step: falling(step) + noise() + 2.0 * (60 <= step < 72), 72) in ([61], [62])


@pytest.mark.parametrize("seed", range(6))
def test_a_slow_divergence_is_seen_within_two_hundred_steps_with_its_onset(seed: int) -> None:
    """Half a nat in two hundred steps, in noise of a tenth of that."""
    noise = noisy(seed, 0.05)
    state = FeatureState()
    [found] = alarms(lambda step: 2.5 + noise() + 0.5 * max(0, step - 400) / 200, 600, state)
    assert 400 < found < 600
    assert 400 - 2 * BLOCK <= onset(state) <= 400 + 6 * BLOCK


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("steps, found", [(1, []), (2, [301])])
def test_a_step_that_stands_out_with_its_gradient_needs_a_second_and_no_more(
    seed: int, steps: int, found: list[int]
) -> None:
    noise = noisy(seed)

    def high(step: int) -> bool:
        return 300 <= step < 300 + steps

    def norm(step: int) -> float:
        return math.exp(2.0 * noise()) * (20.0 if high(step) else 1.0)

    def loss(step: int) -> float:
        return 3.0 + noise() + 0.21 * high(step)

    assert alarms(loss, 400, grad_norm=norm) == found


@pytest.mark.parametrize("seed", range(6))
def test_a_loss_that_wanders_by_itself_is_not_taken_for_unstable(seed: int) -> None:
    """A running mean over a hundred steps of noisy data, as some scripts log it: smooth, and never at rest."""
    noise = noisy(seed, 0.3)
    recent = [2.0 + noise() for _ in range(100)]

    def running_mean(_: int) -> float:
        recent.append(2.0 + noise())
        return sum(recent[-100:]) / 100

    assert len(alarms(running_mean, 3_000)) <= 1


def test_a_loss_that_goes_below_nothing_is_watched_as_it_is() -> None:
    noise = noisy(1, 0.05)
    state = FeatureState()
    assert alarms(lambda step: (0.5 if step < 100 else -0.2) + noise(), 400, state) == []
    assert not state.loss.positive
    assert alarms(lambda step: -0.2 + noise() + 2.0 * (step >= 40), 60) == [41]


def test_a_lasting_change_of_level_is_never_learned_unless_it_is_announced() -> None:
    noise = noisy(2)
    state = FeatureState()
    for step in range(600):
        seen = observe(state, sample(step, 2.0 + noise() + 1.0 * (step >= 100)))
    assert seen["instability"] > STABLE.enter
    restart(state)
    assert alarms(lambda _: 3.0 + noise(), 200, state) == []


@pytest.mark.parametrize("level", [0.0, -3.0, 2.0, 1e300, -1e300, 1e-300])
def test_a_plateau_without_noise_is_quiet_at_any_level(level: float) -> None:
    assert alarms(lambda _: level, 200) == []


@pytest.mark.parametrize("level", [0.0, -3.0, 1e300, 1.7e308])
def test_features_are_numbers_whatever_the_loss(level: float) -> None:
    state = FeatureState()
    for step in range(100):
        wild = level * (-1) ** step if step > 60 else level
        seen = observe(state, sample(step, wild, grad_norm=abs(wild)))
        assert all(math.isfinite(value) for value in seen.values()), seen


@pytest.mark.parametrize("loss, nonfinite", [(math.nan, 1), (math.inf, 1), (-math.inf, 1)])
def test_non_finite_losses_teach_nothing_and_begin_an_excursion(loss: float, nonfinite: int) -> None:
    state = FeatureState()
    for step in range(20):
        observe(state, sample(step, 2.0))
    seen = observe(state, sample(20, loss, nonfinite=nonfinite))
    assert "loss_z" not in seen
    assert seen["nonfinite"] == 1.0
    assert len(state.loss.recent.values) == 20
    assert state.loss.suspect_since == 20


def test_an_excursion_keeps_its_first_step_until_three_calm_ones() -> None:
    state = FeatureState()
    noise = noisy(3)
    since = {}
    for step in range(60):
        high = step in (40, 41, 43)
        observe(state, sample(step, 2.0 + noise() + 1.0 * high))
        since[step] = state.loss.suspect_since
    assert [since[step] for step in (39, 40, 42, 43, 45, 46)] == [-1, 40, 40, 40, 40, -1]


@pytest.mark.parametrize("loss, judged_from", [(lambda _: 2.0, MIN_BASELINE), (lambda step: 2.0 + 8.0 * 0.6**step, 30)])
def test_a_warm_up_lasts_until_the_scatter_has_settled(loss: Loss, judged_from: int) -> None:
    """A loss at rest is judged at once; one that falls by factors is not before it is quieter."""
    noise, state = noisy(1, 0.02), FeatureState()
    seen = [observe(state, sample(step, loss(step) * math.exp(noise()))) for step in range(60)]
    first = next(step for step, known in enumerate(seen) if "loss_z" in known)
    assert abs(first - judged_from) <= 4
    assert first <= MAX_WARMUP


def test_windows_are_bounded_and_go_back_with_the_run() -> None:
    state = FeatureState()
    for step in range(200):
        observe(state, sample(step, 2.0 + step))
    assert len(state.loss.recent.values) == len(state.loss.recent.steps) == WINDOW
    rewind(state, 180)
    assert state.loss.recent.steps[-1] == 180
    assert len(state.loss.recent.values) == state.observed == WINDOW - 19
    restart(state)
    assert state.loss.recent.baseline(0.0) is None
    assert onset(state) == -1


def test_steps_need_not_follow_each_other() -> None:
    noise = noisy(4)
    state = FeatureState()
    for step in range(0, 3_000, 50):
        seen = observe(state, sample(step, 2.0 + noise()))
    assert seen["instability"] < STABLE.enter
    assert observe(state, sample(1_000_000, 9.0))["loss_z"] > 7.0


@pytest.mark.parametrize("grad_norm", [0.0, -1.0, math.nan, math.inf, None])
def test_a_gradient_norm_without_a_logarithm_is_passed_over(grad_norm: float | None) -> None:
    state = FeatureState()
    for step in range(20):
        observe(state, sample(step, 2.0, grad_norm=1.0))
    assert "grad_z" not in observe(state, sample(20, 2.0, grad_norm=grad_norm))


def test_a_gradient_that_explodes_has_a_large_z() -> None:
    state = FeatureState()
    for step in range(20):
        observe(state, sample(step, 2.0, grad_norm=1.0))
    assert observe(state, sample(20, 2.0, grad_norm=100.0))["grad_z"] > 50.0


def test_every_feature_is_declared_for_expressions() -> None:
    """A loss that falls and gets stuck, evaluated now and then, says all that there is to say."""
    state, seen = FeatureState(), set[str]()
    for step in range(700):
        units = 1_000 * min(step, 80)
        spreads = {what: Spread(4, 4 * units, units, 0, units, 0) for what in range(7)}
        loss = 2.0 + 6.0 / math.sqrt(1.0 + min(step, 375) / 30)
        told = dict.fromkeys(TOLD, 0.1) | {"data_wait_s": 0.02}
        seen |= set(observe(state, StepSample(step, step * 1_000_000, 4, loss, 1.0, 0, told, spreads)))
        if step % 50 == 49:
            evaluate(state, step, loss, "validation")
    assert seen <= set(FEATURES)
    assert set(FEATURES) - seen <= NOT_OF_A_STEP
