"""A scalar on an accelerator is copied and never waited for on the training thread, and no more than so many are.

There is no accelerator here: the tensors only say that they are on one (`tests.accelerators`). What CUDA itself does
with the copy is shown where there is a GPU, by tests/integration/test_values_cuda.py.
"""

import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from pilothouse.events.telemetry import StepBatch, TelemetryGap
from pilothouse.producers import devices
from pilothouse.producers.devices import InFlight, OnDevice
from pilothouse.producers.run import Run
from pilothouse.producers.values import Refused, read
from pilothouse.settings import Settings
from pilothouse.tests.accelerators import Asked, OnAccelerator
from pilothouse.tests.outbox_bench import WHO, Bench, MemoryLog, open_run

WAITS = {
    "item", "cpu", "tolist", "numpy", "__float__", "__int__", "__bool__", "__index__", "synchronize", "wait", "query",
    "aten._local_scalar_dense.default", "aten._to_copy.default", "aten.copy_.default", "aten.is_nonzero.default",
}  # fmt: skip
"""What makes a thread wait for a device: by its name in Python, and as PyTorch's operator."""


def logged_and_noted(run: Run, loss: torch.Tensor, steps: int) -> set[str]:
    """Every function that this thread enters while it logs."""
    names: set[str] = set()
    loss.detach().clone()  # the first one makes PyTorch import half of sympy

    def note(frame: FrameType, event: str, argument: Any) -> None:
        names.add(frame.f_code.co_name if event == "call" else getattr(argument, "__name__", event))

    for step in range(steps):
        sys.setprofile(note)
        try:
            run.log(step, loss=loss, lr=0.1)
        finally:
            sys.setprofile(None)
        loss += 1.0  # the script goes on: what was logged keeps the value that it had
    return names


def test_the_training_thread_never_waits_for_a_device(tmp_path: Path) -> None:
    asked: Asked = []
    log = MemoryLog()
    with open_run(tmp_path, log) as run:
        called = logged_and_noted(run, OnAccelerator(torch.zeros(()), asked), 20)
    here = {operator for thread, operator in asked if thread == threading.get_ident()}
    elsewhere = {operator for thread, operator in asked if thread != threading.get_ident()}
    assert called & WAITS == set()
    assert not here & WAITS
    assert {"aten.detach.default", "aten.clone.default"} <= here <= {
        "aten.detach.default", "aten.clone.default", "aten.add_.Tensor"
    }  # fmt: skip
    assert "aten._local_scalar_dense.default" in elsewhere  # it is read, by the outbox's thread
    batches = [fact for fact in log.facts() if isinstance(fact, StepBatch)]
    assert [value for batch in batches for value in batch.metrics["loss"]] == list(range(20))


def test_a_copy_gives_its_place_back_when_it_is_gone() -> None:
    in_flight = InFlight(1)
    tensor = OnAccelerator(torch.ones(()), [])
    first = read(tensor, in_flight)
    assert isinstance(first, OnDevice)
    second = read(tensor, in_flight)
    assert isinstance(second, Refused)
    assert second.reason == "device_limit"
    del first
    assert isinstance(read(tensor, in_flight), OnDevice)


def test_beyond_the_bound_values_are_dropped_counted_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path)
    run = Run(WHO, Settings(data_dir=tmp_path), {}, bench.outbox)
    monkeypatch.setattr(bench.outbox.admission, "_in_flight", InFlight(5))
    loss = OnAccelerator(torch.ones(()), [])
    for step in range(8):
        run.log(step, loss=loss, lr=0.1)
    bench.clock.now += 3
    bench.settle()
    (record,) = caplog.records
    assert "5 values are on their way" in record.getMessage()
    gaps = [fact for fact in bench.log.facts() if isinstance(fact, TelemetryGap)]
    assert [(gap.dropped, gap.refused) for gap in gaps] == [({"device_limit": 3}, {})]
    batches = [fact for fact in bench.log.facts() if isinstance(fact, StepBatch)]
    assert [len([1 for value in column if value is not None]) for column in batches[-1].metrics.values()] == [5, 8]
    run.log(9, loss=loss)
    bench.settle()
    assert bench.log.facts()[-1].metrics == {"loss": (1.0,)}
    assert InFlight().limit == devices.MAX_IN_FLIGHT
