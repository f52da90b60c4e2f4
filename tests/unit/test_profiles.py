"""The distribution of an input over windows: edges that stay, samples that see everything, and nothing left unsaid."""

import math
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.events.telemetry import DataProfiled
from pilothouse.producers.delivery.batching import Told
from pilothouse.producers.delivery.telling import refusal
from pilothouse.producers.metrics.profiles import (
    BINS,
    PENDING,
    SAMPLE,
    NoNumbers,
    Profiles,
    Sampled,
    _stride,
    edges_of,
    sample,
)
from pilothouse.tests.outbox_bench import WHO


def given_to(
    profiles: Profiles, values: Any, step: int = 0, *, window: int = 2, schema: str = "", who: Any = WHO
) -> None:
    seen, some = sample(values)
    profiles.add(Sampled(who, "length", schema, step, window, seen, some))


def told(profiles: Profiles, *, last: bool = False) -> list[dict[str, Any]]:
    fields = [profile.fields for profile in profiles.take(last=last)]
    assert all(refusal(Told(WHO, 1, DataProfiled, one)) is None for one in fields)
    return fields


def test_a_window_is_a_profile_and_its_edges_stay() -> None:
    profiles = Profiles()
    for step in range(4):
        given_to(profiles, [float(value + 100 * (step // 2)) for value in range(100)], step)
    first, second = told(profiles)
    assert (first["step"], second["step"]) == (1, 3)
    assert first["edges"] == second["edges"]
    assert len(first["counts"]) == len(first["edges"]) + 1 == BINS
    assert max(first["counts"]) <= 2 * min(first["counts"])  # quantiles: the first window fills them alike
    assert second["counts"] == (*[0] * (BINS - 1), 200)  # all that came later lies above
    assert second["numbers"]["mean"] == pytest.approx(149.5)
    assert first["numbers"] == pytest.approx({"mean": 49.5, "std": 28.866, "least": 0.0, "greatest": 99.0}, abs=1e-3)


def test_what_was_not_looked_at_is_said() -> None:
    profiles = Profiles()
    for step in range(2):
        given_to(profiles, numpy.arange(100_000), step)
    [one] = told(profiles)
    assert (one["batches"], one["values_seen"], one["values_sampled"]) == (2, 200_000, 2 * SAMPLE)
    assert sum(one["counts"]) == 2 * SAMPLE


def test_values_that_are_no_numbers_are_counted_in_no_bin() -> None:
    profiles = Profiles()
    given_to(profiles, [1.0, math.nan, math.inf, 2.0])
    given_to(profiles, [math.nan])
    [one] = told(profiles)
    assert (one["values_sampled"], one["non_finite"], sum(one["counts"])) == (5, 3, 2)
    assert one["numbers"]["mean"] == 1.5


def test_the_last_window_is_told_though_it_is_not_full() -> None:
    profiles = Profiles()
    given_to(profiles, [1.0], window=100)
    assert told(profiles) == []
    [one] = told(profiles, last=True)
    assert (one["batches"], one["counts"]) == (1, (1, 0))
    assert told(profiles, last=True) == []


def test_another_schema_begins_anew() -> None:
    profiles = Profiles()
    given_to(profiles, [1.0, 2.0], schema="v1", step=4)
    given_to(profiles, [10.0, 20.0], schema="v2", step=5)
    given_to(profiles, [10.0, 20.0], schema="v2", step=6)
    one, two = told(profiles)
    assert (one["data_schema"], one["step"], one["batches"]) == ("v1", 4, 1)
    assert (two["data_schema"], two["step"], two["batches"]) == ("v2", 6, 2)
    assert two["edges"] == (10.0, 20.0)


def test_another_attempt_closes_the_window_and_keeps_the_edges() -> None:
    profiles = Profiles()
    given_to(profiles, [1.0, 2.0], window=100)
    given_to(profiles, [1.0, 5.0], window=100, who=WHO._replace(attempt_id="second"))
    one, two = list(profiles.take(last=True))
    assert (one.identity.attempt_id, two.identity.attempt_id) == ("attempt-1", "second")
    assert one.fields["edges"] == two.fields["edges"] == (1.0,)
    assert two.fields["counts"] == (1, 1)


def test_one_value_for_all_is_one_edge() -> None:
    assert edges_of([3.0] * 50) == (3.0,)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=300))
def test_every_value_lies_in_one_bin(values: list[float]) -> None:
    profiles = Profiles()
    given_to(profiles, values)
    [one] = told(profiles, last=True)
    assert sum(one["counts"]) == one["values_sampled"] == min(len(values), SAMPLE) - one["non_finite"]
    assert list(one["edges"]) == sorted(set(one["edges"]))


@pytest.mark.parametrize(
    "values",
    [
        torch.arange(600_000).reshape(600, 1_000),
        torch.arange(600_000.0).reshape(1_000, 600).T,
        numpy.arange(600_000, dtype="float32").reshape(600, 1_000),
        torch.arange(600_000.0, dtype=torch.float64).requires_grad_(),
        list(range(600_000)),
    ],
    ids=lambda values: type(values).__name__,
)
def test_a_sample_is_small_and_spread_over_all(values: Any) -> None:
    seen, some = sample(values)
    assert seen == 600_000
    assert len(some) == SAMPLE
    assert min(some) < 60_000
    assert max(some) > 500_000


@given(st.lists(st.integers(1, 3_000), min_size=1, max_size=3))
def test_a_sample_sees_more_than_one_column(shape: list[int]) -> None:
    stride = _stride(shape)
    assert stride == 1 or all(math.gcd(stride, side) == 1 for side in shape)
    assert stride <= max(1, math.prod(shape) // SAMPLE)


@pytest.mark.parametrize(
    "values",
    ["text", ["a"], numpy.array(["a"]), torch.zeros(2, dtype=torch.complex64), torch.zeros(2, device="meta"), None, {}],
)
def test_what_is_no_numbers_is_refused(values: Any) -> None:
    with pytest.raises(NoNumbers, match="a profile is of numbers"):
        sample(values)


def test_samples_that_nobody_took_are_bounded_and_counted() -> None:
    profiles = Profiles()
    for step in range(PENDING + 10):
        given_to(profiles, [1.0, 2.0], step, window=10**9)
    [one] = told(profiles, last=True)
    assert (one["values_seen"], one["values_sampled"]) == (2 * (PENDING + 10), 2 * PENDING)


def test_only_so_many_features_are_profiled() -> None:
    profiles = Profiles()
    known = [name for name in map(str, range(100)) if profiles.room_for(name)]
    assert len(known) == 64
    assert profiles.room_for("3")
