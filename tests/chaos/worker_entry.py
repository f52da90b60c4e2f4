"""A worker as a process of its own that can be told to die: `python -m pilothouse.tests.chaos.worker_entry governor`.

Production parts behind a log port and an insert at whose points the fault injector strikes. `FAULTS` is its plan:
`sigkill@after_command/2` kills the process when the second command that it issues is on the control topic.
"""

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pilothouse.events.codec import KIND_HEADER
from pilothouse.events.topics import CONTROL
from pilothouse.producers.faults import Injector, WorkerPoint, read_faults
from pilothouse.settings import load_settings
from pilothouse.storage.archive import Archived, Poison
from pilothouse.stream_processors.archiver import Insert
from pilothouse.stream_processors.log import Kept, Log, Outgoing, Source
from pilothouse.stream_processors.parts import Parts, Role, production_parts
from pilothouse.stream_processors.process import run_process

from . import clock

COMMAND = (KIND_HEADER, b"intervention_issued")


class Passages:
    """Counts how often each point was passed, and lets the injector strike there."""

    def __init__(self, injector: Injector) -> None:
        self._injector = injector
        self._passed: Counter[WorkerPoint] = Counter()

    def passed(self, point: WorkerPoint) -> None:
        self._passed[point] += 1
        self._injector.at(point, rank=0, step=self._passed[point])


class DyingLog:
    """The log port, with a point before and after everything that goes through it."""

    def __init__(self, log: Log, passages: Passages) -> None:
        self._log = log
        self._passages = passages

    async def publish(self, records: Sequence[Outgoing]) -> list[int]:
        decides = any(record.topic == CONTROL.name for record in records)
        commands = any(COMMAND in record.headers for record in records)
        if decides:
            self._passages.passed("before_decisions")
        if commands:
            self._passages.passed("before_command")
        offsets = await self._log.publish(records)
        if commands:
            self._passages.passed("after_command")
        if decides:
            self._passages.passed("after_decisions")
        return offsets

    async def keep(self, partition: int, entries: Kept) -> None:
        self._passages.passed("before_state")
        await self._log.keep(partition, entries)
        self._passages.passed("after_state")

    def acknowledge(self, positions: Mapping[Source, int]) -> None:
        self._passages.passed("before_acknowledgement")
        self._log.acknowledge(positions)
        self._passages.passed("after_acknowledgement")


def dying_insert(insert: Insert, passages: Passages) -> Insert:
    def dying(records: Sequence[Archived]) -> Sequence[Poison]:
        passages.passed("before_insert")
        poisons = insert(records)
        passages.passed("after_insert")
        return poisons

    return dying


def mortal(parts: Parts, passages: Passages) -> Parts:
    insert = dying_insert(parts.insert, passages) if parts.insert is not None else None
    return replace(parts, insert=insert, around=lambda log: DyingLog(log, passages))


def main() -> int:
    clock.install()
    role: Role = "governor" if sys.argv[1] == "governor" else "archiver"
    settings = load_settings(os.environ)
    passages = Passages(Injector(read_faults(os.environ.get("FAULTS", ""))))
    return run_process(settings, role, mortal(production_parts(settings, role), passages))


if __name__ == "__main__":
    sys.exit(main())
