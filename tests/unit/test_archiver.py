import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from pilothouse.events.envelope import LogPlace
from pilothouse.events.errors import ArchiveUnavailable, EverythingMalformed, StackNotRunning, StateBehindLog
from pilothouse.events.telemetry import Heartbeat
from pilothouse.events.topics import CONTROL, DEADLETTER, TELEMETRY
from pilothouse.storage.archive import Archived, Poison
from pilothouse.stream_processors import archiver as shell
from pilothouse.stream_processors.archiver import Archiver
from pilothouse.stream_processors.dead_letter_office import DeadLetterOffice
from pilothouse.stream_processors.log import Delivered, Source
from pilothouse.stream_processors.troubles import Troubles
from pilothouse.tests.governor_bench import tick
from pilothouse.tests.memory_log import MemoryLog, delivered

LIMIT = 3
TELEMETRY_0, CONTROL_1 = Source(TELEMETRY.name, 0), Source(CONTROL.name, 1)


def beat(seq: int) -> Heartbeat:
    return Heartbeat(
        at=1, run_id="r", writer_id="w", seq=seq, attempt_id="a", attempt=1, rank=0, stage="train", step=seq
    )


class Store:
    """An archive that answers what it is told to: an error to raise, or the sequence numbers it refuses."""

    def __init__(self, *answers: Exception, refuses: frozenset[int] = frozenset()) -> None:
        self.answers = list(answers)
        self.refuses = refuses
        self.rows: list[Archived] = []
        self.calls = 0

    def insert(self, records: Sequence[Archived]) -> Sequence[Poison]:
        self.calls += 1
        if self.answers:
            raise self.answers.pop(0)
        poisons = [Poison(one, "too large") for one in records if getattr(one.event, "seq", 0) in self.refuses]
        self.rows += [one for one in records if one not in [poison.record for poison in poisons]]
        return poisons


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "FIRST_PAUSE", 0.001)


