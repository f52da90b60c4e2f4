"""What of a loss is an alarm: rows alone and in a row, with their gradient norm, with a learning rate in view."""

import random
from collections.abc import Sequence

from pilothouse.stream_processors import features
from pilothouse.stream_processors.detectors.sample import StepSample
from pilothouse.stream_processors.features import FeatureState, observe

NOISE = 0.02


def highest(steps: list[int], outliers: dict[int, float]) -> float:
    """The largest `instability` of a loss about 2.5, logged at these steps, times what is said of single rows."""
    rng, state = random.Random(5), FeatureState()
    seen = []
    for row, step in enumerate(steps):
        loss = 2.5 * (1.0 + NOISE * rng.gauss(0.0, 1.0)) * outliers.get(row, 1.0)
        sample = StepSample(step=step, at=0, ranks=1, loss=loss, grad_norm=None, nonfinite=0)
        seen.append(observe(state, sample).get("instability", 0.0))
    return max(seen)


EVERY_STEP = list(range(200))
EVERY_50TH = list(range(0, 10_000, 50))


def test_one_step_that_stands_out_among_steps_is_a_hard_batch() -> None:
    assert highest(EVERY_STEP, {120: 1.5}) < 1.0


def test_one_row_that_stands_out_where_rows_stand_for_many_steps_alarms() -> None:
    assert highest(EVERY_50TH, {120: 1.5}) >= 1.0
    assert highest(EVERY_50TH, {}) < 1.0


def test_a_row_that_comes_late_does_not_alarm_alone() -> None:
    without_one = [*EVERY_50TH[:120], *(step + 50 for step in EVERY_50TH[120:])]
    assert highest(without_one, {120: 2.0}) < 1.0
    assert highest(without_one, {121: 1.5}) >= 1.0


def test_single_steps_before_the_first_sparse_rows_make_no_row_alone() -> None:
    steps = [*range(40), *range(50, 8_000, 50)]
    assert highest(steps, {40: 1.5}) < 1.0
    assert highest(steps, {60: 1.5}) >= 1.0


def test_a_rise_of_less_than_five_percent_is_no_spike_however_sure_and_however_long() -> None:
    state = FeatureState()
    seen = []
    for step in range(300):
        loss = 2.5 * (1.04 if 150 <= step < 160 else 1.0)
        sample = StepSample(step=step, at=0, ranks=1, loss=loss, grad_norm=None, nonfinite=0)
        seen.append(observe(state, sample, learning=step < 150).get("instability", 0.0))
    assert 0.9 < max(seen) < 1.0
    assert max(seen[155:160]) == max(seen)


def with_gradients(loss_rises: list[float], norm_rises: list[float]) -> float:
    """The largest `instability` of a loss and a norm which, from the 200th step on, are times what is said."""
    rng, state = random.Random(5), FeatureState()
    seen = []
    for step in range(200 + len(loss_rises)):
        loss, norm = 2.5 * (1.0 + NOISE * rng.gauss(0.0, 1.0)), 1.0 + 0.1 * rng.gauss(0.0, 1.0)
        if step >= 200:
            loss, norm = 2.5 * loss_rises[step - 200], norm_rises[step - 200]
        sample = StepSample(step=step, at=0, ranks=1, loss=loss, grad_norm=norm, nonfinite=0)
        seen.append(observe(state, sample).get("instability", 0.0))
    return max(seen)


def test_two_steps_in_a_row_alarm_sooner_with_their_gradients() -> None:
    assert with_gradients([1.16, 1.16], [2.0, 2.0]) >= 1.0
    assert with_gradients([1.16, 1.16], [1.0, 1.0]) < 1.0
    assert with_gradients([1.16, 1.16], [2.0, 1.0]) < 1.0
    assert with_gradients([1.16, 1.0, 1.16], [2.0, 2.0, 2.0]) < 1.0


def after_the_rate(rates: Sequence[float | None], rise: float, steps: int = 30) -> float:
    """The largest `instability` of a loss that rises by so much over these steps from the 200th on."""
    rng, state = random.Random(5), FeatureState()
    seen = []
    for step, rate in enumerate(rates):
        share = 1.0 + rise * min(1.0, max(0, step - 200) / steps)
        loss = 2.5 * share * (1.0 + 0.01 * rng.gauss(0.0, 1.0))
        told = {} if rate is None else {"lr": rate}
        sample = StepSample(step=step, at=0, ranks=1, loss=loss, grad_norm=None, nonfinite=0, told=told)
        seen.append(observe(state, sample, learning=True).get("instability", 0.0))
    return max(seen)


