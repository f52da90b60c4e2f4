"""`python -m pilothouse.benchmarks.pipeline.probes ADDRESS FOLDER`: real runs that ask to be steered, and what it took.

Several runs of the SDK train in one process, each with its pilot; now and then one logs a learning rate that `POLICY`
answers with a command. Of each such step a line of JSON says, in nanoseconds UTC, when it was logged, taken up for
sending, sent, when its command was heard by the SDK's thread and seen at the trainer's next safe point, and how many
others came. With `--floor` a plain Kafka producer and consumer do the same through the bare agent of `floor`, in the
same process.
"""

import argparse
import json
import random
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

import pilothouse
from pilothouse.events.decisions import InterventionIssued
from pilothouse.producers.checkpoints.retention import Judgement
from pilothouse.producers.delivery.batching import Outgoing, Rows
from pilothouse.producers.ranks.ballots import LocalBallots
from pilothouse.producers.steering.control import CLOSE_SECONDS, Distrusted, Follower, Inbox
from pilothouse.producers.steering.safe_point import Links
from pilothouse.producers.teller import Teller
from pilothouse.settings import Settings

from .floor import IN, OUT

POLICY = """\
name: probes
mode: enforce
budget: 10000
rules:
  - name: probe
    when: has(features.lr) && features.lr > 0.5
    actions: [{action: notify, message: seen}]
    cooldown_steps: 0
    limit: {count: 64, window_steps: 1}
"""
STEP_SECONDS = 0.05
PROBE_SECONDS = (0.5, 1.1)
"""Between two of one run, at random: a probe falls anywhere in the SDK's flush interval."""
FLOOR_SECONDS = (0.05, 0.15)
SETTLE_SECONDS = 20.0
"""How long the last answers are waited for."""
STAMP = struct.Struct("<q")


@dataclass
class Probe:
    """One step that is answered by a command; times in nanoseconds UTC, 0 where nothing came."""

    run_id: str
    step: int
    logged: int
    taken: int = 0
    sent: int = 0
    heard: int = 0
    seen: int = 0
    command: str = ""
    others: int = 0


@dataclass
class Trainer:
    """One run of the SDK, looked at from outside: `step` is its loop."""

    run: pilothouse.Run
    settings: Settings
    probes: dict[int, Probe] = field(default_factory=dict)

    def __post_init__(self) -> None:
        outbox = self.run._outbox
        self._taken: deque[int] = deque()
        outbox.on_rows = self._take
        self._send, outbox.sender.send = outbox.sender.send, self._sent  # type: ignore[method-assign]  # the same, timed
        self._pilot = self.run.pilot(None, None, links=self._links)
        self._step = 0
        self._next = time.monotonic() + 1.0 + random.random()

    def step(self, *, probing: bool) -> None:
        """Log a step and come past a safe point."""
        is_probe = probing and time.monotonic() >= self._next
        if is_probe:
            self._next = time.monotonic() + random.uniform(*PROBE_SECONDS)
            self.probes[self._step] = Probe(self.run.identity.run_id, self._step, time.time_ns())
        self.run.log(self._step, loss=2.0 + 0.01 * random.random(), grad_norm=1.0, lr=1.0 if is_probe else 3e-4)
        self._pilot.safe_point(self._step)
        self._step += 1

    @property
    def counted(self) -> list[Probe]:
        """Those behind the first answer: before it, the policy may not have been the run's yet."""
        first = min((one.heard for one in self.probes.values() if one.heard), default=0)
        return [one for one in self.probes.values() if one.logged > first > 0]

    def _links(self, run: Teller, settings: Settings) -> Links:
        run_id = run.identity.run_id
        follower = Follower(settings.log_access, run_id, log_in_memory=settings.embedded_broker, since=time.time())
        follower._inbox = _TimedInbox(run_id, self.probes)
        return Links(LocalBallots(), _TimedCommands(follower.start(), self.probes))

    def _take(self, rows: Rows) -> None:
        now = time.time_ns()
        for step in rows.steps:
            if step in self.probes:
                self.probes[step].taken = now
                self._taken.append(step)

    def _sent(self, record: Outgoing) -> None:
        now = time.time_ns()
        while record.entries and self._taken:
            self.probes[self._taken.popleft()].sent = now
        self._send(record)


