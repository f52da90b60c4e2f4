"""What is measured: a broker with our topics, and processes beside it, each with its CPU time and its memory.

`Rig` has the broker and whichever workers a part asks for, started as `pilothouse worker` is; parts that want all of a
stack take `pilothouse up` itself (`cli.demo.stack`).
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from pilothouse.cli.brokers import EmbeddedBroker, KafkaBroker, LocalBroker
from pilothouse.cli.children import Child
from pilothouse.cli.demo.stack import without_our_settings
from pilothouse.cli.topic_admin import admin_client, create_topics
from pilothouse.settings import Settings

PARTITIONS = 4
PATIENCE_SECONDS = 120.0
LOOK_SECONDS = 0.05


class Rig:
    """A broker of a kind (`embedded`, or Apache Kafka at `kafka_home`), and its children. All are gone at the end."""

    def __init__(self, folder: Path, kafka_home: Path | None, partitions: int = PARTITIONS) -> None:
        self.folder = folder
        self.broker: LocalBroker = (
            EmbeddedBroker(folder / "broker") if kafka_home is None else KafkaBroker(kafka_home, folder / "broker")
        )
        self._partitions = partitions
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        self.broker.start()
        create_topics(self.broker.address, self._partitions, replication=1)
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        for child in reversed(self._children):
            child.kill()
        self.broker.kill()

    def make_topics(self, *names: str) -> None:
        """Others than ours, of one partition each."""
        with admin_client(self.broker.address, PATIENCE_SECONDS) as client:
            client.create_topics({name: {"num_partitions": 1, "replication_factor": 1} for name in names})

    @property
    def settings(self) -> Settings:
        return Settings(
            kafka=self.broker.address,
            embedded_broker=not self.broker.keeps_log,
            data_dir=self.folder,
            resources_seconds=0,
        )

    def run(self, name: str, module: str, *arguments: str, environ: Mapping[str, str] | None = None) -> Child:
        """A process of one of our modules; what it prints is in its log."""
        child = Child(name, self.folder / f"{name}.log")
        self._children.append(child)
        ours = {"PILOTHOUSE_" + key.upper(): value for key, value in self._told().items()}
        environment = {**without_our_settings(os.environ), **ours, **(environ or {})}
        child.start([sys.executable, "-P", "-m", module, *arguments], environment)
        return child

    def governor(self, slot: str = "0", policy: Path | None = None, timed: Path | None = None) -> "Governor":
        """One more governor of the group; with `timed`, one that says when it did what."""
        environ = {"PILOTHOUSE_SLOT": slot} | ({"PILOTHOUSE_POLICY_FILE": str(policy)} if policy else {})
        module, *arguments = (
            ("pilothouse.benchmarks.pipeline.timed_governor", str(timed))
            if timed
            else ("pilothouse.cli.main", "worker", "governor")
        )
        child = self.run(f"governor-{slot}", module, *arguments, environ=environ)
        return Governor(child, self.folder / "health" / f"governor-{slot}.json")

    def generator(self, *arguments: str, name: str = "generator") -> "Generator":
        module = "pilothouse.benchmarks.pipeline.generator"
        return Generator(self.run(name, module, self.broker.address, "--name", name, *arguments))

    def _told(self) -> dict[str, str]:
        settings = self.settings
        return {
            "kafka": settings.kafka,
            "embedded_broker": str(settings.embedded_broker).lower(),
            "data_dir": str(settings.data_dir),
        }


@dataclass
class Governor:
    """A governor's process, and what its health file says of it."""

    child: Child
    health_file: Path

    def health(self) -> dict[str, Any]:
        """Its last words; empty before it has said any."""
        try:
            told: dict[str, Any] = json.loads(self.health_file.read_text())
        except (OSError, ValueError):
            return {}
        return told if told.get("pid") == self.child.pid else {}

    def until_running(self) -> None:
        until(lambda: self.health().get("state") == "running" or not self.child.alive, f"{self.child.name} runs")
        if not self.child.alive:
            raise RuntimeError("\n".join([f"{self.child.name} ended:", *self.child.last_lines()]))


@dataclass
class Generator:
    """Simulated ranks in a process, and what it says of them."""

    child: Child

    def accounts(self) -> list[dict[str, Any]]:
        """What it had sent, second by second."""
        lines = self.child.log.read_text().splitlines() if self.child.log.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{")]

    def finish(self, seconds: float) -> dict[str, Any]:
        """Wait for its end; all that it has sent.

        Raises:
            RuntimeError: it failed, or does not come to its end.
        """
        if not self.child.wait(seconds) or self.child.exit_status != 0:
            raise RuntimeError("\n".join(["the generator did not end well:", *self.child.last_lines()]))
        return self.accounts()[-1]


class Usage:
    """The CPU seconds of processes, their threads and children included, between two looks."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._began = time.monotonic()
        self._before = self._now()

    def shares(self) -> dict[str, float]:
        """Of one core, by name, since the beginning; what has died is not there."""
        took = time.monotonic() - self._began
        return {name: (now - self._before[name]) / took for name, now in self._now().items() if name in self._before}

    def _now(self) -> dict[str, float]:
        return {name: told for name, process in self._processes.items() if (told := _cpu_seconds(process)) is not None}


def cpu_seconds(pid: int) -> float:
    """User and system, of all its threads and children."""
    return _cpu_seconds(psutil.Process(pid)) or 0.0


def _cpu_seconds(process: psutil.Process) -> float | None:
    try:
        family = [process, *process.children(recursive=True)]
        return float(sum(sum(one.cpu_times()[:2]) for one in family))
    except psutil.Error:
        return None


def resident_mib(pid: int) -> float:
    """Of its own; 0 where it is gone."""
    try:
        return float(psutil.Process(pid).memory_info().rss) / 2**20
    except psutil.Error:
        return 0.0


def until(holds: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> float:
    """Wait for it; how long that took.

    Raises:
        TimeoutError: it did not come about.
    """
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - began


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share of them lies; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
