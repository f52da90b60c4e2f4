"""A scalar on a GPU is logged without waiting for the GPU, and arrives with the value it had."""

import time
from pathlib import Path

import pytest
import torch

from pilothouse.events.telemetry import StepBatch
from pilothouse.tests.outbox_bench import MemoryLog, open_run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_logging_a_gpu_scalar_never_waits_for_the_gpu(tmp_path: Path) -> None:
    log = MemoryLog()
    with open_run(tmp_path, log) as run:
        run.log(0, loss=torch.ones((), device="cuda"))  # the first allocates pinned memory, which may wait
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            torch.cuda._sleep(2_000_000_000)  # type: ignore[no-untyped-call]  # a second of work
            loss = torch.ones((), device="cuda")
            before = time.perf_counter()
            for step in range(1, 100):
                loss.add_(1.0)
                run.log(step, loss=loss, lr=0.1)
            took = time.perf_counter() - before
        finally:
            torch.cuda.set_sync_debug_mode("default")
        busy = not torch.cuda.current_stream().query()
    batches = [fact for fact in log.facts() if isinstance(fact, StepBatch)]
    assert busy
    assert took < 0.5
    assert [value for batch in batches for value in batch.metrics["loss"]] == [float(step) for step in range(1, 101)]
