"""The servers behind the loggers, each reached through a proxy that can be cut off: a broker, MLflow's own, and as much
of W&B's as its client asks for.
"""

import os
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from pilothouse.cli.brokers import HOST, free_port
from pilothouse.cli.topic_admin import create_topics
from pilothouse.tests.slow_network import FarBroker, SlowNetwork

from .loggers import TOPIC
from .wandb_server import WandbServer

PARTITIONS = 1
MLFLOW_SECONDS = 120.0
KAFKA = ("pilothouse", "kafka-python", "confluent-kafka")


class Servers:
    """A fresh server for each cell, so that nothing of the one before is counted."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._made = 0
        self._broker: FarBroker | None = None
        self._mlflow: subprocess.Popen[bytes] | None = None
        self._wandb: WandbServer | None = None
        self._network: SlowNetwork | None = None

    def network_of(self, name: str, folder: Path) -> tuple[SlowNetwork, str]:
        """What the logger connects to, and the server's own address; where it has no server, nobody is behind it."""
        self._made += 1
        if name in KAFKA:
            self._broker = FarBroker(self._scratch / str(self._made))
            self._broker.start()
            create_topics(self._broker.address, PARTITIONS, replication=1)
            _create(self._broker.address)
            return self._broker.network, self._broker.address
        port = free_port()
        self._network = SlowNetwork(port)
        if name == "mlflow-server":
            self._mlflow = _mlflow(folder, port)
        elif name == "wandb-online":
            self._wandb = WandbServer(port)
        return self._network, f"{HOST}:{port}"

    def done_with(self) -> None:
        """The cell is over."""
        if self._broker is not None:
            self._broker.network.close()
            self._broker.kill()
            self._broker = None
        if self._network is not None:
            self._network.close()
            self._network = None
        if self._wandb is not None:
            self._wandb.close()
            self._wandb = None
        if self._mlflow is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._mlflow.pid, 9)
            self._mlflow.wait()
            self._mlflow = None


def _create(address: str) -> None:
    from kafka.admin import KafkaAdminClient

    client = KafkaAdminClient(bootstrap_servers=address)
    try:
        client.create_topics({TOPIC: {"num_partitions": PARTITIONS, "replication_factor": 1}})
    finally:
        client.close()


def _mlflow(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    """`mlflow server` on SQLite, when it answers."""
    log = (folder.parent / "mlflow.log").open("wb")
    store = f"sqlite:///{folder}/mlflow.db"
    where = ["--host", HOST, "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, *where],
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    deadline = time.monotonic() + MLFLOW_SECONDS
    while True:
        with suppress(OSError), urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2.0):
            return process
        if process.poll() is not None or time.monotonic() > deadline:
            said = (folder.parent / "mlflow.log").read_text()[-2_000:]
            raise RuntimeError(f"the MLflow server does not answer: {said}")
        time.sleep(0.2)
