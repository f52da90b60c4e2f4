"""A worker as a process of its own that can be told to die: `python -m pilothouse.tests.chaos.worker_entry governor`.

Production code with the tiny fold in it, and a log port that kills the process at a named point. `CHAOS_KILL` is
`POINT:N`: SIGKILL at the N-th time the point is passed.

"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence

from pilothouse.events.topics import CONTROL
from pilothouse.settings import load_settings
from pilothouse.storage.archive import Archived, Poison
from pilothouse.stream_processors.archiver import Insert
from pilothouse.stream_processors.log import Kept, Log, Outgoing, Source
from pilothouse.stream_processors.parts import Parts, Role, production_parts
from pilothouse.stream_processors.process import run_process
from pilothouse.tests.tiny_fold import TINY


class FailPoint:
    """Dies when it has been passed often enough."""

    def __init__(self, order: str) -> None:
        self._point, _, count = order.partition(":")
        self._left = int(count or 0)

    def passed(self, point: str) -> None:
        if point == self._point:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


class DyingLog:
    """The log port, with a fail point before and after everything that goes through it."""

    def __init__(self, log: Log, fail_point: FailPoint) -> None:
        self._log = log
        self._fail_point = fail_point

    async def publish(self, records: Sequence[Outgoing]) -> list[int]:
        decides = any(record.topic == CONTROL.name for record in records)
        if decides:
            self._fail_point.passed("before_decisions")
        offsets = await self._log.publish(records)
        if decides:
            self._fail_point.passed("after_decisions")
        return offsets

    async def keep(self, partition: int, entries: Kept) -> None:
        self._fail_point.passed("before_state")
        await self._log.keep(partition, entries)
        self._fail_point.passed("after_state")

    def acknowledge(self, positions: Mapping[Source, int]) -> None:
        self._fail_point.passed("before_acknowledgement")
        self._log.acknowledge(positions)
        self._fail_point.passed("after_acknowledgement")


def dying_insert(insert: Insert, fail_point: FailPoint) -> Insert:
    def dying(records: Sequence[Archived]) -> Sequence[Poison]:
        fail_point.passed("before_insert")
        poisons = insert(records)
        fail_point.passed("after_insert")
        return poisons

    return dying


def parts_of(role: Role, fail_point: FailPoint) -> Parts:
    settings = load_settings(os.environ)
    if role == "governor":
        return Parts(core=TINY, around=lambda log: DyingLog(log, fail_point))
    insert = production_parts(settings, role).insert
    assert insert is not None
    return Parts(insert=dying_insert(insert, fail_point), around=lambda log: DyingLog(log, fail_point))


def main() -> int:
    role: Role = "governor" if sys.argv[1] == "governor" else "archiver"
    return run_process(load_settings(os.environ), role, parts_of(role, FailPoint(os.environ.get("CHAOS_KILL", ""))))


if __name__ == "__main__":
    sys.exit(main())
