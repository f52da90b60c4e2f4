import asyncio
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from pilothouse.events.commands import PolicyActivated, Tick
from pilothouse.events.decisions import PhaseChanged
from pilothouse.events.envelope import LogPlace
from pilothouse.events.errors import ArchiveUnavailable, BrokerUnavailable, SettingsInvalid, StateBehindLog
from pilothouse.events.telemetry import RunEnded, RunStarted, StepBatch
from pilothouse.events.topics import CONTROL, DEADLETTER, TELEMETRY, partition_of
from pilothouse.events.union import AnyDecision, AnyInput, Record
from pilothouse.stream_processors import rebuilding
from pilothouse.stream_processors.governor import Governor, Judge
from pilothouse.stream_processors.history import History
from pilothouse.stream_processors.kept import restore
from pilothouse.stream_processors.log import Delivered, Layout, Outgoing, Source
from pilothouse.stream_processors.policy_text import PolicyText
from pilothouse.stream_processors.troubles import Troubles
from pilothouse.tests.memory_log import MemoryLog, delivered
from pilothouse.tests.tiny_fold import TINY

RUN = next(f"run-{number}" for number in range(100) if partition_of(f"run-{number}", 4) == 0)
ELSEWHERE = next(f"run-{number}" for number in range(100) if partition_of(f"run-{number}", 4) == 1)
SOURCE = Source(TELEMETRY.name, 0)
POLICY = PolicyText("default", "rules: []")


def batch(seq: int, *losses: float, writer: str = "w", run: str = RUN) -> StepBatch:
    rows = len(losses) or 1
    steps = tuple(range(seq * 100, seq * 100 + rows))
    return StepBatch(
        at=seq, run_id=run, writer_id=writer, seq=seq, attempt_id="a", attempt=1, rank=0,
        steps=steps, times=(1,) * rows, metrics={"loss": losses or (1.0,)},
    )  # fmt: skip


def started(seq: int = 1, writer: str = "w") -> RunStarted:
    return RunStarted(
        at=7, run_id=RUN, writer_id=writer, seq=seq, attempt_id="a", attempt=1, rank=0,
        reason="start", first_step=0, world_size=1,
    )  # fmt: skip


def tick(seq: int, writer: str = "ticker") -> Tick:
    return Tick(at=seq, partition=0, writer_id=writer, seq=seq)


