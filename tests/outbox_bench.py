"""A log in memory, a clock by hand and a run around them: what tests of the producers publish into.

`MemoryLog` keeps the contract of `producers.delivery.outbox.Sender` and fails when told to: it confirms nothing by
itself (unless `prompt`), loses connections with part of what was sent stored, and refuses records over a limit.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pilothouse.events.codec import decode
from pilothouse.events.commands import PipelineReported
from pilothouse.events.envelope import TrainerFact
from pilothouse.events.errors import BrokerUnavailable
from pilothouse.events.telemetry import Heartbeat, StepBatch, TelemetryGap
from pilothouse.producers.beginning import Beginning
from pilothouse.producers.delivery.batching import Outgoing
from pilothouse.producers.delivery.kafka import Outcome, State
from pilothouse.producers.delivery.outbox import Outbox, Pace
from pilothouse.producers.delivery.spool import Spool
from pilothouse.producers.ranks.context import Identity
from pilothouse.producers.run import Run
from pilothouse.settings import Settings

DESCRIPTION: Mapping[str, Any] = MappingProxyType({"config": {"lr": 0.1}})
WHO = Identity("run-1", "attempt-1", 1, 0, 1)


class MemoryLog:
    """A broker with one partition. `records` is the log as readers see it, duplicates and all."""

    def __init__(self, *, prompt: bool = True, up: bool = True) -> None:
        self.prompt = prompt
        self.up = up
        self.limit = 10**9
        self.records: list[Outgoing] = []
        self.confirmed: list[Outgoing] = []
        self.closed = False
        self.failures = 0
        self._sent: deque[Outgoing] = deque()
        self._stored = 0
        self._broken = False
        self._facts: list[TrainerFact | PipelineReported] = []
        self._read = 0

    @property
    def state(self) -> State:
        return "ready" if self.up and not self._broken else "away"

    def hurry(self) -> None:
        pass

    def poll(self) -> Sequence[Outcome]:
        self.failures += not self.up
        if self._broken:
            self._broken = False
            raise BrokerUnavailable("the connection was lost")
        if self.prompt:
            self.store(len(self._sent))
        outcomes: list[Outcome] = []
        while self._sent and (self._stored or len(self._sent[0].body) > self.limit):
            record = self._sent.popleft()
            if len(record.body) > self.limit:
                self._sent.clear()
                self._stored = 0
                return [*outcomes, Outcome.REFUSED]
            self._stored -= 1
            self.confirmed.append(record)
            outcomes.append(Outcome.CONFIRMED)
        return outcomes

    def send(self, record: Outgoing) -> None:
        if self.state != "ready":
            raise BrokerUnavailable("not connected")
        self._sent.append(record)

    def store(self, count: int) -> None:
        """The next `count` of what was sent and not yet stored go into the log; `poll` confirms them."""
        for record in list(self._sent)[self._stored : self._stored + count]:
            if len(record.body) > self.limit:
                return
            self.records.append(record)
            self._stored += 1

    def lose(self, *, stored: int = 0) -> None:
        """The connection breaks: `stored` more records are in the log, but nobody was told."""
        self.store(stored)
        self._sent.clear()
        self._stored = 0
        self._broken = True

    def close(self) -> None:
        self.closed = True

    def forget(self) -> None:
        pass

    def facts(self) -> list[Any]:
        """What a reader makes of the log: each number once, in order; trainer facts, and what the pipeline reported."""
        for record in self.records[self._read :]:
            self._read += 1
            if not self._facts or record.seq > self._facts[-1].seq:
                fact = decode(record.headers, record.body)
                assert isinstance(fact, TrainerFact | PipelineReported), fact
                assert fact.seq == record.seq
                self._facts.append(fact)
        return self._facts

    def of(self, kind: type[Any]) -> list[Any]:
        return [fact for fact in self.facts() if isinstance(fact, kind)]


@dataclass
class HandClock:
    """Time that a test moves."""

    now: float = 1_000.0

    def seconds(self) -> float:
        return self.now

    def micros(self) -> int:
        return int(self.now * 1e6)


@dataclass
class Bench:
    """An outbox without its thread: `pump` it, move the clock, look at the log."""

    folder: Path
    log: MemoryLog = field(default_factory=MemoryLog)
    clock: HandClock = field(default_factory=HandClock)
    spool_bytes: int = 10_000_000

    def __post_init__(self) -> None:
        pace = Pace(0.2, 2.0, self.clock.seconds, self.clock.micros)
        self.spool = Spool(self.folder / "run" / "writer", self.spool_bytes)
        self.outbox = Outbox(WHO, "writer", self.log, self.spool, pace)

    def settle(self, rounds: int = 50) -> None:
        """Pump until all is sent."""
        for _ in range(rounds):
            self.outbox.pump(flush=True)
            self.clock.now += 0.01
            if self.outbox.empty():
                return


def told(facts: Sequence[TrainerFact]) -> Iterator[TrainerFact | tuple[str, int, int, dict[str, float]]]:
    """What the script said, in order: each row as (attempt, time, step, metrics), every other fact as it is."""
    for fact in facts:
        if isinstance(fact, StepBatch):
            yield from rows_of(fact)
        elif not isinstance(fact, Heartbeat | TelemetryGap):
            yield fact


def rows_of(batch: StepBatch) -> Iterator[tuple[str, int, int, dict[str, float]]]:
    """The rows of a batch: (attempt, time, step, metrics)."""
    for index, step in enumerate(batch.steps):
        metrics = {name: column[index] for name, column in batch.metrics.items()}
        present = {name: value for name, value in metrics.items() if value is not None}
        yield batch.attempt_id, batch.times[index], step, present


def open_run(folder: Path, log: MemoryLog, description: Mapping[str, Any] = DESCRIPTION) -> Run:
    """A run that publishes into `log` by a thread of its own, as `start_run` makes it."""
    settings = Settings(data_dir=folder, producer_flush_seconds=0.01, heartbeat_seconds=60.0, close_seconds=5.0)
    spool = Spool(folder / "run" / "writer", settings.spool_bytes)
    outbox = Outbox(WHO, "writer", log, spool, Pace(settings.producer_flush_seconds, settings.heartbeat_seconds))
    return Run(WHO, settings, description, outbox).start(Beginning(WHO, "start", None))


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Poll `condition()` until it holds; fail when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
