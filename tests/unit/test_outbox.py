"""The outbox's promises one by one, with a log in memory and a clock by hand."""

import math
from pathlib import Path

import pytest

from pilothouse.events.telemetry import (
    EvalCompleted,
    Heartbeat,
    RunEnded,
    SampleRecorded,
    StageChanged,
    StepBatch,
    TelemetryGap,
)
from pilothouse.producers.delivery import outbox as outbox_module
from pilothouse.producers.delivery.batching import Row, Told
from pilothouse.producers.delivery.kafka import State
from pilothouse.producers.delivery.spool import read_folder
from pilothouse.tests.outbox_bench import WHO, Bench, MemoryLog


class OnItsWay:
    """A number on a device that a test makes arrive."""

    def __init__(self, value: float = 1.0) -> None:
        self.arrived = False
        self._value = value

    def ready(self) -> bool:
        return self.arrived

    def value(self) -> float:
        if math.isnan(self._value):
            raise RuntimeError("CUDA error: an illegal memory access")
        return self._value


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def log(bench: Bench, step: int, *deferred: OnItsWay) -> None:
    metrics = {"loss": 1.0} | {f"gpu{index}": number for index, number in enumerate(deferred)}
    bench.outbox.append(Row(WHO, bench.clock.micros(), step, metrics, tuple(deferred)))


def stage(bench: Bench, step: int) -> None:
    bench.outbox.append(Told(WHO, bench.clock.micros(), StageChanged, {"stage": "train", "step": step}))


def kinds(bench: Bench) -> list[str]:
    return [fact.kind for fact in bench.log.facts()]


def test_rows_wait_for_the_flush_and_told_facts_do_not(bench: Bench) -> None:
    bench.outbox.pump()
    log(bench, 1)
    bench.outbox.pump()
    assert kinds(bench) == []
    stage(bench, 1)
    bench.outbox.pump()
    bench.outbox.pump()
    assert kinds(bench) == ["step_batch", "stage_changed"]


def test_consecutive_rows_travel_in_one_record(bench: Bench) -> None:
    for step in range(5):
        log(bench, step)
    bench.settle()
    (batch,) = bench.log.facts()
    assert isinstance(batch, StepBatch)
    assert batch.steps == (0, 1, 2, 3, 4)


def test_the_heart_beats_with_what_the_run_is_doing(bench: Bench) -> None:
    bench.outbox.stage, bench.outbox.step = "train", 41
    log(bench, 41)
    bench.settle()
    bench.clock.now += 2.1
    bench.settle()
    beat = bench.log.facts()[-1]
    assert isinstance(beat, Heartbeat)
    assert (beat.stage, beat.step, beat.sent, beat.queued) == ("train", 41, 1, 0)


def test_no_heart_beats_into_the_spool(bench: Bench) -> None:
    bench.log.up = False
    log(bench, 1)
    for _ in range(10):
        bench.clock.now += 3
        bench.outbox.pump()
    bench.log.up = True
    bench.settle()
    assert kinds(bench) == ["step_batch"]


def test_with_the_broker_away_records_go_to_disk_at_once_and_leave_it_in_order(bench: Bench) -> None:
    bench.log.up = False
    for step in range(20):
        log(bench, step)
        bench.clock.now += 0.3
        bench.outbox.pump()
    assert bench.outbox.counts().spooled == 20
    on_disk = [record.seq for record in read_folder(bench.spool.folder)]
    assert on_disk == list(range(1, len(on_disk) + 1))
    bench.log.up = True
    bench.settle()
    assert [step for fact in bench.log.facts() if isinstance(fact, StepBatch) for step in fact.steps] == list(range(20))
    assert bench.outbox.counts().sent == 20
    assert not bench.spool.folder.exists()


