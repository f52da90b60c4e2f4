"""What `run.log` does on the training thread: an append, and nothing else. By what is called, not by how long it takes:
no clock is looked at here.
"""

import gc
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from pilothouse.events.telemetry import StepBatch, TelemetryGap
from pilothouse.producers.delivery import outbox as outbox_module
from pilothouse.producers.delivery.batching import MAX_ROWS, Outgoing
from pilothouse.producers.delivery.spool import Spool
from pilothouse.producers.run import Run
from pilothouse.settings import Settings
from pilothouse.tests.outbox_bench import WHO, Bench, MemoryLog, open_run, wait_until

METRICS = {f"metric{number}": number / 7 for number in range(11)} | {"tokens": 4_096}
DEADLINE = 20.0


def quiet_run(folder: Path) -> tuple[Run, Bench]:
    """A run without a thread of its own, after its first row."""
    bench = Bench(folder)
    run = Run(WHO, Settings(data_dir=folder), {}, bench.outbox)
    run.log(0, **METRICS)
    bench.settle()
    return run, bench


def called_by(call: Callable[[], object]) -> list[str]:
    """Every function, of Python's or of C's, that this thread enters during `call`."""
    names: list[str] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            names.append(frame.f_code.co_name)
        elif event == "c_call":
            names.append(argument.__name__)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return names[1:-1]  # without `call` itself and `setprofile`


def test_a_row_of_numbers_is_appended_and_nothing_else_is_called(tmp_path: Path) -> None:
    run, bench = quiet_run(tmp_path)
    names = called_by(lambda: run.log(1, **METRICS))
    assert set(names) <= {"log", "len", "values", "time_ns", "append"}
    assert names.count("append") == 1
    assert len(names) <= 7
    bench.settle()
    batch = bench.log.facts()[-1]
    assert isinstance(batch, StepBatch)
    assert batch.steps == (1,)
    assert {name: column[0] for name, column in batch.metrics.items()} == METRICS


def test_neither_first_names_nor_mistakes_nor_a_long_queue_reach_for_network_or_disk(tmp_path: Path) -> None:
    run, _ = quiet_run(tmp_path)
    run.log(0, loss="said once, in the log")

    def calls() -> None:
        run.log(1, another=1.0)
        run.log(2, loss="high")
        for step in range(MAX_ROWS + 10):
            run.log(step, **METRICS)

    touched = {"open", "write", "send", "sendall", "connect", "flush", "fsync", "sleep", "wait", "select", "poll"}
    assert not touched & set(called_by(calls))


def test_many_calls_leave_no_memory_behind(tmp_path: Path) -> None:
    run, bench = quiet_run(tmp_path)

    def log_many(first: int) -> int:
        for step in range(first, first + 1_500):
            run.log(step, **METRICS)
            if step % 250 == 0:
                bench.settle()
                bench.log.records.clear()
                bench.log.confirmed.clear()
        bench.settle()
        gc.collect()
        return sys.getallocatedblocks()

    bench.log.facts = list  # type: ignore[method-assign]  # the double keeps no history here
    log_many(0)
    before = log_many(1_500)
    assert max(log_many(first) for first in (3_000, 4_500, 6_000)) - before < 300


class Stuck:
    """Something that is entered and does not return until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.released = threading.Event()
        self.timed_out = False

    def __call__(self) -> None:
        self.entered.set()
        self.timed_out |= not self.released.wait(DEADLINE)


class StuckLog(MemoryLog):
    """A network that takes for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.stuck = Stuck()

    def send(self, record: Outgoing) -> None:
        self.stuck()
        super().send(record)


def goes_on_while(stuck: Stuck, run: Run) -> None:
    """Two thousand rows are logged and the accounts asked while somebody is stuck; the law of the accounts holds."""
    run.log(0, **METRICS)
    assert stuck.entered.wait(DEADLINE)
    for step in range(1, 2_000):
        run.log(step, **METRICS)
    counts = run.counts()
    assert counts.accepted == counts.sent + counts.queued + counts.spooled + counts.dropped
    assert not stuck.released.is_set()
    stuck.released.set()
    wait_until(lambda: run.counts().accepted == 2_000 + 2)  # RunStarted, StageChanged
    assert not stuck.timed_out
    assert run.counts().dropped == 0


def test_no_lock_is_held_while_the_network_is_waited_for(tmp_path: Path) -> None:
    log = StuckLog()
    with open_run(tmp_path, log) as run:
        goes_on_while(log.stuck, run)


def test_no_lock_that_a_call_needs_is_held_while_the_disk_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = Stuck()
    append = Spool.append

    def slowly(spool: Spool, record: Outgoing) -> bool:
        stuck()
        return append(spool, record)

    monkeypatch.setattr(Spool, "append", slowly)
    monkeypatch.setattr(outbox_module, "CONFIRM_SECONDS", 0.0)
    log = MemoryLog(up=False)
    with open_run(tmp_path, log) as run:
        goes_on_while(stuck, run)
        log.up = True


def test_a_bad_name_in_a_row_that_nobody_looked_into_is_counted_and_costs_its_row_no_other_metric(
    tmp_path: Path,
) -> None:
    run, bench = quiet_run(tmp_path)
    good = dict(list(METRICS.items())[1:])
    run.log(1, **good, **{"x" * 201: 1.0})
    run.log(2, **dict.fromkeys((f"{number}" + "y" * 200 for number in range(len(METRICS))), 1.0))
    bench.clock.now += 3
    bench.settle()
    batches = [fact for fact in bench.log.facts() if isinstance(fact, StepBatch)]
    assert (batches[-1].steps, set(batches[-1].metrics)) == ((1,), set(good))
    gaps = [fact for fact in bench.log.facts() if isinstance(fact, TelemetryGap)]
    assert (gaps[-1].refused, gaps[-1].dropped) == ({"metric_name": 1 + len(METRICS)}, {})
    counts = run.counts()
    assert counts.accepted == counts.sent + counts.dropped
