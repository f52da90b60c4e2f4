"""The stability score: what it is of a run that goes well, and that nothing bad ever makes it better."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.events.decisions import Phase
from pilothouse.governance.score import WORTH, Score

PHASES = st.sampled_from(["Normal", "Stressed", "Unstable", "Diverged", "Stalled", "Recovering", "Unknown", "Warmup"])


def score(**fields: int) -> float:
    counted = {"steps": 1_000, "worth": 4_000, "trained": 1_000} | fields
    stability = Score(**counted).stability
    assert stability is not None
    return stability


def test_nothing_is_said_of_a_run_of_which_no_step_was_judged() -> None:
    assert Score().stability is None


def test_a_run_without_a_fault_has_a_hundred() -> None:
    counted = Score()
    for step in range(100):
        counted.judged(step, "Warmup" if step < 16 else "Normal")
        counted.passed("Normal")
    assert counted.stability == 100.0


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"worth": 3_800}, 95.0),  # a fifth of the steps stressed
        ({"undone": 100}, 90.0),
        ({"stalled": 1_000}, 50.0),
        ({"incidents": 50}, 50.0),
        ({"worth": 3_000, "undone": 500, "stalled": 1_000, "incidents": 50}, 100 * 0.75 * 0.5 * 0.5 * 0.5),
        ({"undone": 1_000}, 0.0),
        ({"trained": 0}, 100.0),
    ],
)
def test_the_score_is_the_product_of_its_shares(fields: dict[str, int], expected: float) -> None:
    assert score(**fields) == pytest.approx(expected)


def test_a_graver_phase_is_worth_less() -> None:
    in_order = ["Normal", "Stressed", "Recovering", "Unstable", "Diverged"]
    assert sorted(in_order, key=lambda phase: -WORTH[phase]) == in_order  # type: ignore[index]


@pytest.mark.parametrize("every", [1, 50])
def test_a_rollback_undoes_the_rows_of_the_steps_behind_it(every: int) -> None:
    counted = Score()
    for row in range(100):
        counted.judged(row * every, "Normal")
    counted.went_back(59 * every)
    assert counted.undone == pytest.approx(40, abs=1)
    counted.went_back(59 * every)
    assert counted.undone == pytest.approx(40, abs=1), "an attempt in which nothing was judged undoes nothing"


def test_a_restart_where_the_run_was_costs_nothing() -> None:
    counted = Score()
    for step in range(100):
        counted.judged(step, "Normal")
    counted.went_back(99)
    assert counted.stability == 100.0


@given(st.lists(st.tuples(PHASES, st.integers(0, 40), st.booleans(), st.booleans()), max_size=40))
def test_the_score_stays_within_its_bounds_and_incidents_and_stalls_only_lower_it(
    lived: list[tuple[Phase, int, bool, bool]],
) -> None:
    counted, step = Score(), 0
    for phase, back, goes_back, fails in lived:
        counted.judged(step, phase)
        counted.passed(phase)
        step += 1
        if goes_back:
            step = max(0, step - back)
            counted.went_back(step - 1)
        before = counted.stability
        counted.incidents += fails
        if before is not None:
            assert 0.0 <= before <= 100.0
            assert counted.stability is not None
            assert counted.stability <= before
            counted.stalled += 1
            assert counted.stability <= before