def test_a_loss_that_rises_with_a_rate_raised_in_view_alarms_only_from_a_quarter_on() -> None:
    raised: list[float] = [1e-5] * 200 + [3e-4] * 300
    assert after_the_rate(raised, 0.12) < 1.0
    assert after_the_rate(raised, 0.12, steps=2) < 1.0
    assert after_the_rate(raised, 0.6) >= 1.0
    assert after_the_rate([3e-4] * 500, 0.12) >= 1.0
    assert after_the_rate([None] * 500, 0.12) >= 1.0
    assert after_the_rate([None] * 500, 0.12, steps=2) >= 1.0


def test_a_rate_that_warms_up_raises_nothing() -> None:
    warming: list[float] = [3e-4 * (step + 1) / 400 for step in range(400)] + [3e-4] * 100
    assert after_the_rate(warming, 0.12) >= 1.0


def test_a_run_that_begins_anew_knows_nothing_of_its_rows() -> None:
    state = FeatureState()
    for step in range(0, 2_000, 50):
        observe(state, StepSample(step=step, at=0, ranks=1, loss=2.5, grad_norm=None, nonfinite=0))
    assert state.loss.alone
    features.restart(state)
    observe(state, StepSample(step=2_000, at=0, ranks=1, loss=2.5, grad_norm=None, nonfinite=0))
    assert not state.loss.alone


def rewarmed(rise: float, over: int = 400) -> float:
    """The largest `instability` where a rate is raised tenfold over so many steps, and the loss by so much with it."""
    rates: list[float | None] = [3e-5] * 200
    rates += [3e-5 + 2.7e-4 * min(1.0, step / over) for step in range(over + 200)]
    return after_the_rate(rates, rise, steps=over)


def test_a_rate_that_is_raised_slowly_explains_a_climb_of_less_than_a_quarter() -> None:
    assert rewarmed(0.15) < 1.0
    assert rewarmed(0.6, over=200) >= 1.0
    assert after_the_rate([3e-4] * 800, 0.15, steps=400) >= 1.0


def among_harder_batches(lasting: int) -> list[int]:
    """The steps that alarm where one batch in fifty is half as high again, with three times the norm, and from step
    2,000 on so many in a row are.
    """
    rng, state, found = random.Random(11), FeatureState(), []
    for step in range(2_100):
        hard = rng.random() < 0.02 or 2_000 <= step < 2_000 + lasting
        loss = 2.5 * (1.5 if hard else 1.0) * (1.0 + NOISE * rng.gauss(0.0, 1.0))
        norm = (3.0 if hard else 1.0) * (1.0 + 0.1 * rng.gauss(0.0, 1.0))
        sample = StepSample(step=step, at=0, ranks=1, loss=loss, grad_norm=norm, nonfinite=0)
        if observe(state, sample).get("instability", 0.0) >= 1.0:
            found.append(step)
    return found


def test_what_comes_again_and_again_is_no_alarm_until_more_come_in_a_row_than_chance_makes() -> None:
    assert among_harder_batches(lasting=0) == []
    assert among_harder_batches(lasting=2) == []
    assert among_harder_batches(lasting=20)[0] in (2_002, 2_003)


def rising_from_the_start(norm_rises: bool) -> float:
    """The largest `loss_drift` of a loss that has never come down, and leaves its first level before it is known."""
    rng, state, most = random.Random(3), FeatureState(), 0.0
    for step in range(300):
        climbed = 0.006 * max(0, step - 90)
        norm = (1.0 + 2.0 * climbed * norm_rises) * (1.0 + 0.1 * rng.gauss(0.0, 1.0))
        loss = 0.05 * (1.0 + climbed) * (1.0 + 0.01 * rng.gauss(0.0, 1.0))
        seen = observe(state, StepSample(step=step, at=0, ranks=1, loss=loss, grad_norm=norm, nonfinite=0))
        most = max(most, seen.get("loss_drift", 0.0))
    return most


def test_a_loss_that_has_only_risen_climbs_if_its_gradient_does() -> None:
    assert rising_from_the_start(norm_rises=False) < 1.0
    assert rising_from_the_start(norm_rises=True) >= 1.0
