"""What a script may log, and what becomes of the rest: counted, said once, never raised."""

import gc
import logging
import math
import sys
from decimal import Decimal
from fractions import Fraction
from types import FunctionType, ModuleType
from typing import Any

import numpy
import pytest
import torch

from pilothouse.producers.bad_calls import BadCalls
from pilothouse.producers.metrics.devices import InFlight
from pilothouse.producers.metrics.values import MAX_NAME_LENGTH, MAX_NAMES, Admission, Admitted, Refused, read


class Awkward:
    """A number that refuses to be one."""

    def __float__(self) -> float:
        raise RuntimeError("no")

    def __index__(self) -> int:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")


class Wordy(Fraction):
    """A number that refuses to be one, at length."""

    def __float__(self) -> float:
        raise RuntimeError("no\n" * 1_000)


@pytest.fixture
def bad_calls() -> BadCalls:
    return BadCalls()


@pytest.fixture
def admission(bad_calls: BadCalls) -> Admission:
    return Admission(bad_calls)


@pytest.mark.parametrize(
    "value,number",
    [
        (1.5, 1.5),
        (3, 3.0),
        (True, 1.0),
        (numpy.float32(0.5), 0.5),
        (numpy.float64(2.0), 2.0),
        (numpy.int64(-7), -7.0),
        (numpy.bool_(True), 1.0),
        (numpy.array(4.0), 4.0),
        (numpy.array([[5]]), 5.0),
        (torch.tensor(2.5), 2.5),
        (torch.tensor([[3]]), 3.0),
        (torch.tensor(True), 1.0),
        (torch.tensor(1.5, dtype=torch.bfloat16), 1.5),
        (torch.tensor(2.0, requires_grad=True), 2.0),
        (Fraction(1, 4), 0.25),
        (Decimal("0.75"), 0.75),
        (math.inf, math.inf),
        (torch.tensor(-math.inf), -math.inf),
    ],
)
def test_every_kind_of_real_scalar_is_a_number(value: object, number: float) -> None:
    assert read(value, InFlight()) == number


