"""Three Apache Kafkas that are one cluster: each a process that dies alone. `min.insync.replicas` is 2.

It wants the launcher of `PILOTHOUSE_TEST_KAFKA` (CONTRIBUTING.md): the folder of a distribution knows one broker.
"""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pilothouse.cli.brokers import HOST, START_SECONDS, free_port, listens
from pilothouse.cli.children import Child
from pilothouse.cli.topic_admin import admin_client, create_topics
from pilothouse.events.errors import BrokerUnavailable
from pilothouse.events.topics import CONTROL, DEADLETTER, TELEMETRY
from pilothouse.tests.broker_fixture import PARTITIONS, named_kafka

IDS = (1, 2, 3)
HEAL_SECONDS = 120.0
ANSWER_SECONDS = 20.0


class ThreeBrokers:
    """What a stage needs of a broker, and `kill_one`, `start_one`, `leader`."""

    name = "three Apache Kafkas"
    keeps_log = True
    replication = 3

    def __init__(self, folder: Path) -> None:
        launcher = named_kafka()
        if launcher.is_dir():
            pytest.skip(
                "needs the launcher of an Apache Kafka in PILOTHOUSE_TEST_KAFKA: one that takes --ports and --id"
            )
        self._launcher = launcher
        self._folder = folder
        self._ports = [_pair_of_ports() for _ in IDS]
        self._children = {one: Child(f"broker {one}", folder / f"broker-{one}.log") for one in IDS}

    @property
    def address(self) -> str:
        return ",".join(f"{HOST}:{port}" for port in self._ports)

    def start(self) -> None:
        for one in IDS:
            self._launch(one)
        deadline = time.monotonic() + 3 * START_SECONDS
        while True:
            try:
                create_topics(self.address, PARTITIONS, self.replication, ANSWER_SECONDS)
            except BrokerUnavailable:
                assert time.monotonic() < deadline, "the three brokers did not become one cluster"
                time.sleep(0.5)
            else:
                return

    def start_one(self, one: int) -> None:
        """Start it again; returns when every partition has all of its replicas in step."""
        self._launch(one)
        deadline = time.monotonic() + HEAL_SECONDS
        while not self._whole():
            assert time.monotonic() < deadline, f"broker {one} did not catch up:\n{self._children[one].last_lines()}"
            time.sleep(0.3)

    def kill_one(self, one: int) -> None:
        """SIGKILL."""
        self._children[one].kill()

    def leader(self, topic: str, partition: int) -> int:
        """Which of them leads this partition."""
        return int(self._partitions()[topic, partition]["leader_id"])

    def kill(self) -> None:
        for child in self._children.values():
            child.kill()

    def _launch(self, one: int) -> None:
        ports = ",".join(map(str, self._ports))
        command = [str(self._launcher), "run", str(self._folder / f"k{one}"), "--ports", ports, "--id", str(one)]
        self._children[one].start([*command, "--set", "min.insync.replicas=2"], os.environ)

    def _whole(self) -> bool:
        with suppress(BrokerUnavailable):
            found = self._partitions().values()
            return all(len(each["isr_nodes"]) == self.replication for each in found)
        return False

    def _partitions(self) -> Mapping[tuple[str, int], Any]:
        living = ",".join(f"{HOST}:{port}" for port in self._ports if listens(port))
        with admin_client(living or self.address, ANSWER_SECONDS) as client:
            answers = client.describe_topics([TELEMETRY.name, CONTROL.name, DEADLETTER.name])
        return {(one["name"], each["partition_index"]): each for one in answers for each in one["partitions"]}


def _pair_of_ports() -> int:
    """A free port whose successor is free too: the launcher gives that one to the controller."""
    while True:
        port = free_port()
        with suppress(OSError, OverflowError), socket.socket() as probe:
            probe.bind((HOST, port + 1))
            return port
