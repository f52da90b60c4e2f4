"""Workers that have keys: what they say is signed and in a chain, and what nobody signed changes nothing."""

import asyncio
from pathlib import Path

import pytest

from pilothouse.events.codec import PREVIOUS_HEADER, Encoded, encode
from pilothouse.events.commands import PolicyActivated
from pilothouse.events.signing import GENESIS, Trust, link_of, linked, signed
from pilothouse.events.topics import CONTROL, DEADLETTER, TELEMETRY, partition_key
from pilothouse.events.union import AnyEvent
from pilothouse.keyring import Signer
from pilothouse.stream_processors import archiver as shell
from pilothouse.stream_processors.archiver import Archiver
from pilothouse.stream_processors.dead_letter_office import DeadLetterOffice
from pilothouse.stream_processors.governor import Governor, Judge
from pilothouse.stream_processors.log import Delivered, Guard, Layout, Source
from pilothouse.stream_processors.ticker import Ticker
from pilothouse.stream_processors.troubles import Troubles
from pilothouse.tests.governor_bench import RUN, Bench, batch, started, tick
from pilothouse.tests.memory_log import MemoryLog, delivered
from pilothouse.tests.tiny_fold import TINY
from pilothouse.tests.unit.test_archiver import Store
from pilothouse.tests.unit.test_signing import ADVISOR, COMMAND, GOVERNOR, OPERATOR, POLICY, TRUST

GUARD = Guard(lambda: TRUST, Signer(lambda: (GOVERNOR,)))


class GuardedBench(Bench):
    def _governor(self) -> Governor:
        troubles = Troubles(self.folder / "troubles.json")
        office = DeadLetterOffice(4, 0, self.folder / "unreadable.json")
        judge = Judge(TINY, self.policies, Layout(4, 4, 4), troubles, office, self.history, GUARD)
        return Governor(self.log, judge, self.epoch)

    def wires(self) -> list[Encoded]:
        return [Encoded(sent.body or b"", list(sent.headers)) for sent in self.log.sent if sent.topic == CONTROL.name]


@pytest.fixture
def bench(tmp_path: Path) -> GuardedBench:
    return GuardedBench(tmp_path)


def said(event: AnyEvent, offset: int, wire: Encoded, topic: str = TELEMETRY.name) -> Delivered:
    return Delivered(topic, 0, offset, partition_key(event), tuple(wire.headers), wire.body)


def policy(seq: int = 1) -> PolicyActivated:
    return POLICY.model_copy(update={"run_id": RUN, "writer_id": f"policy-{seq}"})


def test_every_decision_is_signed_and_carries_the_link_of_the_one_before_it_in_its_run(bench: GuardedBench) -> None:
    async def scenario() -> None:
        await bench.start()
        await bench.take(delivered(batch(1, 1.0, 2.0), 0), delivered(batch(2, 3.0), 1))

    asyncio.run(scenario())
    link = GENESIS
    for event, wire in zip(bench.log.events(), bench.wires(), strict=True):
        assert TRUST.objection(event, wire) is None
        assert dict(wire.headers)[PREVIOUS_HEADER] == link
        link = link_of(wire)
    assert len(bench.wires()) == 3


@pytest.mark.parametrize("flushed", [True, False])
def test_a_governor_that_was_killed_goes_on_with_its_chain(bench: GuardedBench, *, flushed: bool) -> None:
    async def scenario() -> None:
        await bench.start()
        await bench.take(delivered(batch(1), 0))
        await bench.governor.flush()
        await bench.take(delivered(batch(2), 1))
        if flushed:
            await bench.governor.flush()
        await bench.start()
        await bench.take(*([] if flushed else [delivered(batch(2), 1)]), delivered(batch(3), 2))

    asyncio.run(scenario())
    wires = {wire.body: wire for wire in bench.wires()}
    assert len(bench.wires()) == 3 + (not flushed)
    assert len(wires) == 3
    first, second, third = wires.values()
    assert dict(second.headers)[PREVIOUS_HEADER] == link_of(first)
    assert dict(third.headers)[PREVIOUS_HEADER] == link_of(second)