def test_what_a_broker_does_not_confirm_at_once_goes_to_disk(bench: Bench) -> None:
    bench.log.prompt = False
    bench.outbox.pump()
    log(bench, 1)
    assert bench.outbox.rest_seconds() == pytest.approx(0.2)
    bench.clock.now += 0.2
    bench.outbox.pump()
    assert bench.outbox.counts().spooled == 0
    assert bench.outbox.rest_seconds() == pytest.approx(0.05)
    bench.clock.now += 0.051
    bench.outbox.pump()
    assert bench.outbox.counts().spooled == 1
    assert bench.outbox.rest_seconds() == pytest.approx(0.149)
    log(bench, 2)
    bench.clock.now += 0.15
    bench.outbox.pump()
    assert bench.outbox.counts().spooled == 2, "behind what is on disk there is no waiting"
    bench.spool.close()


class Connecting(MemoryLog):
    """Not there yet, and not known to be away."""

    @property
    def state(self) -> State:
        return "ready" if self.up else "connecting"


def test_a_run_that_begins_leaves_the_disk_alone_for_one_flush_interval(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Connecting(up=False))
    stage(bench, 0)
    bench.outbox.pump()
    bench.clock.now += 0.15
    log(bench, 1)
    bench.outbox.pump()
    assert bench.outbox.counts().spooled == 0
    bench.clock.now += 0.06
    bench.outbox.pump()
    assert bench.outbox.counts().spooled == 2
    log(bench, 2)
    bench.clock.now += 0.21
    bench.outbox.pump()
    assert bench.outbox.counts().spooled == 3, "then at each flush"
    bench.spool.close()


def test_news_from_the_broker_do_not_put_a_flush_off(bench: Bench) -> None:
    bench.outbox.pump()
    log(bench, 1)
    for _ in range(3):
        bench.clock.now += 0.06
        bench.outbox.pump()
    assert bench.outbox.rest_seconds() == pytest.approx(0.02)
    assert kinds(bench) == []


def test_an_attempt_ends_the_batch_before_it(bench: Bench) -> None:
    log(bench, 5)
    bench.outbox.append(Row(WHO._replace(attempt_id="next", attempt=2), 0, 3, {"loss": 1.0}))
    bench.settle()
    assert [(fact.attempt_id, fact.attempt) for fact in bench.log.facts()] == [("attempt-1", 1), ("next", 2)]


def test_a_full_queue_drops_new_rows_counts_them_and_lets_facts_through(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "CAPACITY", 3)
    for step in range(5):
        log(bench, step)
    stage(bench, 5)
    assert bench.outbox.counts() == (6, 0, 4, 0, 2)
    bench.clock.now += 3
    bench.settle()
    gaps = [fact.dropped for fact in bench.log.facts() if isinstance(fact, TelemetryGap)]
    assert gaps == [{"queue_full": 2}]
    assert bench.outbox.counts() == (6, 4, 0, 0, 2)


def test_losses_are_told_before_the_run_ends(bench: Bench) -> None:
    bench.outbox.append(Told(WHO, 0, SampleRecorded, {"step": 1, "name": "x", "output": "y" * 20_000}))
    bench.outbox.append(Told(WHO, 0, RunEnded, {"outcome": "completed", "step": 1}))
    bench.settle()
    gap, ended = bench.log.facts()
    assert isinstance(gap, TelemetryGap)
    assert gap.dropped == {"invalid": 1}
    assert isinstance(ended, RunEnded)


def test_a_record_the_broker_refuses_leaves_a_gap_with_its_number(bench: Bench) -> None:
    bench.log.limit = 500
    log(bench, 1)
    bench.outbox.append(Told(WHO, 0, SampleRecorded, {"step": 2, "name": "x", "output": "y" * 5_000}))
    stage(bench, 3)
    bench.settle()
    assert kinds(bench) == ["step_batch", "telemetry_gap", "stage_changed"]
    gap = bench.log.facts()[1]
    assert isinstance(gap, TelemetryGap)
    assert (gap.seq, gap.dropped) == (2, {"refused": 1})
    assert bench.outbox.counts() == (3, 2, 0, 0, 1)


def test_a_row_waits_for_its_gpu_numbers_and_nothing_overtakes_it(bench: Bench) -> None:
    number = OnItsWay(7.0)
    log(bench, 1)
    log(bench, 2, number)
    stage(bench, 2)
    bench.settle(3)
    assert kinds(bench) == ["step_batch"]
    number.arrived = True
    bench.settle()
    assert kinds(bench) == ["step_batch", "step_batch", "stage_changed"]
    batch = bench.log.facts()[1]
    assert isinstance(batch, StepBatch)
    assert batch.metrics == {"loss": (1.0,), "gpu0": (7.0,)}


