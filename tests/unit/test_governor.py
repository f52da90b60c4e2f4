import asyncio
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from pilothouse.events.commands import PolicyActivated
from pilothouse.events.decisions import PhaseChanged
from pilothouse.events.envelope import LogPlace
from pilothouse.events.errors import ArchiveUnavailable, BrokerUnavailable, SettingsInvalid
from pilothouse.events.telemetry import RunEnded
from pilothouse.events.topics import CONTROL, TELEMETRY, partition_of
from pilothouse.events.union import AnyDecision, AnyInput, Record
from pilothouse.governance.policy import load_policy
from pilothouse.stream_processors import rebuilding
from pilothouse.stream_processors.kept import restore
from pilothouse.stream_processors.log import Outgoing
from pilothouse.stream_processors.policy_text import read_policies
from pilothouse.tests.governor_bench import ELSEWHERE, POLICY, RUN, SOURCE, Bench, batch, started, tick
from pilothouse.tests.memory_log import MemoryLog, delivered
from pilothouse.tests.tiny_fold import TINY


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


@pytest.mark.parametrize("team, name", [("vision", "for-vision"), ("speech", "observe-only")])
def test_a_run_is_given_the_policy_that_is_for_it(bench: Bench, tmp_path: Path, team: str, name: str) -> None:
    tmp_path.joinpath("one.yaml").write_text("name: for-vision\napplies_to: {team: vision}\nrules: []\n")
    bench.policies = read_policies(tmp_path)

    async def scenario() -> None:
        await bench.start()
        await bench.take(delivered(started().model_copy(update={"team": team}), 0))

    asyncio.run(scenario())
    (policy,) = bench.log.events(TELEMETRY.name)
    assert isinstance(policy, PolicyActivated)
    assert (policy.name, load_policy(policy.text).name) == (name, name)


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
