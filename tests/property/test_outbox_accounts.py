"""The outbox under every order of calls, broker faults and full disks: what is lost is counted, and order holds."""

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pilothouse.events.telemetry import SampleRecorded, StepBatch, TelemetryGap
from pilothouse.producers.delivery import backlog, outbox, spool
from pilothouse.producers.delivery.batching import Row, Told
from pilothouse.producers.delivery.spool import read_folder
from pilothouse.tests.outbox_bench import WHO, Bench, MemoryLog, told


class OutboxMachine(RuleBasedStateMachine):
    """Calls are numbered by their step; the model is the list of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(outbox, "CAPACITY", 12)
        self.patch.setattr(outbox, "TOLD_CAPACITY", 16)
        self.patch.setattr(outbox, "WINDOW_RECORDS", 3)
        self.patch.setattr(outbox, "ALONE_BYTES", 5_000)
        self.patch.setattr(backlog, "MEMORY_BYTES", 20_000)
        self.patch.setattr(spool, "SEGMENT_BYTES", 900)
        self.accepted: list[int] = []
        self.attempt = WHO
        self.damaged = False

    @initialize(disk=st.sampled_from([0, 600, 5_000, 1_000_000]), up=st.booleans())
    def open(self, disk: int, up: bool) -> None:
        self.bench = Bench(self.folder, MemoryLog(prompt=False, up=up), spool_bytes=disk)
        self.log, self.outbox = self.bench.log, self.bench.outbox

    @rule(count=st.integers(1, 6))
    def log_rows(self, count: int) -> None:
        for _ in range(count):
            self.outbox.append(Row(self.attempt, self.bench.clock.micros(), self._number(), {"loss": 1.0}))

    @rule(length=st.sampled_from([1, 500, 3_000, 20_000]))
    def tell(self, length: int) -> None:
        fields = {"step": self._number(), "name": "x", "output": "y" * length}  # 20,000 characters are no valid fact
        self.outbox.append(Told(self.attempt, self.bench.clock.micros(), SampleRecorded, fields))

    @rule()
    def new_attempt(self) -> None:
        self.attempt = self.attempt._replace(attempt=self.attempt.attempt + 1)

    @rule(flush=st.booleans())
    def pump(self, flush: bool) -> None:
        self.outbox.pump(flush=flush)

    @rule(seconds=st.sampled_from([0.05, 0.5, 3.0]))
    def wait(self, seconds: float) -> None:
        self.bench.clock.now += seconds

    @rule(count=st.integers(1, 4))
    def broker_stores(self, count: int) -> None:
        self.log.store(count)

    @rule(stored=st.integers(0, 3))
    def connection_breaks(self, stored: int) -> None:
        self.log.lose(stored=stored)

    @rule(up=st.booleans())
    def broker_comes_and_goes(self, up: bool) -> None:
        if not up and self.log.up:
            self.log.lose()
        self.log.up = up

    @rule(limit=st.sampled_from([1_000, 10**9]))
    def broker_changes_its_limit(self, limit: int) -> None:
        self.log.limit = limit

    @precondition(lambda self: any((self.folder / "run" / "writer").glob("*.spool")))
    @rule(data=st.data())
    def disk_damages_a_file(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted((self.folder / "run" / "writer").glob("*.spool"))))
        content = bytearray(path.read_bytes())
        if content:
            place = data.draw(st.integers(0, len(content) - 1))
            with path.open("r+b") as file:
                file.seek(place)
                file.write(bytes([content[place] ^ 0xFF]))
            self.damaged = True

    @invariant()
    def accounts_hold(self) -> None:
        if not hasattr(self, "bench"):
            return
        counts = self.outbox.counts()
        assert counts.accepted == len(self.accepted)
        assert counts.accepted == counts.sent + counts.queued + counts.spooled + counts.dropped

    @invariant()
    def what_is_sent_is_in_the_log(self) -> None:
        if hasattr(self, "bench"):
            assert self.outbox.counts().sent <= len(self._steps_in_log())

    @invariant()
    def numbers_have_no_unexplained_hole(self) -> None:
        if not hasattr(self, "bench"):
            return
        last = 0
        for fact in self.log.facts():
            explained = sum(end - start + 1 for start, end in getattr(fact, "missing", ()))
            assert fact.seq - last - 1 <= explained
            last = fact.seq

    @invariant()
    def order_is_kept(self) -> None:
        if hasattr(self, "bench"):
            steps = self._steps_in_log()
            assert steps == sorted(set(steps))

    def teardown(self) -> None:
        if hasattr(self, "bench"):
            self._end_well()
            self.bench.spool.close()
        self.patch.undo()
        shutil.rmtree(self.folder)

    def _end_well(self) -> None:
        """With a broker that works, everything arrives or was counted, and nothing stays on disk."""
        self.log.up, self.log.limit, self.log.prompt = True, 10**9, True
        self.bench.settle()
        counts = self.outbox.counts()
        assert (counts.queued, counts.spooled) == (0, 0)
        missing = len(self.accepted) - len(self._steps_in_log())
        # A record that was stored, not confirmed, and then damaged on disk is in the log and counted as dropped.
        assert counts.dropped >= missing
        assert list(read_folder(self.folder / "run" / "writer")) == []
        self.bench.clock.now += 5
        self.bench.settle()
        announced: Counter[str] = Counter()
        for fact in self.log.facts():
            if isinstance(fact, TelemetryGap):
                announced.update(fact.dropped)
        if not self.damaged:  # an announcement may itself have been in the damaged file
            assert announced.total() >= missing

    def _number(self) -> int:
        self.accepted.append(len(self.accepted))
        return self.accepted[-1]

    def _steps_in_log(self) -> list[int]:
        steps: list[int] = []
        for fact in self.log.facts():
            if isinstance(fact, StepBatch):
                steps += fact.steps
            elif isinstance(fact, SampleRecorded):
                steps.append(fact.step)
        return steps


OutboxMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestOutbox: Any = OutboxMachine.TestCase


def test_what_is_told_comes_out_as_it_was_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.outbox.append(Row(WHO, 1, 5, {"loss": 2.0}))
    bench.outbox.append(Row(WHO, 2, 4, {"loss": float("inf"), "norm": 1.0}))
    bench.settle()
    assert list(told(bench.log.facts())) == [
        ("attempt-1", 1, 5, {"loss": 2.0}),
        ("attempt-1", 2, 4, {"loss": float("inf"), "norm": 1.0}),
    ]
