"""What stands between a worker's agent and its shell."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from pilothouse.events.topics import TELEMETRY
from pilothouse.stream_processors.intake import Intake
from pilothouse.stream_processors.log import Delivered

NEVER = 3_600.0


def records(first: int, count: int) -> list[Delivered]:
    return [Delivered(TELEMETRY.name, 0, offset, None, (), b"") for offset in range(first, first + count)]


def offsets(taken: list[Delivered]) -> list[int]:
    return [record.offset for record in taken]


def run(work: Coroutine[Any, Any, None]) -> None:
    async def within() -> None:
        await asyncio.wait_for(work, 60.0)

    asyncio.run(within())


async def blocked(work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    """Begun, and waiting for somebody else."""
    task = asyncio.ensure_future(work)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    return task


def test_what_has_come_is_given_at_once_and_in_its_order() -> None:
    async def work() -> None:
        intake = Intake(most=100, linger=0.0)
        waiting = await blocked(intake.ready())
        intake.put(1, records(0, 2))
        intake.put(1, records(2, 3))
        await waiting
        assert offsets(intake.take(1)) == [0, 1, 2, 3, 4]
        await blocked(intake.ready())

    run(work())


def test_no_more_is_given_at_once_than_was_asked_for() -> None:
    async def work() -> None:
        intake = Intake(most=3, linger=NEVER)
        intake.put(1, records(0, 7))
        assert [offsets(intake.take(1)) for _ in range(3)] == [[0, 1, 2], [3, 4, 5], [6]]

    run(work())


def test_nothing_more_is_fetched_while_too_much_waits() -> None:
    async def work() -> None:
        intake = Intake(most=2, linger=0.0)
        await intake.room()
        intake.put(1, records(0, 4))
        fetching = await blocked(intake.room())
        assert offsets(intake.take(1)) == [0, 1]
        await fetching

    run(work())


def test_one_that_lingers_waits_for_more_until_it_is_enough() -> None:
    async def work() -> None:
        intake = Intake(most=3, linger=NEVER)
        intake.put(1, records(0, 2))
        waiting = await blocked(intake.ready())
        intake.put(1, records(2, 1))
        await waiting

    run(work())


def test_one_that_lingers_is_ready_with_less_when_its_time_is_over() -> None:
    async def work() -> None:
        intake = Intake(most=3, linger=0.01)
        intake.put(1, records(0, 1))
        await intake.ready()
        assert offsets(intake.take(1)) == [0]

    run(work())


def test_what_was_fetched_before_a_rebalance_is_left_to_its_new_owner() -> None:
    async def work() -> None:
        intake = Intake(most=10, linger=0.0)
        intake.put(1, records(5, 3))
        intake.put(2, records(5, 1))
        assert offsets(intake.take(2)) == [5]
        await blocked(intake.ready())

    run(work())


def test_a_fetch_that_brought_nothing_wakes_nobody() -> None:
    async def work() -> None:
        intake = Intake(most=10, linger=0.0)
        intake.put(1, [])
        await blocked(intake.ready())

    run(work())
