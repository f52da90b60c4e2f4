"""Where a scenario is played: a broker, an archive, its workers, and trainers that are governed meanwhile.

A scenario strikes (`scenarios`); what ended with a status that asks for it is started again, as `pilothouse up` would;
`judge` then stops everything in order and looks at the end state alone.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pilothouse.cli.brokers import LocalBroker
from pilothouse.events.codec import Malformed, to_json
from pilothouse.events.decisions import InterventionIssued
from pilothouse.events.topics import CONTROL, DEADLETTER, TELEMETRY
from pilothouse.events.union import AnyEvent
from pilothouse.tests.broker_fixture import PARTITIONS
from pilothouse.tests.dying_worker import DyingWorker
from pilothouse.tests.endpoint_fixture import EndpointProcess
from pilothouse.tests.log_reader import END, Read, Reader, read_all

from . import clock
from .archives import archiver_on, contents, filled_once, new_archive
from .disorder import DisorderlyFeed
from .governors import as_readers_see, governor_on, undisturbed
from .job import Job
from .ledger import Row, applied_twice, differences, out_of_bounds
from .live_trainers import STORIES, LiveTrainers
from .small_disk import inside_small_disk
from .strange_records import IMPOSSIBLE, due_letters, letters
from .three_brokers import ThreeBrokers

DEADLINE = 600.0
"""Seconds. Most waits take five on two idle cores; what is promised is that they end, not when."""
COMES_BACK = frozenset({69, 75})
"""Exit statuses of a worker that a supervisor answers by starting it again."""

NewEndpointAt = Callable[..., EndpointProcess]


class Stage:
    """Everything of one scenario. Workers are named by role and slot; `governor` and `archiver` are those of slot 0."""

    def __init__(
        self,
        broker: LocalBroker | ThreeBrokers,
        new_endpoint: NewEndpointAt,
        folder: Path,
        *,
        disorderly: bool = False,
        small_disk: bool = False,
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.broker = broker
        self.folder = folder
        archive = folder / "archive"
        self.endpoint = new_endpoint(archive, inside=inside_small_disk(archive) if small_disk else ())
        self.client = new_archive(self.endpoint, "pilothouse")
        self.restarts = 0
        self.sent: Callable[[], int] = int
        """How much the trainers have told; raises what ended them."""
        self._new_endpoint = new_endpoint
        self._workers = [governor_on(broker, folder), archiver_on(broker, self.endpoint, folder)]
        self.governor, self.archiver = self._workers
        self.trainers = LiveTrainers(broker.address, DisorderlyFeed(broker.address) if disorderly else None)
        self.jobs: list[Job] = []
        self.clock = folder / "clock"
        """What is written here moves the clock of every worker: see `clock.jump`."""
        for worker in self._workers:
            worker.environ |= {clock.VARIABLE: str(self.clock), **environ}

    def start(self, governor_faults: str = "") -> None:
        self.governor.start(governor_faults)
        self.archiver.start()
        self.until(lambda: all(self.runs(worker) for worker in self._workers), "governor and archiver run")

    def another_governor(self, slot: str, folder: str = "") -> DyingWorker:
        """One more, which runs when this returns: of a slot of its own, or of a slot that is taken."""
        self._workers.append(governor_on(self.broker, self.folder / folder, slot=slot))
        self._workers[-1].start()
        return self._workers[-1]

    def dismiss(self, worker: DyingWorker) -> None:
        """Kill it for good."""
        worker.kill()
        self._workers.remove(worker)

    def runs(self, worker: DyingWorker) -> bool:
        return worker.health().get("state") == "running"

    def until(self, holds: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
        """Wait for it, and meanwhile start what asks to be started again."""
        deadline = time.monotonic() + seconds
        while not holds():
            self._tend()
            self.sent()
            said = "\n".join(worker.said() for worker in self._workers)
            assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}; the workers said:\n{said}"
            time.sleep(0.05)

    def until_runs_end(self, count: int = len(STORIES)) -> None:
        """Wait until so many runs more have come to their end, governed."""
        due = self.trainers.ended + count
        self.until(lambda: self.trainers.ended >= due, f"{count} runs more end")

    def until_archived_more(self) -> None:
        """Wait until the archiver has put in something that it did not have."""
        before = self.archiver.health().get("records", 0), self.archiver.process
        self.until(
            lambda: self.runs(self.archiver) and (self.archiver.health()["records"], self.archiver.process) != before,
            "the archiver goes on",
        )

    def until_command(self) -> None:
        """Wait for the next intervention on the control topic."""
        with closing(Reader(self.broker.address, CONTROL.name, PARTITIONS)) as reader:
            past = reader.more(timeout_ms=2_000)
            known = len([read for read in past if isinstance(read.event, InterventionIssued)])
            found: list[Read] = []

            def issued() -> bool:
                found.extend(read for read in reader.more() if isinstance(read.event, InterventionIssued))
                return len(found) > 0

            self.until(issued, f"an intervention after the first {known}")

    def freeze(self, worker: DyingWorker) -> None:
        assert worker.process is not None
        os.kill(worker.process.pid, signal.SIGSTOP)

    def wake(self, worker: DyingWorker) -> None:
        assert worker.process is not None
        os.kill(worker.process.pid, signal.SIGCONT)

    def restart_endpoint(self) -> None:
        """On the same directory and port, as the supervisor does."""
        port = self.endpoint.port
        self.endpoint = self._new_endpoint(port=port)
        self.client = self.endpoint.client()
        self.client.database = "pilothouse"

    def job(self, name: str, **wanted: Any) -> Job:
        """A real training beside the others; it has been launched."""
        self.jobs.append(Job(name, self.broker.address, self.folder / name, **wanted))
        self.jobs[-1].start()
        return self.jobs[-1]

    def settle(self) -> None:
        """The trainers have fallen silent: what is still on its way arrives."""
        if isinstance(self.trainers.feed, DisorderlyFeed):
            self.trainers.feed.settle()

    def close(self) -> None:
        for job in self.jobs:
            job.kill()
        for worker in self._workers:
            worker.kill()
        self.trainers.close()

    def _tend(self) -> None:
        for worker in self._workers:
            status = worker.process.poll() if worker.process is not None else None
            if status in COMES_BACK:
                self.restarts += 1
                worker.start()
            else:
                assert status is None, f"{worker.role} {worker.slot} ended with {status}:\n{worker.said()}"

    def judge(self, scenario: str, injected: int) -> Row:
        """Stop everything in order; what was told, what was decided and what the archive holds, compared."""
        governors = [worker for worker in self._workers if worker.role == "governor"]
        ends = self.trainers.feed.ends()
        self._until_done(self.governor, {place: end for place, end in ends.items() if place.startswith(TELEMETRY.name)})
        self.until(lambda: len(_judged_to(governors)) == PARTITIONS, "every partition has a governor")
        for worker in governors:
            self._stop(worker)
        judged_to = _judged_to(governors)
        self.trainers.feed.end(TELEMETRY.name, CONTROL.name)
        self._until_done(self.archiver, self.trainers.feed.ends())
        self._stop(self.archiver)
        self.trainers.feed.end(DEADLETTER.name)
        topics = (TELEMETRY.name, CONTROL.name, DEADLETTER.name)
        told, decided, dead = (read_all(self.broker.address, topic, PARTITIONS) for topic in topics)
        found = letters(read for read in dead if read.body != END)
        assert found == due_letters(TELEMETRY.name, told) | due_letters(CONTROL.name, decided)
        events = distinct(chain(decided, told))
        never_came = self.trainers.feed.sent - {event.event_id for event in events}
        not_archived, archived_twice = self._archive_differs(told, decided)
        judged = [read for read in told if read.place.offset <= judged_to.get(read.place.partition, -1)]
        seen = as_readers_see(decided, copies=len(governors) + 1)
        seen.pop(IMPOSSIBLE, None)
        lost_decisions, other_decisions = differences(undisturbed(judged), seen)
        return Row(
            scenario,
            self.broker.name,
            injected,
            len(events),
            lost=len(never_came) + not_archived + lost_decisions + sum(job.lost(events) for job in self.jobs),
            duplicated=archived_twice + other_decisions,
            applied_twice=applied_twice(events),
            out_of_bounds=out_of_bounds(events),
        ).concluded()

    def _stop(self, worker: DyingWorker) -> None:
        """In order. One that has just ended itself, to be started again, is, and then stopped."""
        while (status := worker.stop()) in COMES_BACK:
            worker.start()
            self.until(partial(self.runs, worker), f"the {worker.role} runs again")
        assert status == 0, worker.said()
        self._workers.remove(worker)

    def _until_done(self, worker: DyingWorker, ends: dict[str, int]) -> None:
        with worker.acknowledged(ends) as done:
            self.until(done, f"the {worker.role} has acknowledged all up to {ends}")

    def _archive_differs(self, told: list[Read], decided: list[Read]) -> tuple[int, int]:
        once = new_archive(self.endpoint, "once")
        filled_once(once, told, decided)
        return differences(contents(once), contents(self.client))


def _judged_to(governors: Sequence[DyingWorker]) -> dict[int, int]:
    """By partition, the offset of the last record that any of them judged."""
    judged_to: dict[int, int] = {}
    for worker in governors:
        for source, offset in worker.health().get("last_offset", {}).items():
            partition = int(source.rpartition("/")[2])
            judged_to[partition] = max(offset, judged_to.get(partition, -1))
    return judged_to


def distinct(reads: Iterable[Read]) -> list[AnyEvent]:
    """Each event once."""
    events = [read.event for read in reads if not isinstance(read.event, Malformed)]
    return list({(event.event_id, to_json(event)): event for event in events}.values())