class _TimedInbox(Inbox):
    """Notes when a command comes in."""

    def __init__(self, run_id: str, probes: dict[int, Probe]) -> None:
        super().__init__(run_id)
        self._probes = probes

    def _accept(self, command: InterventionIssued, place: tuple[str, int]) -> None:
        probe = self._probes.get(command.step)
        if probe is not None:
            probe.heard, probe.command = probe.heard or time.time_ns(), probe.command or command.decision_id
            probe.others += command.decision_id != probe.command  # a second copy of the same is at-least-once
        super()._accept(command, place)


@dataclass
class _TimedCommands:
    """Notes when the loop takes a command."""

    follower: Follower
    probes: dict[int, Probe]

    def take(self) -> InterventionIssued | Distrusted | None:
        command = self.follower.take()
        probe = self.probes.get(command.step) if isinstance(command, InterventionIssued) else None
        if probe is not None:
            probe.seen = probe.seen or time.time_ns()
        return command

    def judged(self) -> Judgement:
        return self.follower.judged()

    def close(self, within: float = CLOSE_SECONDS) -> None:
        self.follower.close(within)


def probe(settings: Settings, runs: int, seconds: float, out: Path) -> None:
    """Train for so long; a line for each probe once it is over, and one for each of the floor's."""
    with ExitStack() as stack:
        opened = [stack.enter_context(pilothouse.start_run(f"probe-{n}", settings=settings)) for n in range(runs)]
        trainers = [Trainer(run, settings) for run in opened]
        _train(trainers, seconds)
    lines = [json.dumps(asdict(one)) for trainer in trainers for one in trainer.counted]
    out.write_text("".join(f"{line}\n" for line in lines))


def _train(trainers: list[Trainer], seconds: float) -> None:
    began = time.monotonic()
    due = [began + index * STEP_SECONDS / len(trainers) for index in range(len(trainers))]
    while min(due) < began + seconds or (min(due) < began + seconds + SETTLE_SECONDS and _waits(trainers)):
        index = due.index(min(due))
        time.sleep(max(0.0, due[index] - time.monotonic()))
        trainers[index].step(probing=due[index] < began + seconds)
        due[index] = max(due[index] + STEP_SECONDS, time.monotonic() - STEP_SECONDS)


def _waits(trainers: list[Trainer]) -> bool:
    """Whether any has not seen all its answers."""
    return any(not one.seen for trainer in trainers for one in trainer.counted)


@contextmanager
def floor(address: str, out: Path) -> Iterator[None]:
    """Stamps through the bare agent, at the pace of the probes, until the block ends; milliseconds each, a line."""
    ending = threading.Event()
    took: list[float] = []
    threads = [
        threading.Thread(target=_stamp, args=(address, ending)),
        threading.Thread(target=_hear, args=(address, ending, took)),
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ending.set()
        for thread in threads:
            thread.join()
        out.write_text("".join(f"{one}\n" for one in took))


def _stamp(address: str, ending: threading.Event) -> None:
    producer = KafkaProducer(bootstrap_servers=address, acks="all")
    while not ending.wait(random.uniform(*FLOOR_SECONDS)):
        producer.send(IN, STAMP.pack(time.time_ns()), partition=0)
    producer.close()


def _hear(address: str, ending: threading.Event, took: list[float]) -> None:
    consumer: Any = KafkaConsumer(bootstrap_servers=address, enable_auto_commit=False, fetch_max_wait_ms=200)
    place = TopicPartition(OUT, 0)
    consumer.assign([place])
    consumer.seek_to_beginning(place)
    while not ending.is_set():
        heard = consumer.poll(timeout_ms=200).get(place, ())
        took += [(time.time_ns() - STAMP.unpack(record.value)[0]) / 1e6 for record in heard]
    consumer.close()


def main(arguments: list[str]) -> int:
    """Probe, and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("folder", type=Path, help="where probes.jsonl and floor.txt go")
    parser.add_argument("--embedded", action="store_true", help="the broker keeps its log in memory")
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--floor", action="store_true")
    options = parser.parse_args(arguments)
    settings = Settings(
        kafka=options.address,
        embedded_broker=options.embedded,
        data_dir=options.folder / "sdk",
        resources_seconds=0,
    )
    with ExitStack() as stack:
        if options.floor:
            stack.enter_context(floor(options.address, options.folder / "floor.txt"))
        probe(settings, options.runs, options.seconds, options.folder / "probes.jsonl")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
