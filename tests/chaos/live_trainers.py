"""Trainers that live while workers die: they tell a broker, hear the control topic, and obey.

Several runs train at once, over several partitions; most of them go wrong, are governed and end, and the next of their
kind begins. Time is the governor's: none of them ticks.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

from pilothouse.events.decisions import InterventionIssued, RunAssessed
from pilothouse.events.envelope import Decision
from pilothouse.events.topics import CONTROL, TELEMETRY, partition_of
from pilothouse.events.union import AnyInput
from pilothouse.stream_processors.admission import Verdict
from pilothouse.stream_processors.fold import Folded
from pilothouse.tests.broker_fixture import PARTITIONS
from pilothouse.tests.dying_worker import Feed
from pilothouse.tests.governed_run import GovernedRun, Loss
from pilothouse.tests.log_reader import Reader
from pilothouse.tests.run_builder import quiet_loss

from .strange_records import send_strange

POSITIONS = 130
"""How much data a run has: enough for a fault, the way back, and its verification."""
WINDOW = 15
"""Steps that a trainer takes without a word from the governor. They end, as real ones' commands do not, when it dies:
else how much a test sees of recoveries would depend on how fast the machine restarts a worker."""


def quiet(_: int, step: int, rank: int) -> float:
    return quiet_loss(step, rank)


def spike(position: int, step: int, rank: int) -> float:
    return quiet_loss(step, rank) + (4.0 if 50 <= position < 90 else 0.0)


def nan(position: int, step: int, rank: int) -> float:
    return math.nan if rank == 1 and 45 <= position < 48 else quiet_loss(step, rank)


STORIES: dict[str, tuple[Loss, int]] = {
    "spike": (spike, WINDOW),
    "nan": (nan, WINDOW),
    "quiet": (quiet, WINDOW),
    "spike-2": (spike, WINDOW),
    "hasty": (nan, 10**9),  # never waits: it trains on while there is no governor, and hears its commands late
}


class LiveRun(GovernedRun):
    """A run that is judged elsewhere: what it tells is sent, and `hear` brings what was decided."""

    def __init__(self, run_id: str, loss: Loss, window: int, send: Callable[[AnyInput], None]) -> None:
        super().__init__(world=2, run_id=run_id, loss=loss)
        self._send = send
        self._window = self._may_take = window
        self.tell(self.ranks[0], self.ranks[0].started, self.world)  # its policy comes from the governor

    def fold(self, event: AnyInput) -> Folded:
        self._send(event)
        return Folded(self.state, (), Verdict.FOLDED)

    def tick(self, count: int = 1) -> "LiveRun":  # noqa: ARG002  # the clock is the governor's
        return self

    def hear(self, decision: Decision) -> None:
        match decision:
            case InterventionIssued():
                self.to_obey.append(decision)
            case RunAssessed():
                self._may_take = self._window
            case _:
                pass

    def advance(self) -> None:
        """One step, if the governor has not been silent for too long."""
        if self._may_take:
            self._may_take -= 1
            self.train(1)


class LiveTrainers:
    """All of them, and with them records that nobody should send. One thread performs what `sends` gives."""

    def __init__(self, address: str, feed: Feed | None = None) -> None:
        self.ended = 0
        self.feed = feed or Feed(address)
        self._control = Reader(address, CONTROL.name, PARTITIONS)
        self._heard: set[str] = set()
        self._generations = count(1)
        self._runs = {story: self._begin(story) for story in STORIES}

    def sends(self) -> Iterator[Callable[[], None]]:
        """A step of each run in turn, without end."""
        for number in count():
            yield self._listen
            for story in STORIES:
                yield partial(self._advance, story)
            if number % 20 == 0:
                yield partial(send_strange, self.feed, TELEMETRY.name, number // 20)

    def close(self) -> None:
        self.feed.close()
        self._control.close()

    def _listen(self) -> None:
        runs = {run.run_id: run for run in self._runs.values()}
        for read in self._control.more(timeout_ms=1):
            decision = read.event
            if not isinstance(decision, Decision):
                continue  # of a stranger
            if decision.event_id not in self._heard and decision.run_id in runs:
                runs[decision.run_id].hear(decision)
            self._heard.add(decision.event_id)

    def _advance(self, story: str) -> None:
        run = self._runs[story]
        run.advance()
        if run.position >= POSITIONS:
            run.end()
            self.ended += 1
            self._runs[story] = self._begin(story)

    def _begin(self, story: str) -> LiveRun:
        run_id = f"{story}-{next(self._generations)}"
        loss, window = STORIES[story]
        place = partition_of(run_id, PARTITIONS)
        return LiveRun(run_id, loss, window, lambda event: self.feed.send(event, TELEMETRY.name, place))
