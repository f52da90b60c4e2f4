"""The parts of a stack as the supervisor handles them: start, look, stop. One class for each kind of process.

`supervisor` holds one of each; which of them must be started or stopped is `supervision`'s to say. A part looks well
when it makes progress: the broker and the archive answer, a worker's records grow. A living process proves nothing.
"""

import http.client
import os
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from ..access import KafkaAccess
from ..events.errors import Unavailable, UserMistake
from ..stream_processors.health import health_file, read_health
from .brokers import HOST, LocalBroker, refuse_taken_port
from .children import Child
from .stack_file import Stack
from .supervision import Part, Sight
from .topic_admin import cluster_id

PROBE_EVERY = 5.0
PROBE_SECONDS = 3.0
STUCK_SECONDS = 30.0
BEGINNING_SECONDS = 600.0
"""A worker that has not begun yet may be reading a long history back."""


class Running(Protocol):
    """What the supervisor knows of a part. `now` is monotonic seconds."""

    part: Part
    shown: str

    @property
    def pid(self) -> int: ...
    @property
    def alive(self) -> bool: ...
    def start(self, stack: Stack, now: float, /) -> None: ...
    def sight(self, now: float, /) -> Sight: ...
    def is_ready(self) -> bool: ...
    def ask_to_stop(self) -> None: ...
    def stop(self, seconds: float) -> None: ...
    def how_it_ended(self) -> str: ...
    def bound_log(self) -> None: ...


class Progress:
    """Since when something has not moved: the one thing that tells work from mere life."""

    def __init__(self) -> None:
        self._mark: object = None
        self._moved_at = 0.0

    def begin(self, now: float) -> None:
        self._mark, self._moved_at = None, now

    def stands_still(self, mark: object, now: float) -> float:
        """For how many seconds `mark` has been the same."""
        if mark != self._mark:
            self._mark, self._moved_at = mark, now
        return now - self._moved_at


class Probe:
    """Asks a question now and then, and remembers when it was last answered."""

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask = ask
        self._asked_at = self._answered_at = 0.0

    def begin(self, now: float) -> None:
        self._asked_at = self._answered_at = now

    def silent_for(self, now: float) -> float:
        if now - self._asked_at >= PROBE_EVERY:
            self._asked_at = now
            if self._ask():
                self._answered_at = now
        return now - self._answered_at


class BrokerPart:
    """The broker that `up` runs. Its start returns when it has answered."""

    part = Part.BROKER

    def __init__(self, broker: LocalBroker) -> None:
        self.broker = broker
        self.shown = broker.name
        self._probe = Probe(lambda: speaks_kafka(HOST, broker.port))

    @property
    def pid(self) -> int:
        return self.broker.pid

    @property
    def alive(self) -> bool:
        return self.broker.alive

    def start(self, _stack: Stack, now: float, /) -> None:
        self.broker.start()
        self._probe.begin(now)

    def sight(self, now: float) -> Sight:
        return _sight(self.alive, stuck=self.alive and self._probe.silent_for(now) > STUCK_SECONDS)

    def is_ready(self) -> bool:
        return self.alive

    def ask_to_stop(self) -> None:
        self.broker.child.ask_to_stop()

    def stop(self, seconds: float) -> None:
        self.broker.child.stop(seconds)

    def how_it_ended(self) -> str:
        return _ending(self.shown, self.broker.child)

    def bound_log(self) -> None:
        self.broker.child.bound_log()


class ForeignBroker:
    """A Kafka that somebody else runs: it is asked for its identity at the start, and otherwise left alone.

    When it goes away its workers end by themselves, and are started again until it is back.
    """

    part = Part.BROKER
    pid = 0
    alive = True

    def __init__(self, access: KafkaAccess) -> None:
        self.address = access.servers
        self.shown = f"Kafka at {access}"
        self.access = access

    def start(self, _stack: Stack, _now: float, /) -> None:
        cluster_id(self.access)

    def sight(self, _now: float, /) -> Sight:
        return Sight.RUNNING

    def is_ready(self) -> bool:
        return True

    def ask_to_stop(self) -> None:
        """It is not ours."""

    def stop(self, seconds: float) -> None:
        """It is not ours."""

    def how_it_ended(self) -> str:
        return f"{self.shown} is away"

    def bound_log(self) -> None:
        """Its log is its own."""


class ChildPart:
    """A worker of ours in a process of its own: `pilothouse worker ROLE`."""

    def __init__(self, part: Part, data_dir: Path) -> None:
        self.part = part
        self.shown = f"the {part}"
        self.child = Child(str(part), data_dir / "logs" / f"{part}.log")

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def alive(self) -> bool:
        return self.child.alive

    def _launch(self, stack: Stack, *words: str) -> None:
        # -P: the folder `up` was typed in may hold a file named like a module.
        command = [sys.executable, "-P", "-m", "pilothouse.cli.main", *words]
        self.child.start(command, os.environ | stack.environ_of(str(self.part)))

    def ask_to_stop(self) -> None:
        self.child.ask_to_stop()

    def stop(self, seconds: float) -> None:
        self.child.stop(seconds)

    def how_it_ended(self) -> str:
        return _ending(self.shown, self.child)

    def bound_log(self) -> None:
        self.child.bound_log()


