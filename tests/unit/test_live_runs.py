"""What a partition's runs are told again after a kill changes nothing, wherever they stood."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pilothouse.events.codec import to_json
from pilothouse.events.envelope import LogPlace
from pilothouse.events.errors import BrokerUnavailable
from pilothouse.events.union import AnyInput, Record
from pilothouse.settings import Settings
from pilothouse.stream_processors.dead_letter_office import DeadLetterOffice
from pilothouse.stream_processors.governor import Governor, Judge
from pilothouse.stream_processors.kept import restore
from pilothouse.stream_processors.live_runs import Core, LivePartition
from pilothouse.stream_processors.log import Layout, Outgoing
from pilothouse.stream_processors.parts import production_parts
from pilothouse.stream_processors.policy_text import PolicyText
from pilothouse.stream_processors.troubles import Troubles
from pilothouse.tests.memory_log import MemoryLog, delivered
from pilothouse.tests.run_builder import SECOND, START, Rank, tick


def core() -> Core:
    given = production_parts(Settings(), "governor").core
    assert given is not None
    return given


def story() -> Iterator[AnyInput]:
    """Two runs under the clocks of three governors: one run begins late, the other ends, sleeps and goes on."""
    early, late = Rank("early", 0), Rank("late", 0)

    def ticks(governor: str, *numbers: int) -> Iterator[AnyInput]:
        for number in numbers:
            at = START + (ord(governor) * 100 + number) * SECOND
            yield tick(number, at).model_copy(update={"writer_id": f"ticker-{governor}"})

    def steps(rank: Rank, *numbers: int) -> Iterator[AnyInput]:
        for number in numbers:
            rank.log([number], [1.0])
            yield rank.facts[-1]

    early.started(1)
    yield early.facts[-1]
    yield from ticks("a", 1, 2)
    yield from steps(early, 0, 1)
    yield from ticks("a", 3)
    late.started(1)
    yield late.facts[-1]
    yield from ticks("b", 1)
    yield from steps(late, 0, 1)
    early.ended(1)
    yield early.facts[-1]
    yield from ticks("b", 2, 3)
    yield from ticks("c", 1)
    yield from steps(late, 2)
    early.attempt_id, early.attempt = "attempt-2", 2
    early.started(1, reason="restart", first_step=1)
    yield early.facts[-1]
    yield from steps(early, 1)
    yield from ticks("c", 2)


LOG = [Record(LogPlace(0, 0, offset), event) for offset, event in enumerate(story())]


def decided(partition: LivePartition, records: Sequence[Record]) -> list[str]:
    judged = [partition.judge(record) for record in records]
    assert not any(one.gap or one.faults for one in judged)
    return [to_json(decision) for one in judged for decision in one.decisions]


@pytest.mark.parametrize("written", range(len(LOG) + 1))
def test_from_wherever_the_log_is_read_again_the_same_is_decided(written: int) -> None:
    """A governor dies that has written what it knew after `written` records, and acknowledged some of them."""
    undisturbed = decided(LivePartition(core(), 0, 0), LOG[:]), decided(LivePartition(core(), 0, 0), LOG[:written])
    first = LivePartition(core(), 0, 0)
    decided(first, LOG[:written])
    table = restore(first.unwritten(written), [0])[0]
    for acknowledged in range(written + 1):
        second = LivePartition(core(), 0, 0)
        for run_id, kept in table.runs.items():
            second.load(run_id, kept)
        assert undisturbed[1] + decided(second, LOG[acknowledged:]) == undisturbed[0], acknowledged


def test_states_whose_decisions_were_not_delivered_are_not_written(tmp_path: Path) -> None:
    """The flush waits while a batch is judged; when its delivery fails, the process is about to end."""

    class FailingLog(MemoryLog):
        async def publish(self, _: Sequence[Outgoing]) -> list[int]:
            await asyncio.sleep(0.01)
            raise BrokerUnavailable("gone")

    log = FailingLog()

    async def scenario() -> None:
        troubles, office = Troubles(tmp_path / "troubles.json"), DeadLetterOffice(1, 0, tmp_path / "unreadable.json")
        judge = Judge(core(), PolicyText("default", "rules: []"), Layout(1, 1, 1), troubles, office)
        governor = Governor(log, judge, 0)
        await governor.assign({0: None}, restore({}, [0]))
        taking = asyncio.create_task(governor.take([delivered(LOG[0].event, 0)]))
        await asyncio.sleep(0)
        await governor.flush()
        with pytest.raises(BrokerUnavailable):
            await taking

    asyncio.run(scenario())
    assert log.acts == []
