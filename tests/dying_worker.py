"""Workers as processes that die on order, and the records they are fed meanwhile."""

import json
import os
import signal
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

from pilothouse.events.codec import encode
from pilothouse.events.telemetry import RunStarted, StepBatch
from pilothouse.events.topics import partition_key
from pilothouse.events.union import AnyEvent

from .broker_fixture import PARTITIONS
from .log_reader import END

DEADLINE = 240.0
"""Seconds; a worker is back in ten on an idle laptop, and a loaded machine takes a minute and more."""


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

    def start(self, faults: str = "") -> None:
        """Start it; `faults` is the plan of the injector in `chaos.worker_entry`."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        own = {"PILOTHOUSE_DATA_DIR": str(self.data_dir), "PILOTHOUSE_SLOT": self.slot, "FAULTS": faults}
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
        return self.ended()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def until_done(self, ends: dict[str, int]) -> None:
        """Wait until everything up to these offsets (`Feed.ends`) is acknowledged."""
        with self.acknowledged(ends) as done:
            self.until(done, f"all is acknowledged up to {ends}")

    @contextmanager
    def acknowledged(self, ends: dict[str, int]) -> Iterator[Callable[[], bool]]:
        """Whether everything up to these offsets is acknowledged."""
        client = KafkaConsumer(
            bootstrap_servers=self.environ["PILOTHOUSE_KAFKA"].split(","), group_id=f"pilothouse-{self.role}",
            enable_auto_commit=False,
        )  # fmt: skip
        with closing(client):
            left = {TopicPartition(*_topic_and_partition(place)): offset for place, offset in ends.items()}

            def done() -> bool:
                for place in [place for place, end in left.items() if (client.committed(place) or 0) > end]:
                    del left[place]
                return not left

            yield done

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

    def until_killed(self) -> None:
        """Wait until it has died of SIGKILL, and of nothing else."""
        status = self.ended()
        assert status == -signal.SIGKILL, f"meant to be killed, it ended with {status}:\n{self.said()}"

    def until_running(self) -> None:
        self.until(lambda: self.health().get("state") == "running", "the worker runs")

    def said(self) -> str:
        return self.log.read_text()[-4_000:]


def _topic_and_partition(place: str) -> tuple[str, int]:
    topic, _, partition = place.rpartition("/")
    return topic, int(partition)


class Feed:
    """Sends what it is given, each to its partition, in order."""

    def __init__(self, address: str) -> None:
        self._producer = KafkaProducer(bootstrap_servers=address.split(","), acks="all", linger_ms=2)
        self._last: dict[str, Any] = {}
        self.sent: set[str] = set()
        """The ids of all events that it was given."""

    def send(self, event: AnyEvent, topic: str, partition: int) -> None:
        wire = encode(event)
        self.sent.add(event.event_id)
        self.send_bytes(topic, partition, wire.body, key=partition_key(event), headers=wire.headers)

    def send_bytes(self, topic: str, partition: int, body: bytes, **more: Any) -> None:
        self._last[f"{topic}/{partition}"] = self._producer.send(topic, value=body, partition=partition, **more)

    def ends(self) -> dict[str, int]:
        """The offset of the last record sent to each partition, as health files name them, when the broker has it."""
        return {place: sent.get(timeout=30).offset for place, sent in self._last.items()}

    def end(self, *topics: str) -> None:
        """Mark the end of what a test will read, in every partition."""
        for topic in topics:
            for partition in range(PARTITIONS):
                self.send_bytes(topic, partition, END)
        self._producer.flush()

    def close(self) -> None:
        self._producer.close()


@contextmanager
def feeding(events: Iterator[Callable[[], None]], per_second: float) -> Iterator[Callable[[], int]]:
    """Perform these sends on a thread, at a pace, until the block ends; gives how many were done.

    What they raise, the block raises at its end, and the next that asks how many.
    """
    stop = threading.Event()
    done = 0
    failed: list[Exception] = []

    def run() -> None:
        nonlocal done
        try:
            for send in events:
                if stop.wait(1 / per_second):
                    return
                send()
                done += 1
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the test's to know
            failed.append(error)

    def count() -> int:
        if failed:
            raise failed[0]
        return done

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield count
    finally:
        stop.set()
        thread.join()
    count()


def fact(run_id: str, seq: int) -> RunStarted | StepBatch:
    """The facts of a run: its start, then batches of one to three rows."""
    identity = {"run_id": run_id, "writer_id": f"{run_id}-w", "attempt_id": "a", "attempt": 1, "rank": 0}
    common: dict[str, Any] = {"at": seq, **identity}
    if seq == 1:
        return RunStarted(**common, seq=seq, reason="start", first_step=0, world_size=1)
    rows = 1 + seq % 3
    steps = tuple(seq * 10 + row for row in range(rows))
    return StepBatch(**common, seq=seq, steps=steps, times=(seq,) * rows, metrics={"loss": (float(seq),) * rows})