class Bench:
    """A governor over a log in memory that can be killed and started again, as a process is."""

    def __init__(self, folder: Path, epoch: int = 0, history: History | None = None) -> None:
        self.log = MemoryLog()
        self.folder = folder
        self.epoch = epoch
        self.history = history
        self.governor = self._governor()

    def _governor(self) -> Governor:
        judge = Judge(TINY, POLICY, Layout(4, 4, 4), Troubles(self.folder / "troubles.json"), self.history)
        return Governor(self.log, judge, self.epoch)

    async def start(self, committed: int | None = None) -> Governor:
        """As a fresh process: what was in memory is gone, the table and the acknowledgements are what was written."""
        self.governor = self._governor()
        at = self.log.acknowledged.get(SOURCE, committed)
        await self.governor.assign({0: at}, restore(self.log.table, [0]))
        return self.governor

    async def take(self, *records: Delivered) -> None:
        await self.governor.take(records)

    def steps(self) -> list[int]:
        return [event.step for event in self.log.events() if isinstance(event, PhaseChanged)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_decisions_are_delivered_before_the_state_is_written_and_records_acknowledged_last(bench: Bench) -> None:
    async def scenario() -> None:
        await bench.start()
        await bench.take(delivered(batch(1), 0), delivered(batch(2), 1))
        await bench.governor.flush()

    asyncio.run(scenario())
    assert bench.log.acts == [
        ("publish", CONTROL.name),
        ("publish", CONTROL.name),
        ("keep", 0),
        ("acknowledge", {SOURCE: 2}),
    ]


def test_a_state_is_never_written_while_its_decisions_are_on_their_way(bench: Bench) -> None:
    class SlowLog(MemoryLog):
        async def publish(self, records: Sequence[Outgoing]) -> list[int]:
            await asyncio.sleep(0.05)
            return await super().publish(records)

    async def scenario() -> None:
        bench.log = SlowLog()
        await bench.start()
        taking = asyncio.create_task(bench.take(delivered(batch(1), 0)))
        await asyncio.sleep(0)
        await bench.governor.flush()
        await taking

    asyncio.run(scenario())
    assert [act for act, _ in bench.log.acts] == ["publish", "keep", "acknowledge"]


def test_nothing_new_means_nothing_written(bench: Bench) -> None:
    async def scenario() -> None:
        await bench.start()
        await bench.governor.flush()
        await bench.take(delivered(batch(1), 0))
        await bench.governor.flush()
        await bench.governor.flush()

    asyncio.run(scenario())
    assert [act for act, _ in bench.log.acts] == ["publish", "keep", "acknowledge"]


def test_after_a_stop_in_order_nothing_is_decided_that_the_next_governor_will_decide(bench: Bench) -> None:
    async def scenario() -> None:
        await bench.start()
        await bench.take(delivered(batch(1), 0))
        await bench.governor.finish()
        await bench.take(delivered(batch(2), 1))
        await bench.start()
        await bench.take(delivered(batch(2), 1))

    asyncio.run(scenario())
    assert bench.steps() == [100, 200]


@pytest.mark.parametrize("flushed", [0, 1, 2, 3])
def test_killed_anywhere_it_decides_the_same_again(bench: Bench, flushed: int) -> None:
    records = [delivered(batch(seq, float(seq)), seq - 1) for seq in (1, 2, 3)]

    async def scenario() -> None:
        await bench.start()
        for record in records[:flushed]:
            await bench.take(record)
        await bench.governor.flush()
        await bench.take(*records[flushed:])  # decided, not written
        await bench.start()
        await bench.take(*records[flushed:])

    asyncio.run(scenario())
    decisions = {event.event_id: event for event in bench.log.events()}
    assert sorted(bench.steps()[:3]) == [100, 200, 300]
    assert len(decisions) == 3
    assert all(decisions[event.event_id] == event for event in bench.log.events()), "a copy that differs"


def test_a_tick_reaches_every_run_that_goes_on(bench: Bench) -> None:
    other = next(f"other-{number}" for number in range(100) if partition_of(f"other-{number}", 4) == 0)
    ended = RunEnded(
        at=9, run_id=other, writer_id="o", seq=2, attempt_id="a", attempt=1, rank=0, outcome="completed", step=1
    )

    async def scenario() -> dict[str, int]:
        await bench.start()
        await bench.take(delivered(batch(1), 0), delivered(batch(1, writer="o", run=other), 1))
        await bench.take(delivered(tick(1), 2), delivered(ended, 3), delivered(tick(2), 4), delivered(tick(2), 5))
        await bench.governor.flush()
        runs = restore(bench.log.table, [0])[0].runs
        return {run_id: TINY.load_state(kept.state).ticks for run_id, kept in runs.items()}

    assert asyncio.run(scenario()) == {RUN: 2, other: 1}


def test_a_run_that_starts_without_a_policy_is_given_one_once(bench: Bench) -> None:
    async def scenario() -> None:
        await bench.start()
        await bench.take(delivered(started(), 0))
        (policy,) = bench.log.events(TELEMETRY.name)
        await bench.take(delivered(policy, 1), delivered(started(2), 2))

    asyncio.run(scenario())
    (policy,) = bench.log.events(TELEMETRY.name)
    assert isinstance(policy, PolicyActivated)
    assert policy.text == POLICY.text
    assert policy.policy_hash == sha256(POLICY.text.encode()).hexdigest()
    assert (policy.writer_id, policy.seq, policy.who) == (f"policy-{RUN}", 1, "settings")


def test_a_policy_that_is_published_twice_is_a_duplicate(bench: Bench) -> None:
    async def scenario() -> None:
        await bench.start()
        await bench.take(delivered(started(), 0))
        await bench.start()
        await bench.take(delivered(started(), 0))

    asyncio.run(scenario())
    first, second = bench.log.events(TELEMETRY.name)
    assert first == second


def test_the_policy_of_a_run_with_a_long_name_has_a_writer_that_fits() -> None:
    assert len(POLICY.activated("x" * 200, 1).writer_id) <= 200


def test_bytes_that_are_no_event_are_reported_with_their_origin_and_the_rest_goes_on(bench: Bench) -> None:
    junk = Delivered(TELEMETRY.name, 0, 1, b"key", (("theirs", b"1"), ("ph-reason", b"forged")), b"\xc1junk")

    async def scenario() -> None:
        await bench.start()
        await bench.take(delivered(batch(1), 0), junk, delivered(batch(2), 2))
        await bench.governor.flush()

    asyncio.run(scenario())
    assert bench.steps() == [100, 200]
    (letter,) = [record for record in bench.log.sent if record.topic == DEADLETTER.name]
    assert (letter.body, letter.key) == (b"\xc1junk", b"key")
    headers = dict(letter.headers)
    assert headers["ph-reason"] == b"NotOurs"
    assert headers["theirs"] == b"1"
    origin = ("ph-source-topic", "ph-source-partition", "ph-source-offset")
    assert [headers[name] for name in origin] == [TELEMETRY.name.encode(), b"0", b"1"]
    assert bench.log.acknowledged == {SOURCE: 3}


def test_a_record_of_a_newer_schema_is_reported_and_stops_nobody(bench: Bench) -> None:
    """One trainer was upgraded first: what it says cannot be read, and is no reason to look for a newer state."""
    newer = delivered(batch(2), 6)
    newer = newer._replace(headers=(("ph-kind", b"step_batch"), ("ph-schema", b"9")))

    async def scenario() -> None:
        await bench.start(committed=5)
        await bench.take(delivered(batch(1), 5), newer, delivered(batch(3), 7))
        await bench.governor.flush()

    bench.log.table |= _mark(5)
    asyncio.run(scenario())
    assert bench.steps() == [100, 300]
    (letter,) = [record for record in bench.log.sent if record.topic == DEADLETTER.name]
    assert letter.body == newer.body
    headers = dict(letter.headers)
    assert headers["ph-reason"] == b"NewerSchema"
    assert b"9" in (headers["ph-detail"] or b"")
    assert bench.log.acknowledged == {SOURCE: 8}
    assert TINY.load_state(restore(bench.log.table, [0])[0].runs[RUN].state).lost == 1


def test_one_unreadable_record_explains_one_gap(bench: Bench) -> None:
    junk = Delivered(TELEMETRY.name, 0, 5, None, (), b"junk")

    async def scenario() -> None:
        await bench.start(committed=5)
        await bench.take(junk, delivered(batch(2), 6))
        with pytest.raises(StateBehindLog, match="writer w is at 4"):
            await bench.take(delivered(batch(4), 7))

    bench.log.table |= _mark(5)
    asyncio.run(scenario())
    assert bench.steps() == [200]


def test_a_decision_on_the_telemetry_topic_is_not_telemetry(bench: Bench) -> None:
    async def scenario() -> None:
        await bench.start()
        await bench.take(delivered(batch(1), 0))
        (decision,) = bench.log.events()
        await bench.take(delivered(decision, 1))

    asyncio.run(scenario())
    assert bench.log.headers(DEADLETTER.name)[0]["ph-reason"] == b"NotTelemetry"


def test_a_gap_ends_the_process_and_is_a_loss_when_it_is_still_there_after_a_restart(bench: Bench) -> None:
    async def scenario() -> None:
        await bench.start(committed=5)
        bench.log.table |= _mark(5)
        await bench.start(committed=5)
        with pytest.raises(StateBehindLog, match="writer w is at 3"):
            await bench.take(delivered(batch(3), 5))
        assert SOURCE not in bench.log.acknowledged
        await bench.start(committed=5)
        await bench.take(delivered(batch(3), 5), delivered(batch(7, writer="v"), 6))
        await bench.governor.flush()

    bench.log.table |= _mark(5)
    asyncio.run(scenario())
    assert bench.steps() == [300, 700]
    assert bench.log.acknowledged == {SOURCE: 7}
    assert restore(bench.log.table, [0])[0].trouble is None, "what was overcome is forgotten"


def test_a_gap_that_a_restart_has_closed_is_no_loss(bench: Bench) -> None:
    async def scenario() -> None:
        await bench.start(committed=5)
        with pytest.raises(StateBehindLog):
            await bench.take(delivered(batch(2), 6))
        await bench.start(committed=5)
        await bench.take(delivered(batch(1), 5), delivered(batch(2), 6))
        await bench.governor.flush()

    bench.log.table |= _mark(5)
    asyncio.run(scenario())
    runs = restore(bench.log.table, [0])[0].runs
    assert TINY.load_state(runs[RUN].state).lost == 0


def test_a_gap_in_a_log_read_from_its_first_record_needs_no_restart(bench: Bench) -> None:
    async def scenario() -> None:
        await bench.start()
        await bench.take(delivered(batch(4), 0))

    asyncio.run(scenario())
    assert bench.steps() == [400]


def test_a_gap_that_a_tick_shows_loses_no_decision_of_the_other_runs(bench: Bench) -> None:
    async def scenario() -> None:
        await bench.start()
        await bench.take(delivered(batch(1), 0), delivered(tick(1), 1), delivered(tick(3), 2))
        await bench.governor.flush()

    asyncio.run(scenario())
    runs = restore(bench.log.table, [0])[0].runs
    state = TINY.load_state(runs[RUN].state)
    assert (state.ticks, state.lost) == (2, 1)


def test_a_record_out_of_order_ends_the_process_before_it_is_judged(bench: Bench) -> None:
    async def scenario() -> None:
        await bench.start(committed=5)
        with pytest.raises(StateBehindLog, match="offset 5 was never delivered"):
            await bench.take(delivered(batch(9), 7))

    bench.log.table |= _mark(5)
    asyncio.run(scenario())
    assert bench.steps() == []


def test_a_restored_state_that_is_older_than_what_was_acknowledged_is_known_by_its_mark(bench: Bench) -> None:
    async def scenario() -> None:
        bench.log.table |= _mark(3)
        with pytest.raises(StateBehindLog, match="ends at 3, but everything before 5"):
            await bench.start(committed=5)
        bench.log.table |= _mark(5)  # this time recovery was complete
        await bench.start(committed=5)
        await bench.take(delivered(batch(1), 5))

    asyncio.run(scenario())
    assert bench.steps() == [100]


def test_trouble_that_stays_is_overcome_after_a_few_restarts_wherever_it_shows(bench: Bench) -> None:
    async def scenario() -> int:
        for attempt in range(10):
            await bench.start(committed=5)
            try:
                await bench.take(delivered(batch(1), 6 + attempt))  # another hole each time
            except StateBehindLog:
                continue
            return attempt
        raise AssertionError("a crash loop")

    bench.log.table |= _mark(5)
    assert asyncio.run(scenario()) == 3


def test_the_note_of_trouble_survives_a_stale_table_in_the_data_directory(bench: Bench) -> None:
    async def scenario() -> None:
        await bench.start(committed=5)
        with pytest.raises(StateBehindLog):
            await bench.take(delivered(batch(3), 5))
        bench.log.table = dict(_mark(5))
        await bench.start(committed=5)
        await bench.take(delivered(batch(3), 5))

    bench.log.table |= _mark(5)
    asyncio.run(scenario())
    assert bench.steps() == [300]


def test_partitions_that_were_revoked_meanwhile_are_not_acknowledged(bench: Bench) -> None:
    class SlowLog(MemoryLog):
        async def keep(self, partition: int, entries: Any) -> None:
            bench.governor.revoke()
            await super().keep(partition, entries)

    async def scenario() -> None:
        bench.log = SlowLog()
        await bench.start()
        await bench.take(delivered(batch(1), 0))
        await bench.governor.flush()
        await bench.take(delivered(batch(2), 1))

    asyncio.run(scenario())
    assert bench.log.acknowledged == {}
    assert bench.steps() == [100]


def test_a_broker_that_takes_nothing_ends_the_process(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class DeadLog(MemoryLog):
        async def publish(self, _: Sequence[Outgoing]) -> list[int]:
            await asyncio.Event().wait()
            return []

    async def scenario() -> None:
        bench.log = DeadLog()
        await bench.start()
        await bench.take(delivered(batch(1), 0))

    monkeypatch.setattr("pilothouse.stream_processors.governor.DELIVERY_SECONDS", 0.01)
    with pytest.raises(BrokerUnavailable, match="not delivered"):
        asyncio.run(scenario())


class Archive:
    """A history that is away for its first question."""

    def __init__(self, records: list[Record], decided: list[AnyDecision]) -> None:
        self.away = True
        self.records = records
        self.decided = decided

    def unfinished(self) -> list[str]:
        if self.away:
            self.away = False
            raise ArchiveUnavailable("not yet")
        return [RUN, ELSEWHERE]

    def rebuild(self, run_id: str) -> list[Record]:
        assert run_id == RUN
        return self.records

    def decisions(self, _: str) -> list[AnyDecision]:
        return self.decided


def test_in_a_new_epoch_runs_are_rebuilt_and_lost_decisions_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Bench(tmp_path / "before")
    told: tuple[AnyInput, ...] = (started(), batch(2), batch(3))

    async def first_epoch() -> None:
        await before.start()
        await before.take(*[delivered(event, offset) for offset, event in enumerate(told)])

    monkeypatch.setattr(rebuilding, "RETRY_SECONDS", 0.01)
    asyncio.run(first_epoch())
    first, second = (event for event in before.log.events() if isinstance(event, PhaseChanged))
    records = [Record(LogPlace(0, 0, offset), event) for offset, event in enumerate(told)]
    after = Bench(tmp_path / "after", epoch=1, history=Archive(records, [first]))

    async def second_epoch() -> None:
        await after.start()
        await after.take(delivered(batch(6), 0))  # two records were lost with the log
        await after.governor.flush()

    asyncio.run(second_epoch())
    assert after.log.events()[0] == second
    assert after.steps() == [300, 600]
    (policy,) = after.log.events(TELEMETRY.name)
    assert isinstance(policy, PolicyActivated)
    kept = restore(after.log.table, [0])[0]
    assert TINY.load_state(kept.runs[RUN].state).rows == 3
    assert kept.mark is not None
    assert kept.mark.epoch == 1


def test_an_epoch_behind_the_states_is_a_mistake_in_the_settings(bench: Bench) -> None:
    async def scenario() -> None:
        bench.epoch = 2
        await bench.start()
        await bench.take(delivered(batch(1), 0))
        await bench.governor.flush()
        bench.epoch = 1
        await bench.start()

    with pytest.raises(SettingsInvalid, match="log_epoch is 1"):
        asyncio.run(scenario())


def _mark(next_offset: int) -> dict[bytes, bytes]:
    from pilothouse.stream_processors.kept import Mark, encode, mark_key

    return {mark_key(0): encode(Mark(0, next_offset))}