class Slow(Store):
    """An insert of it takes as long as the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.may_end = threading.Event(), threading.Event()

    def insert(self, records: Sequence[Archived]) -> Sequence[Poison]:
        self.begun.set()
        assert self.may_end.wait(20)
        return super().insert(records)


def archiver_of(store: Store, log: MemoryLog, folder: Path) -> Archiver:
    office = DeadLetterOffice(4, LIMIT, folder / "unreadable.json")
    return Archiver(log, store.insert, office, 3, Troubles(folder / "troubles.json"))


def run(
    store: Store, log: MemoryLog, folder: Path, *batches: list[Delivered], committed: int | None = None
) -> Archiver:
    archiver = archiver_of(store, log, folder)

    async def scenario() -> None:
        await archiver.assign({TELEMETRY_0: committed, CONTROL_1: None})
        for batch in batches:
            await archiver.take(batch)

    asyncio.run(scenario())
    return archiver


def test_what_is_in_the_archive_is_acknowledged_with_its_place(tmp_path: Path) -> None:
    store, log = Store(), MemoryLog()
    run(store, log, tmp_path, [delivered(beat(1), 0), delivered(beat(2), 9, partition=1, topic=CONTROL.name)])
    assert [row.place for row in store.rows] == [LogPlace(3, 0, 0), LogPlace(3, 1, 9)]
    assert log.acknowledged == {TELEMETRY_0: 1, CONTROL_1: 10}


def test_an_archive_that_is_away_is_asked_until_it_answers_and_nothing_is_acknowledged_before(tmp_path: Path) -> None:
    store, log = Store(StackNotRunning("no"), ArchiveUnavailable("busy")), MemoryLog()
    archiver = run(store, log, tmp_path, [delivered(beat(1), 0)])
    assert store.calls == 3
    assert len(store.rows) == 1
    assert log.acknowledged == {TELEMETRY_0: 1}
    assert archiver.last_error == ""


def test_a_record_the_archive_refuses_goes_to_the_dead_letters_and_the_others_in(tmp_path: Path) -> None:
    store, log = Store(refuses=frozenset({2})), MemoryLog()
    run(store, log, tmp_path, [delivered(beat(seq), seq - 1) for seq in (1, 2, 3)])
    assert [row.place.offset for row in store.rows] == [0, 2]
    (headers,) = log.headers(DEADLETTER.name)
    assert (headers["ph-reason"], headers["ph-detail"]) == (b"ArchiveRefused", b"too large")
    assert log.acknowledged == {TELEMETRY_0: 3}


def test_malformed_control_is_reported_here_and_malformed_telemetry_by_the_governor(tmp_path: Path) -> None:
    junk = [Delivered(topic, partition, 0, None, (), b"junk") for topic, partition in (TELEMETRY_0, CONTROL_1)]
    store, log = Store(), MemoryLog()
    run(store, log, tmp_path, junk)
    (headers,) = log.headers(DEADLETTER.name)
    assert headers["ph-source-topic"] == CONTROL.name.encode()
    assert log.acknowledged == {TELEMETRY_0: 1, CONTROL_1: 1}
    assert store.calls == 0


def test_what_comes_again_is_not_inserted_again(tmp_path: Path) -> None:
    store, log = Store(), MemoryLog()
    run(store, log, tmp_path, [delivered(beat(1), 0)], [delivered(beat(1), 0), delivered(beat(2), 1)])
    assert [row.place.offset for row in store.rows] == [0, 1]


def test_a_hole_ends_the_process_and_is_a_loss_when_it_is_still_there_after_a_restart(tmp_path: Path) -> None:
    store, log = Store(), MemoryLog()
    with pytest.raises(StateBehindLog, match="offset 5 was never delivered before 8"):
        run(store, log, tmp_path, [delivered(beat(1), 8)], committed=5)
    assert log.acknowledged == {}
    run(store, log, tmp_path, [delivered(beat(1), 8)], committed=5)
    assert log.acknowledged == {TELEMETRY_0: 9}


def test_when_nothing_can_be_read_it_ends_with_nothing_of_the_batch_acknowledged_and_stays_ended(
    tmp_path: Path,
) -> None:
    junk = [Delivered(CONTROL.name, 1, offset, None, (), b"junk") for offset in range(2 * LIMIT)]
    store, log = Store(), MemoryLog()
    run(store, log, tmp_path, junk[: LIMIT - 1])
    assert log.acknowledged == {CONTROL_1: LIMIT - 1}
    with pytest.raises(
        EverythingMalformed, match=rf"none of the last {LIMIT} records.*control/1@{LIMIT - 1} \(NotOurs"
    ):
        run(store, log, tmp_path, junk[: LIMIT - 1], [delivered(tick(1), 0), *junk[LIMIT - 1 :]])
    assert log.acknowledged == {CONTROL_1: LIMIT - 1}, "a tick is no sign of health"
    with pytest.raises(EverythingMalformed):
        run(store, log, tmp_path, junk[LIMIT - 1 : LIMIT])
    assert len(log.headers(DEADLETTER.name)) == 2 * (LIMIT - 1), "the next one drains nothing more"
    run(store, log, tmp_path, [delivered(beat(1), 0), *junk[: LIMIT - 1]])
    assert len(log.headers(DEADLETTER.name)) == 3 * (LIMIT - 1), "one that can be read begins the count anew"


def test_a_stop_lets_the_insert_that_runs_end_and_be_acknowledged_and_takes_nothing_more(tmp_path: Path) -> None:
    store, log = Slow(), MemoryLog()
    archiver = archiver_of(store, log, tmp_path)

    async def scenario() -> None:
        await archiver.assign({TELEMETRY_0: None})
        taking = asyncio.create_task(archiver.take([delivered(beat(1), 0)]))
        await asyncio.to_thread(store.begun.wait, 20)
        finishing = asyncio.create_task(archiver.finish())
        await asyncio.sleep(0)
        store.may_end.set()
        await finishing
        assert log.acknowledged == {TELEMETRY_0: 1}
        await archiver.take([delivered(beat(2), 1)])
        await taking

    asyncio.run(scenario())
    assert [row.place.offset for row in store.rows] == [0]


def test_a_stop_does_not_wait_for_an_archive_that_is_away_and_acknowledges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "FIRST_PAUSE", 600.0)
    store, log = Store(StackNotRunning("no")), MemoryLog()
    archiver = archiver_of(store, log, tmp_path)

    async def scenario() -> None:
        await archiver.assign({TELEMETRY_0: None})
        taking = asyncio.create_task(archiver.take([delivered(beat(1), 0)]))
        while not archiver.last_error:  # noqa: ASYNC110  # the archiver says it nowhere else
            await asyncio.sleep(0)
        await asyncio.wait_for(archiver.finish(), 20)
        await taking

    asyncio.run(scenario())
    assert (log.acknowledged, store.rows) == ({}, [])


def test_partitions_that_are_taken_away_during_an_insert_are_not_acknowledged(tmp_path: Path) -> None:
    store, log = Slow(), MemoryLog()
    archiver = archiver_of(store, log, tmp_path)

    async def scenario() -> None:
        await archiver.assign({TELEMETRY_0: 0, CONTROL_1: 0})
        taking = asyncio.create_task(archiver.take([delivered(beat(1), 0)]))
        await asyncio.to_thread(store.begun.wait, 20)
        archiver.revoke()
        assigning = asyncio.create_task(archiver.assign({CONTROL_1: 0}))
        await asyncio.sleep(0)
        store.may_end.set()
        await taking
        await assigning
        assert log.acknowledged == {}
        await archiver.take([delivered(beat(1), 0), delivered(beat(2), 0, partition=1, topic=CONTROL.name)])

    asyncio.run(scenario())
    assert log.acknowledged == {CONTROL_1: 1}
