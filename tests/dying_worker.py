"""Workers as processes that die on order, the telemetry they are fed meanwhile, and what the log says afterwards."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from pilothouse.events.codec import Malformed, decode, encode
from pilothouse.events.envelope import LogPlace
from pilothouse.events.telemetry import RunStarted, StepBatch
from pilothouse.events.topics import partition_key
from pilothouse.events.union import AnyEvent

PARTITIONS = 4
RUNS = [f"run-{number}" for number in range(6)]
END = b"the end of what this test reads"
DEADLINE = 90.0
"""Seconds; a worker is back in ten on an idle laptop, and CI's cores are shared."""


@dataclass
class DyingWorker:
    """One slot of a worker; `environ` are the settings of the process."""

    role: str
    data_dir: Path
    environ: dict[str, str]
    slot: str = "0"
    process: "subprocess.Popen[bytes] | None" = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.data_dir / f"{self.role}-{self.slot}.log"

    def start(self, kill: str = "") -> None:
        """Start it; `kill` is POINT:N of `chaos.worker_entry`."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        own = {"PILOTHOUSE_DATA_DIR": str(self.data_dir), "PILOTHOUSE_SLOT": self.slot, "CHAOS_KILL": kill}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pilothouse.tests.chaos.worker_entry", self.role],
                env={**os.environ, **self.environ, **own},
                stdout=log,
                stderr=log,
            )

    def ended(self, seconds: float = DEADLINE) -> int:
        """Wait for its end; the exit status, negative for a signal."""
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it lives on after {seconds} s; its log:\n{self.said()}") from None

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.ended(30)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def health(self) -> dict[str, Any]:
        """Its health file, empty until this process has written one."""
        assert self.process is not None
        try:
            told: dict[str, Any] = json.loads((self.data_dir / "health" / f"{self.role}-{self.slot}.json").read_text())
        except (OSError, ValueError):
            return {}
        return told if told["pid"] == self.process.pid else {}

    def until(self, holds: Callable[[], bool], what: str, seconds: float = DEADLINE) -> None:
        """Wait for something that this worker brings about."""
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while not holds():
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.said()}"
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}; its log:\n{self.said()}"
            time.sleep(0.05)

    def until_running(self) -> None:
        self.until(lambda: self.health().get("state") == "running", "the worker runs")

    def said(self) -> str:
        return self.log.read_text()[-4_000:]


class Feed:
    """Sends what it is given, each to its partition, in order."""

    def __init__(self, address: str) -> None:
        self._producer = KafkaProducer(bootstrap_servers=address, acks="all", linger_ms=2)

    def send(self, event: AnyEvent, topic: str, partition: int) -> None:
        wire = encode(event)
        self.send_bytes(topic, partition, wire.body, key=partition_key(event), headers=wire.headers)

    def send_bytes(self, topic: str, partition: int, body: bytes, **more: Any) -> None:
        self._producer.send(topic, value=body, partition=partition, **more)

    def end(self, topic: str) -> None:
        """Mark the end of what a test will read, in every partition."""
        for partition in range(PARTITIONS):
            self.send_bytes(topic, partition, END)
        self._producer.flush()

    def close(self) -> None:
        self._producer.close()


@contextmanager
def feeding(events: Iterator[Callable[[], None]], per_second: float) -> Iterator[Callable[[], int]]:
    """Perform these sends from a thread, at a pace, until the block ends; gives how many were done."""
    stop = threading.Event()
    done = [0]

    def run() -> None:
        for send in events:
            if stop.wait(1 / per_second):
                return
            send()
            done[0] += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield lambda: done[0]
    finally:
        stop.set()
        thread.join()


@dataclass(frozen=True)
class Read:
    """One record of a topic: an event, or why it is none."""

    place: LogPlace
    event: AnyEvent | Malformed
    headers: dict[str, bytes]


class Reader:
    """Follows a topic from its first record, with `assign`, as trainers do."""

    def __init__(self, address: str, topic: str) -> None:
        self.records: list[Read] = []
        self.ids: set[str] = set()
        self._ended: set[int] = set()
        self._consumer = KafkaConsumer(
            bootstrap_servers=address, enable_auto_commit=False, fetch_max_wait_ms=50, max_poll_records=5_000
        )
        places = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        self._consumer.assign(places)
        for place in places:
            self._consumer.seek(place, 0)

    def polled(self) -> "Reader":
        """Itself, with what came meanwhile; `ids` are those of all events so far."""
        for records in self._consumer.poll(timeout_ms=100).values():
            for record in records:
                if record.value == END:
                    self._ended.add(record.partition)
                else:
                    place = LogPlace(0, record.partition, record.offset)
                    event = decode(record.headers, record.value)
                    self.records.append(Read(place, event, dict(record.headers)))
                    if not isinstance(event, Malformed):
                        self.ids.add(event.event_id)
        return self

    def to_the_end(self, seconds: float = 30.0) -> list[Read]:
        """Everything up to the marks of `Feed.end`."""
        deadline = time.monotonic() + seconds
        while len(self._ended) < PARTITIONS:
            assert time.monotonic() < deadline, f"only the ends of {sorted(self._ended)} were reached"
            self.polled()
        return self.records

    def close(self) -> None:
        self._consumer.close()


def read_all(address: str, topic: str) -> list[Read]:
    with closing(Reader(address, topic)) as reader:
        return reader.to_the_end()


def fact(run_id: str, seq: int) -> RunStarted | StepBatch:
    """The facts of a run: its start, then batches of one to three rows."""
    identity = {"run_id": run_id, "writer_id": f"{run_id}-w", "attempt_id": "a", "attempt": 1, "rank": 0}
    common: dict[str, Any] = {"at": seq, **identity}
    if seq == 1:
        return RunStarted(**common, seq=seq, reason="start", first_step=0, world_size=1)
    rows = 1 + seq % 3
    steps = tuple(seq * 10 + row for row in range(rows))
    return StepBatch(**common, seq=seq, steps=steps, times=(seq,) * rows, metrics={"loss": (float(seq),) * rows})
