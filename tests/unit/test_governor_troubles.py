"""A governor whose log has gaps, records that nobody can read, and states that are behind it."""

import asyncio
from pathlib import Path

import pytest

from pilothouse.events.errors import EverythingMalformed, StateBehindLog
from pilothouse.events.topics import DEADLETTER, TELEMETRY
from pilothouse.stream_processors.kept import restore
from pilothouse.stream_processors.log import Delivered
from pilothouse.tests.governor_bench import RUN, SOURCE, Bench, batch, tick
from pilothouse.tests.memory_log import delivered
from pilothouse.tests.tiny_fold import TINY


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


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


def test_a_log_of_nothing_but_junk_ends_the_process_and_the_next_one_drains_no_more_of_it(bench: Bench) -> None:
    junk = [Delivered(TELEMETRY.name, 0, offset, None, (), b"junk") for offset in range(9)]

    def letters() -> int:
        return len(bench.log.headers(DEADLETTER.name))

    async def scenario() -> None:
        await bench.start()
        await bench.take(*junk[:2])
        await bench.governor.flush()
        assert (letters(), bench.log.acknowledged) == (2, {SOURCE: 2})
        for given in (junk[2:], junk[2:3]):
            with pytest.raises(EverythingMalformed, match="none of the last 3 records"):
                await bench.take(*given)
            await bench.start()
        assert (letters(), bench.log.acknowledged) == (2, {SOURCE: 2})
        bench.dead_letter_limit = 0
        await bench.start()
        await bench.take(*junk[2:])
        assert letters() == len(junk)

    asyncio.run(scenario())


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


def _mark(next_offset: int) -> dict[bytes, bytes]:
    from pilothouse.stream_processors.kept import Mark, encode, mark_key

    return {mark_key(0): encode(Mark(0, next_offset))}
