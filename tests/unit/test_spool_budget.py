"""The spool as a whole: the dead give way, oldest first, and what went is told under their own numbers."""

import math
import os
from pathlib import Path

import pytest

from pilothouse.events.codec import decode
from pilothouse.events.telemetry import StepBatch, TelemetryGap
from pilothouse.producers.delivery.batching import Draft, Outgoing, Rows, encoded
from pilothouse.producers.delivery.leftovers import find_leftovers
from pilothouse.producers.delivery.outbox import Outbox, Pace
from pilothouse.producers.delivery.spool import Spool, read_folder, spool_folder
from pilothouse.producers.delivery.spool_budget import LOOK_BYTES, LOOK_SECONDS, Budget, make_room
from pilothouse.producers.metrics.thinning import Thinning
from pilothouse.producers.opening import outbox_of
from pilothouse.producers.ranks.context import Identity
from pilothouse.settings import Settings
from pilothouse.tests.outbox_bench import WHO, HandClock, MemoryLog

RECORDS = 5
WRITER_BYTES = RECORDS * 36_000
"""Somewhat more than one takes, so that a stand-in has room beside three."""


def record(writer: str, seq: int) -> Outgoing:
    """Three rows of some 35 KB."""
    metrics = [{f"metric-{index}": 1.0 for index in range(900)} for _ in range(3)]
    rows = Rows(Identity("run-1", "attempt-1", 1, 0, 1), (seq,) * 3, (seq,) * 3, metrics)
    return encoded(Draft(rows=rows), writer, seq)[0]


def written(root: Path, writer: str) -> Spool:
    """A spool with records in it; its process lives until it is closed."""
    spool = Spool(spool_folder(root, "run-1", writer), 10**9)
    for seq in range(11, 11 + RECORDS):
        assert spool.append(record(writer, seq))
    return spool


def dead(root: Path, writer: str, age: int) -> Path:
    """What a process left so many seconds ago."""
    spool = written(root, writer)
    spool.close()
    (path,) = spool.folder.glob("*.spool")
    os.utime(path, (10_000 - age, 10_000 - age))
    return spool.folder


def left_in(folder: Path) -> list[StepBatch | TelemetryGap]:
    facts = [decode(record.headers, record.body) for record in read_folder(folder)]
    return [fact for fact in facts if isinstance(fact, StepBatch | TelemetryGap)]


def test_the_oldest_dead_give_way_and_say_what_went(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old, older, new = dead(tmp_path, "old", 20), dead(tmp_path, "older", 30), dead(tmp_path, "new", 10)
    living = written(tmp_path, "living")
    assert make_room(tmp_path, 3 * WRITER_BYTES)
    assert [len(left_in(folder)) for folder in (older, old, new, living.folder)] == [1, RECORDS, RECORDS, RECORDS]
    (gap,) = left_in(older)
    assert isinstance(gap, TelemetryGap)
    assert (gap.run_id, gap.writer_id, gap.seq, gap.missing) == ("run-1", "older", 15, ((11, 14),))
    assert gap.dropped == {"spool_evicted": 3 * RECORDS}
    assert "15 calls of telemetry" in caplog.text
    assert str(older) in caplog.text
    assert make_room(tmp_path, 3 * WRITER_BYTES)
    assert caplog.text.count("give way") == 1, "once is enough"
    sent = MemoryLog()
    outbox = Outbox(WHO, "older", sent, Spool.left_in(older), Pace(0.2, math.inf))
    for _ in range(3):
        outbox.pump()
    assert sent.facts() == [gap], "whoever pushes it tells the log"
    assert outbox.counts().sent == 0, "what stands for lost calls carries none"
    assert not older.exists()
    living.close()


def test_what_stands_for_the_dead_goes_last_and_the_living_are_never_touched(tmp_path: Path) -> None:
    folders = [dead(tmp_path, f"writer-{age}", age) for age in range(5)]
    living = written(tmp_path, "living")
    assert not make_room(tmp_path, WRITER_BYTES // 2)
    assert not any(folder.exists() for folder in folders)
    assert len(left_in(living.folder)) == RECORDS
    living.close()


def test_a_leftover_that_nobody_can_read_gives_way_without_a_word_for_it(tmp_path: Path) -> None:
    folder = dead(tmp_path, "damaged", 1)
    (path,) = folder.glob("*.spool")
    with path.open("r+b") as file:
        file.write(b"\xff" * 100)
    assert make_room(tmp_path, 4_096)
    assert not folder.exists()


def test_a_job_that_crashes_in_a_loop_fills_no_disk(tmp_path: Path) -> None:
    limit = 3 * WRITER_BYTES
    for life in range(20):
        budget = Budget(tmp_path, limit)
        spool = Spool(spool_folder(tmp_path, "run-1", f"writer-{life:02d}"), 10**9, budget.allows)
        assert all(spool.append(record(spool.folder.name, seq)) for seq in range(1, 1 + RECORDS))
        spool.close()
        (path,) = spool.folder.glob("*.spool")
        os.utime(path, (life, life))
        assert sum(path.stat().st_size for path in tmp_path.rglob("*.spool")) < limit + WRITER_BYTES
    found = find_leftovers(tmp_path)
    assert len(found) == 20
    assert [one.writer_id for one in found if one.calls] == ["writer-17", "writer-18", "writer-19"]


def test_where_only_the_living_have_it_all_nothing_more_is_taken_until_they_have_less(tmp_path: Path) -> None:
    other = written(tmp_path, "other")
    clock = HandClock()
    budget = Budget(tmp_path, WRITER_BYTES // 2, clock.seconds)
    own = Spool(spool_folder(tmp_path, "run-1", "own"), 10**9, budget.allows)
    assert not own.append(record("own", 1))
    assert not own.folder.exists()
    while other.read() is not None:
        other.release()
    assert not own.append(record("own", 1)), "a full root is not looked at again at once"
    clock.now += LOOK_SECONDS
    assert own.append(record("own", 1))
    own.close()


def test_the_root_is_looked_at_when_much_was_written_and_not_for_every_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def look(_root: Path, limit: int) -> bool:
        looks.append(limit)
        return limit > 0

    monkeypatch.setattr("pilothouse.producers.delivery.spool_budget.make_room", look)
    budget = Budget(tmp_path, 100 * LOOK_BYTES)
    for _ in range(50):
        assert budget.allows(LOOK_BYTES // 10)
    assert 5 <= len(looks) <= 6


def test_a_run_keeps_to_what_all_may_keep_together(tmp_path: Path) -> None:
    left = dead(tmp_path / "spool", "dead", 10)
    who = Identity("run-1", "attempt-1", 1, 0, 1)
    for total, kept in ((WRITER_BYTES, True), (0, False)):
        settings = Settings(data_dir=tmp_path, spool_total_bytes=total)
        spool = outbox_of(who, settings, Thinning(1, 0)).backlog.spool
        assert spool.append(record("own", 1)) is kept
        assert len(left_in(left)) == kept, "a stand-in, and then nothing"
        spool.close()
