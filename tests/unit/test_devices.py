"""A scalar on an accelerator is copied and never waited for on the training thread, and no more than so many are.

There is no accelerator here: the tensors only say that they are on one, and CUDA is a queue that does its work when it
is told to (`tests.accelerators`). The real one is shown where there is a GPU, by tests/integration/test_values_cuda.py.
"""

import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from pilothouse.events.telemetry import StepBatch, TelemetryGap
from pilothouse.producers.metrics import devices
from pilothouse.producers.metrics.devices import InFlight, OnCuda, OnDevice
from pilothouse.producers.metrics.values import Refused, read
from pilothouse.producers.run import Run
from pilothouse.settings import Settings
from pilothouse.tests.accelerators import Asked, FakeCuda, OnAccelerator
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


def test_on_cuda_the_training_thread_enqueues_a_copy_and_an_event_and_another_asks_whether_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = FakeCuda(monkeypatch)
    log, here = MemoryLog(), threading.get_ident()
    with open_run(tmp_path, log) as run:
        loss: torch.Tensor = cuda.scalar(0.0)
        for step in range(20):
            run.log(step, loss=loss, lr=0.1)
            loss += 1.0  # what was logged keeps the value that it had
        assert cuda.words(here) == ["aten.detach.default", "copy", "record", "aten.add_.Tensor"] * 20
        cuda.work()
    elsewhere = {word for thread, word in cuda.asked if thread != here}
    assert elsewhere == {"query"}
    assert cuda.pinned == [devices.MAX_IN_FLIGHT * devices.BYTES]
    batches = [fact for fact in log.facts() if isinstance(fact, StepBatch)]
    assert [value for batch in batches for value in batch.metrics["loss"]] == list(range(20))


def test_a_copy_is_done_when_its_event_is_reached_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, in_flight = FakeCuda(monkeypatch), InFlight(8)
    values = [
        (1.5, torch.float32),
        (-2.5, torch.bfloat16),
        (1e300, torch.float64),
        (2**40, torch.int64),
        (1, torch.bool),
    ]
    copies = [read(cuda.scalar(*value), in_flight) for value in values]
    for number, copy in enumerate(copies):
        assert isinstance(copy, OnCuda)
        assert not copy.ready()
        cuda.work(1)
        assert not copy.ready()
        cuda.work(1)
        assert [other.ready() for other in copies[: number + 2]] == [True] * (number + 1) + [False] * (number < 4)  # type: ignore[union-attr]  # all are copies
    assert [copy.value() for copy in copies] == [value for value, _ in values]  # type: ignore[union-attr]  # all are copies
    assert cuda.pinned == [8 * devices.BYTES]


def test_a_place_that_an_abandoned_copy_may_still_be_written_to_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, in_flight = FakeCuda(monkeypatch), InFlight(1)
    abandoned = read(cuda.scalar(1.0), in_flight)
    del abandoned
    second = read(cuda.scalar(2.0), in_flight)
    assert isinstance(second, OnDevice)  # kept on the device: a place is missing, not a right
    cuda.work()
    assert second.value() == 2.0
    del second
    third = read(cuda.scalar(3.0), in_flight)
    assert isinstance(third, OnCuda)
    cuda.work()
    assert (third.ready(), third.value()) == (True, 3.0)
    assert "synchronous copy" not in cuda.words(threading.get_ident())