def test_a_gpu_number_that_never_comes_holds_its_row_for_five_seconds_at_most(bench: Bench) -> None:
    log(bench, 1, OnItsWay())
    bench.clock.now += 6
    bench.settle()
    gap, batch, *_ = sorted(bench.log.facts(), key=lambda fact: fact.kind, reverse=True)
    assert isinstance(gap, TelemetryGap)
    assert gap.dropped == {"device_value": 1}
    assert isinstance(batch, StepBatch)
    assert batch.metrics == {"loss": (1.0,)}


def test_a_device_in_error_costs_its_number_and_no_more(bench: Bench) -> None:
    broken = OnItsWay(math.nan)
    broken.arrived = True
    metrics = {"loss": 1.0, "acc": broken}
    bench.outbox.append(Told(WHO, 0, EvalCompleted, {"step": 1, "metrics": metrics}, (broken,)))
    bench.settle()
    (evaluated,) = bench.log.facts()
    assert isinstance(evaluated, EvalCompleted)
    assert evaluated.metrics == {"loss": 1.0}


def test_what_the_broker_did_not_take_by_the_end_is_put_away(tmp_path: Path) -> None:
    bench = Bench(tmp_path, MemoryLog(up=False))
    for step in range(3):
        log(bench, step)
    assert bench.outbox.put_away() == 0
    assert bench.outbox.counts() == (3, 0, 0, 3, 0)
    assert sum(record.entries for record in read_folder(bench.spool.folder)) == 3


def test_without_a_disk_the_end_says_what_it_lost(tmp_path: Path) -> None:
    bench = Bench(tmp_path, MemoryLog(up=False), spool_bytes=0)
    for step in range(3):
        log(bench, step)
    assert bench.outbox.put_away() == 3
    assert bench.outbox.counts() == (3, 0, 0, 0, 3)


def test_a_disk_that_fills_up_stops_the_numbering_and_not_the_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "CAPACITY", 50)
    monkeypatch.setattr("pilothouse.producers.delivery.backlog.MEMORY_BYTES", 10_000)
    bench = Bench(tmp_path, MemoryLog(up=False), spool_bytes=2_000)
    for step in range(200):
        log(bench, step)
        bench.clock.now += 0.5
        bench.outbox.pump()
    before = bench.outbox.counts()
    assert before.dropped > 0
    bench.log.up = True
    bench.settle()
    steps = [step for fact in bench.log.facts() if isinstance(fact, StepBatch) for step in fact.steps]
    assert steps == list(range(len(steps)))
    assert len(steps) + before.dropped == 200
    assert [fact.seq for fact in bench.log.facts()] == list(range(1, len(bench.log.facts()) + 1))


def test_wide_rows_wait_in_smaller_numbers_and_no_narrow_one_passes_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "MAX_ROWS", 10)
    monkeypatch.setattr(outbox_module, "QUEUE_BYTES", 100_000)
    wide = {f"metric-{index}": 1.0 for index in range(100)}
    for step in range(30):
        bench.outbox.append((WHO, 0, step, dict(wide)))
    held = bench.outbox.counts().queued
    assert 10 < held < 20
    log(bench, 30)
    assert bench.outbox.counts().dropped == 31 - held, "what is kept has no holes"
    bench.settle()
    for step in range(100, 150):
        log(bench, step)
    assert bench.outbox.counts().dropped == 31 - held


def test_told_facts_that_wait_are_bounded_in_bytes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "TOLD_BYTES", 50_000)
    for dropped in (6, 12):
        for step in range(10):
            fields = {"step": step, "name": "x", "output": "y" * 10_000}
            bench.outbox.append(Told(WHO, bench.clock.micros(), SampleRecorded, fields))
        assert bench.outbox.counts().dropped == dropped
        bench.settle()
    assert bench.outbox.counts().sent == 8
