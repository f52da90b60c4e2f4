"""What `Recent` keeps in order as values come and go is what sorting them anew would give."""

import statistics

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.stream_processors.detectors.usual import (
    FEW,
    MAD_TO_SIGMA,
    MAX_WARMUP,
    MIN_BASELINE,
    RENEWED,
    WINDOW,
    Recent,
)

VALUES = st.one_of(st.floats(-5.0, 5.0), st.sampled_from([0.0, -0.0, 1.0, 1e150, -1e150]))
PUSHES = st.lists(VALUES, min_size=1, max_size=40)
SPANS = st.lists(st.tuples(PUSHES, st.one_of(st.none(), st.integers(0, 60))), min_size=1, max_size=8)
"""Values that come, and how many steps the run then goes back."""


def scatter(values: list[float]) -> float:
    half = len(values) // 2
    halves = (values[:half], values[half:])
    away = [abs(value - statistics.median(part)) for part in halves for value in part]
    return MAD_TO_SIGMA * statistics.median(away)


@given(SPANS)
def test_location_and_scatter_are_those_of_the_window_itself(spans: list[tuple[list[float], int | None]]) -> None:
    recent, step, renewed = Recent(), 0, 0.0
    for values, back in spans:
        for value in values:
            was_full = len(recent.values) == WINDOW
            recent.push(step, value, None)
            step += 1
            assert recent.newer == sorted(recent.values[len(recent.values) // 2 :])
            if not was_full or recent.begun % RENEWED == 0:
                renewed = scatter(recent.values)
            usual = recent.baseline(0.0)
            count = len(recent.values)
            assert usual is None or count >= MIN_BASELINE
            assert usual is not None or count < MAX_WARMUP
            if usual is not None:
                assert usual.location == statistics.median(recent.values[count // 2 :])
                few = 1.0 if count == WINDOW else 1.0 + FEW * (1.0 / count - 1.0 / WINDOW)
                assert usual.noise == renewed * few
        if back is not None:
            step = max(0, step - back)
            recent.rewind(step - 1)
            renewed = scatter(recent.values) if recent.values else 0.0
            assert recent.steps == sorted(recent.steps)
            assert recent.newer == sorted(recent.values[len(recent.values) // 2 :])


@given(PUSHES, PUSHES)
def test_another_unit_is_taken_to_all_that_is_kept(values: list[float], later: list[float]) -> None:
    recent = Recent()
    for step, value in enumerate(values):
        recent.push(step, value, None)
    recent.transform(lambda value: value / 2.0)
    assert recent.values == [value / 2.0 for value in values[-WINDOW:]]
    for step, value in enumerate(later, len(values)):
        recent.push(step, value, None)
        assert recent.newer == sorted(recent.values[len(recent.values) // 2 :])
