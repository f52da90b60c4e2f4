"""Faults strike where and when they were planned, and nowhere else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.events.errors import UserMistake
from pilothouse.producers.faults import (
    Fault,
    InjectedFault,
    Injector,
    Moment,
    corrupted,
    read_faults,
    strikes,
    write_faults,
)

PLAN = "corrupt_data@batch/0?first=40&last=55; scale_lr@optimizer/150?factor=80;raise@grad/3/2*2"


def test_a_plan_is_read_as_it_is_written() -> None:
    assert read_faults(PLAN) == (
        Fault("corrupt_data", "batch", 0, None, 0, {"first": 40.0, "last": 55.0}),
        Fault("scale_lr", "optimizer", 150, None, 1, {"factor": 80.0}),
        Fault("raise", "grad", 3, 2, 2),
    )
    assert read_faults("") == read_faults(" ; ") == ()


FAULTS = st.builds(
    Fault,
    what=st.sampled_from(["nan_grad", "raise", "sigkill", "sigstop"]),
    point=st.sampled_from(["batch", "forward", "grad", "optimizer", "safe_point", "checkpoint", "after_command"]),
    step=st.integers(0, 10**9),
    rank=st.none() | st.integers(0, 10_000),
    times=st.integers(1, 100),
) | st.builds(
    Fault,
    what=st.just("scale_lr"),
    point=st.just("optimizer"),
    step=st.integers(0, 10**9),
    numbers=st.fixed_dictionaries({"factor": st.floats(1e-6, 1e6).map(lambda value: float(f"{value:.12g}"))}),
)


@given(st.lists(FAULTS, max_size=5))
def test_every_plan_survives_being_written_and_read(plan: list[Fault]) -> None:
    assert read_faults(write_faults(plan)) == tuple(plan)


@pytest.mark.parametrize(
    "text, says",
    [
        ("nonsense", "is no fault; write one as"),
        ("explode@batch/1", "a fault is one of corrupt_data"),
        ("raise@nowhere/1", "at one of batch, forward"),
        ("scale_lr@optimizer/1", "needs factor"),
        ("scale_lr@optimizer/1?factor=x", "factor must be a number"),
        ("raise@grad/1?loud=1", "raise takes no numbers"),
    ],
)
def test_a_wrong_plan_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(UserMistake, match=says):
        read_faults(text)


def test_a_fault_strikes_at_its_point_step_and_rank_so_often_as_planned() -> None:
    fault = Fault("raise", "grad", 3, 2, 2)
    assert strikes(fault, Moment("grad", 2, 3), 0)
    assert strikes(fault, Moment("grad", 2, 3), 1)
    assert not strikes(fault, Moment("grad", 2, 3), 2)
    assert not strikes(fault, Moment("grad", 1, 3), 0)
    assert not strikes(fault, Moment("grad", 2, 4), 0)
    assert not strikes(fault, Moment("forward", 2, 3), 0)


def test_an_injector_counts_each_fault_of_the_plan_by_itself() -> None:
    injector = Injector(read_faults("raise@grad/3;raise@grad/5"))
    with pytest.raises(InjectedFault, match="planned: raise@grad/3"):
        injector.at("grad", 0, 3)
    injector.at("grad", 0, 3)
    with pytest.raises(InjectedFault):
        injector.at("grad", 0, 5)


def test_data_is_corrupt_by_its_position_whatever_the_step() -> None:
    injector = Injector(read_faults(PLAN))
    batch = torch.arange(100)
    spoilt = [position for position in range(60) if not injector.batch(0, 7, position, batch).equal(batch)]
    assert spoilt == list(range(40, 56))


def test_corruption_is_the_same_each_time_and_keeps_shape_and_range() -> None:
    batch = {"x": torch.arange(50).reshape(5, 10), "y": (torch.zeros(3), "label")}
    once, again, other = corrupted(batch, 1, 10.0), corrupted(batch, 1, 10.0), corrupted(batch, 2, 10.0)
    assert once["x"].equal(again["x"])
    assert not once["x"].equal(other["x"])
    assert once["x"].shape == (5, 10)
    assert 0 <= int(once["x"].min()) <= int(once["x"].max()) <= 49
    assert once["y"][1] == "label"
    assert float(once["y"][0].abs().max()) > 0


def test_a_learning_rate_fault_outlives_the_scheduler() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    injector = Injector(read_faults("scale_lr@optimizer/4?factor=50"))
    for step in range(10):
        injector.at("optimizer", 0, step, optimizer, scheduler)
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(5.0)


def test_a_spoilt_gradient_is_not_a_number() -> None:
    model = torch.nn.Linear(2, 1)
    model(torch.ones(2)).sum().backward()
    Injector(read_faults("nan_grad@grad/0")).at("grad", 0, 0, model)
    assert any(parameter.grad is not None and bool(parameter.grad.isnan().any()) for parameter in model.parameters())
