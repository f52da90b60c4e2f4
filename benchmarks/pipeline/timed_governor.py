"""`python -m pilothouse.benchmarks.pipeline.timed_governor FILE`: the governor, with a look at the clock where a record
comes to the fold and where its command goes out.

Production parts and settings; only `fold` and the log port are passed through. Of every command one line of JSON goes
to FILE: `{"command", "folded", "published", "confirmed"}`, times in nanoseconds UTC.
"""

import json
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from pilothouse.events.codec import KIND_HEADER, Malformed, decode
from pilothouse.events.decisions import InterventionIssued
from pilothouse.events.envelope import LogPlace
from pilothouse.events.union import Record
from pilothouse.settings import load_settings
from pilothouse.stream_processors.live_runs import Core
from pilothouse.stream_processors.log import Kept, Log, Outgoing, Source
from pilothouse.stream_processors.parts import production_parts
from pilothouse.stream_processors.process import run_process

COMMAND = (KIND_HEADER, b"intervention_issued")
REMEMBERED = 50_000
"""Records whose time is remembered."""


class Clockwork:
    """When each of the last records came to the fold."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file
        self.folded: OrderedDict[LogPlace, int] = OrderedDict()

    def around(self, core: Core) -> Core:
        fold = core.fold

        def timed(state: Any, record: Record, **how: Any) -> Any:
            self.folded[record.place] = time.time_ns()
            if len(self.folded) > REMEMBERED:
                self.folded.popitem(last=False)
            return fold(state, record, **how)

        return replace(core, fold=timed)


class TimedLog:
    """The log port; it notes when commands go out and are confirmed."""

    def __init__(self, log: Log, clockwork: Clockwork) -> None:
        self._log = log
        self._clockwork = clockwork

    async def publish(self, records: Sequence[Outgoing]) -> list[int]:
        published = time.time_ns()
        offsets = await self._log.publish(records)
        confirmed = time.time_ns()
        for record in records:
            if COMMAND in record.headers:
                self._note(record, published, confirmed)
        return offsets

    def _note(self, record: Outgoing, published: int, confirmed: int) -> None:
        event = decode(record.headers, record.body)
        if isinstance(event, Malformed) or not isinstance(event, InterventionIssued):
            return
        folded = self._clockwork.folded.get(event.basis, 0)
        told = {"command": event.decision_id, "folded": folded, "published": published, "confirmed": confirmed}
        print(json.dumps(told), file=self._clockwork.file, flush=True)

    async def keep(self, partition: int, entries: Kept) -> None:
        await self._log.keep(partition, entries)

    def acknowledge(self, positions: Mapping[Source, int]) -> None:
        self._log.acknowledge(positions)


def main(arguments: list[str]) -> int:
    """Run it until it is told to stop."""
    settings = load_settings(os.environ)
    parts = production_parts(settings, "governor")
    assert parts.core is not None, "a governor has one"
    with Path(arguments[0]).open("a") as file:
        clockwork = Clockwork(file)
        timed = replace(parts, core=clockwork.around(parts.core), around=lambda log: TimedLog(log, clockwork))
        return run_process(settings, "governor", timed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