def test_nan_is_a_number_like_any_other() -> None:
    assert math.isnan(read(float("nan"), InFlight()))  # type: ignore[arg-type]
    assert math.isnan(read(torch.tensor(float("nan")), InFlight()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value,reason",
    [
        ("0.5", "metric_type"),
        (None, "metric_type"),
        ([1.0], "metric_type"),
        (1j, "metric_type"),
        (10**400, "metric_type"),
        (Awkward(), "metric_type"),
        (numpy.array([1.0, 2.0]), "metric_shape"),
        (numpy.array([]), "metric_shape"),
        (numpy.array("x"), "metric_type"),
        (torch.zeros(2), "metric_shape"),
        (torch.zeros(0), "metric_shape"),
        (torch.tensor(1j), "metric_type"),
        (torch.zeros((), device="meta"), "metric_type"),
    ],
)
def test_what_is_no_real_scalar_is_refused_with_its_reason(value: object, reason: str) -> None:
    refused = read(value, InFlight())
    assert isinstance(refused, Refused)
    assert refused.reason == reason


def test_a_tensor_is_read_at_once_so_that_the_script_may_change_it(admission: Admission) -> None:
    loss = torch.tensor(1.0)
    admitted = admission.admit(0, (), {"loss": loss})
    loss.fill_(9.0)
    assert admitted == Admitted(0, {"loss": 1.0})


def test_the_good_metrics_of_a_bad_call_are_kept(admission: Admission, bad_calls: BadCalls) -> None:
    metrics: dict[str, Any] = {"loss": 1.0, "image": torch.zeros(3, 3), "note": "hello", "x" * 201: 1.0}
    assert admission.admit(7, (), metrics) == Admitted(7, {"loss": 1.0})
    assert bad_calls.take() == {"metric_shape": 1, "metric_type": 1, "metric_name": 1}


@pytest.mark.parametrize("step", [-1, 1.0, "3", None, True, 2**62, torch.tensor(3), numpy.bool_(True), Awkward()])
def test_a_step_that_is_no_whole_number_from_zero_is_refused(
    step: object, admission: Admission, bad_calls: BadCalls
) -> None:
    assert admission.admit(step, (), {"loss": 1.0}) is None
    assert bad_calls.take() == {"step": 1}


def test_repeated_backward_and_foreign_steps_are_steps(admission: Admission) -> None:
    steps: list[object] = [5, 5, 3, numpy.int32(9), 0]
    admitted = [admission.admit(step, (), {"loss": 1.0}) for step in steps]
    assert admitted == [Admitted(step, {"loss": 1.0}) for step in (5, 5, 3, 9, 0)]


def test_a_step_by_keyword_is_understood(admission: Admission) -> None:
    assert admission.admit(None, (), {"step": 4, "loss": 1.0}) == Admitted(4, {"loss": 1.0})


def test_metrics_in_a_dict_are_pointed_at_the_right_spelling(
    admission: Admission, bad_calls: BadCalls, caplog: pytest.LogCaptureFixture
) -> None:
    assert admission.admit(4, ({"loss": 1.0},), {}) is None
    assert bad_calls.take() == {"call": 1}
    assert "run.log(step, **metrics)" in caplog.text


def held_bytes(*roots: object) -> int:
    """The size of everything that these objects keep alive, code aside."""
    seen: dict[int, object] = {}
    waiting: list[object] = list(roots)
    while waiting:
        one = waiting.pop()
        if id(one) not in seen and not isinstance(one, type | ModuleType | FunctionType):
            seen[id(one)] = one
            waiting += gc.get_referents(one)
    return sum(map(sys.getsizeof, seen.values()))


def test_a_million_names_cost_no_memory_and_one_line(
    admission: Admission, bad_calls: BadCalls, caplog: pytest.LogCaptureFixture
) -> None:
    def log_names(first: int, last: int) -> None:
        for step in range(first, last, 100):
            names = {f"{name:0{MAX_NAME_LENGTH}}": 1.0 for name in range(step, min(step + 100, last))}
            assert admission.admit(step, (), {"loss": 1.0} | names) is not None

    log_names(0, MAX_NAMES + 100)
    full = held_bytes(admission, bad_calls)
    log_names(MAX_NAMES + 100, 1_000_000)
    assert held_bytes(admission, bad_calls) <= full < MAX_NAMES * (MAX_NAME_LENGTH + 150)
    assert bad_calls.take() == {"metric_limit": 1_000_000 - (MAX_NAMES - 1)}  # `loss` is one of the names
    (record,) = caplog.records
    assert f"at most {MAX_NAMES} metric names" in record.getMessage()
    known, new = (f"{name:0{MAX_NAME_LENGTH}}" for name in (0, 1_000_000))
    assert admission.admit(0, (), {known: 2.0, new: 2.0}) == Admitted(0, {known: 2.0})


def test_a_name_that_is_no_text_is_refused(admission: Admission, bad_calls: BadCalls) -> None:
    assert admission.admit(0, (), {"\ud800": 1.0}) is None
    assert bad_calls.take() == {"metric_name": 1}


def test_a_bad_call_is_said_once_with_the_line_that_made_it(
    admission: Admission, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="pilothouse"):
        for _ in range(3):
            admission.admit(0, (), {"loss": "high"})
    (record,) = caplog.records
    assert "test_values.py:" in record.getMessage()
    assert "str is no number" in record.getMessage()


def test_a_long_error_of_a_strange_number_is_one_line(admission: Admission, caplog: pytest.LogCaptureFixture) -> None:
    assert admission.admit(0, (), {"loss": Wordy(1)}) is None
    (record,) = caplog.records
    assert "RuntimeError: no no" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert len(record.getMessage()) < 600