class ServingPart(ChildPart):
    """A process that answers HTTP at a port of this machine."""

    role: Part
    option, page = "", "/"

    def __init__(self, data_dir: Path, port: int) -> None:
        super().__init__(self.role, data_dir)
        self.port = port
        self._probe = Probe(self._answers)

    def start(self, stack: Stack, now: float) -> None:
        refuse_taken_port(self.port, self.option)
        self._serve(stack)
        self._probe.begin(now)

    def _serve(self, stack: Stack) -> None:
        raise NotImplementedError

    def sight(self, now: float) -> Sight:
        return _sight(self.alive, stuck=self.alive and self._probe.silent_for(now) > STUCK_SECONDS)

    def is_ready(self) -> bool:
        return self.alive and self._answers()

    def _answers(self) -> bool:
        return answers(f"http://{HOST}:{self.port}", self.page)


class ArchivePart(ServingPart):
    """The embedded ClickHouse behind its HTTP interface."""

    role, option, page = Part.ARCHIVE, "--http-port", "/ping"

    def _serve(self, stack: Stack) -> None:
        self._launch(stack, "worker", "endpoint")


class ControlRoomPart(ServingPart):
    """The control room in a browser."""

    role, option = Part.CONTROL_ROOM, "--page-port"

    def _serve(self, stack: Stack) -> None:
        self._launch(stack, "serve", "--port", str(self.port), "--quiet")


class StreamPart(ChildPart):
    """The governor, the archiver or the advisor. It says itself how far it is, in its health file."""

    def __init__(self, part: Part, data_dir: Path, slot: str = "0") -> None:
        super().__init__(part, data_dir)
        self._health = health_file(data_dir, part, slot)
        self._told = Progress()
        self._records = Progress()

    def start(self, stack: Stack, now: float) -> None:
        self._health.unlink(missing_ok=True)
        self._launch(stack, "worker", str(self.part))
        self._told.begin(now)
        self._records.begin(now)

    def sight(self, now: float) -> Sight:
        health = self.health()
        running = health.get("state") == "running"
        silent = self._told.stands_still(health.get("at"), now)
        still = self._records.stands_still((running, health.get("records")), now)
        patience = STUCK_SECONDS if running else BEGINNING_SECONDS
        # Nothing to count where it waits for the archive, and says so: a restart would not help it; nor where nobody
        # asks an advisor anything.
        excused = bool(health.get("last_error")) or (self.part is Part.ADVISOR and not _behind(health))
        return _sight(self.alive, stuck=self.alive and (silent > patience or (still > patience and not excused)))

    def is_ready(self) -> bool:
        return self.alive and self.health().get("state") == "running"

    def health(self) -> dict[str, Any]:
        """Its last words, if this process has said any."""
        told = read_health(self._health)
        return told if told.get("pid") == self.pid else {}


def _behind(health: dict[str, Any]) -> bool:
    """Whether there are records that a worker has not read."""
    lag = health.get("lag")
    return isinstance(lag, dict) and any(lag.values())


def answers(url: str, page: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether what serves HTTP at this address says that it is there: ClickHouse at `/ping`, embedded or a server."""
    parts = urlsplit(url)
    made = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = made(parts.hostname or HOST, parts.port, timeout=seconds)
    try:
        connection.request("GET", page)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def speaks_kafka(host: str, port: int, seconds: float = PROBE_SECONDS) -> bool:
    """Whether a broker answers an ApiVersions request (the one that every broker answers, and the cheapest)."""
    request = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        with socket.create_connection((host, port), timeout=seconds) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = connection.recv(8)
    except OSError:
        return False
    return len(answer) == 8 and struct.unpack(">ii", answer)[1] == 1


def _sight(alive: bool, *, stuck: bool) -> Sight:
    if not alive:
        return Sight.DEAD
    return Sight.STUCK if stuck else Sight.RUNNING


def _ending(shown: str, child: Child) -> str:
    status = child.exit_status
    if status is None:
        return f"{shown} does not answer"
    return f"{shown} was killed by signal {-status}" if status < 0 else f"{shown} ended with status {status}"


def start_failure(part: Running, child: Child | None) -> UserMistake | Unavailable:
    """Why a stack cannot start, with the end of the log; a status of 2 is a person's to correct."""
    lines = [part.how_it_ended() + (f"; {child.log} ends:" if child else ""), *(child.last_lines() if child else [])]
    text = "\n  ".join(lines)
    return UserMistake(text) if child and child.exit_status == 2 else Unavailable(text)