@pytest.mark.parametrize("key", [None, ADVISOR, GOVERNOR])
def test_a_policy_that_its_owner_did_not_sign_is_a_dead_letter_and_changes_nothing(
    bench: GuardedBench, key: object
) -> None:
    wire = encode(policy())
    if key is not None:
        wire = signed(wire, [key])  # type: ignore[list-item]  # one of the keys above

    async def scenario() -> None:
        await bench.start()
        await bench.take(delivered(batch(1), 0), said(policy(), 1, wire), delivered(batch(2), 2))
        await bench.governor.flush()

    asyncio.run(scenario())
    letters = bench.log.headers(DEADLETTER.name)
    reasons = [letter["ph-reason"].decode() for letter in letters]
    assert reasons == {None: ["Unsigned"], ADVISOR: ["NotItsToSay"], GOVERNOR: []}[key]  # type: ignore[index]  # as above
    state = TINY.load_state(_kept(bench))
    assert state.policy_hash == ("h" if key is GOVERNOR else "")
    assert len(bench.steps()) == 2
    assert bench.log.acknowledged == {Source(TELEMETRY.name, 0): 3}


def test_time_that_the_governor_did_not_sign_does_not_pass(bench: GuardedBench) -> None:
    async def scenario() -> None:
        await bench.start()
        await bench.take(delivered(batch(1), 0), delivered(tick(1), 1))
        await bench.take(delivered(tick(2), 2), said(tick(3), 3, signed(encode(tick(3)), [GOVERNOR])))
        await bench.governor.flush()

    asyncio.run(scenario())
    assert TINY.load_state(_kept(bench)).ticks == 1


def test_what_the_governor_says_itself_in_telemetry_it_signs(bench: GuardedBench) -> None:
    async def scenario() -> None:
        await bench.start()
        await bench.take(delivered(started(), 0))
        await Ticker(bench.log, lambda: [0], 1.0, GUARD).tick(1)

    asyncio.run(scenario())
    told = [sent for sent in bench.log.sent if sent.topic == TELEMETRY.name]
    events = bench.log.events(TELEMETRY.name)
    assert [event.kind for event in events] == ["policy_activated", "tick"]
    for event, record in zip(events, told, strict=True):
        assert TRUST.objection(event, Encoded(record.body or b"", list(record.headers))) is None


def test_an_archiver_remembers_what_was_signed_and_reports_a_command_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "FIRST_PAUSE", 0.001)
    store, log = Store(), MemoryLog()
    retired = Trust(tuple(key._replace(retired=True) for key in TRUST.keys))
    guard = Guard(lambda: retired, past=True)
    office = DeadLetterOffice(4, 0, tmp_path / "unreadable.json")
    archiver = Archiver(log, store.insert, office, 0, Troubles(tmp_path / "troubles.json"), guard)
    genuine = signed(linked(encode(COMMAND), GENESIS), [GOVERNOR])
    order = signed(encode(policy(2)), [OPERATOR])

    async def scenario() -> None:
        await archiver.assign({Source(TELEMETRY.name, 0): None, Source(CONTROL.name, 0): None})
        await archiver.take([said(policy(1), 0, encode(policy(1))), said(policy(2), 1, order)])
        await archiver.take([said(COMMAND, 0, encode(COMMAND), CONTROL.name), said(COMMAND, 1, genuine, CONTROL.name)])

    asyncio.run(scenario())
    assert [row.wire for row in store.rows] == [order, genuine]
    assert [letter["ph-reason"] for letter in log.headers(DEADLETTER.name)] == [b"Unsigned"]  # the policy's: governor's
    assert log.acknowledged == {Source(TELEMETRY.name, 0): 2, Source(CONTROL.name, 0): 2}


def _kept(bench: Bench) -> bytes:
    from pilothouse.stream_processors.kept import restore

    return restore(bench.log.table, [0])[0].runs[RUN].state
