"""One cell of the table: a script with one logger meets one failure, and what came of it.

The server is a real one behind a proxy that can be cut off: to its clients that is a server that died, and what it had
stored can still be read when all is over. The disk that is full from the middle on is a file system of 16 MiB in a
namespace of the script's own.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from pilothouse.tests.slow_network import SlowNetwork

from .child import BALLAST, STEP_SECONDS
from .readback import READBACK
from .servers import Servers

SMALL_DISK = "16m"
DISK_FULL = "disk full"
DISK_AND_SERVER = "disk and server"
SERVED = ("pilothouse", "kafka-python", "confluent-kafka", "mlflow-server")
DISKS = ("pilothouse", "wandb-offline", "mlflow-sqlite", "tensorboard", "trackio")
ALL_BUT_DEAD = (*(name for name in SERVED if name != "mlflow-server"), *DISKS[1:])
FAILURES: Mapping[str, tuple[str, ...]] = {
    "none": (*ALL_BUT_DEAD, "mlflow-server", "wandb-online"),
    "dead at start": (*SERVED, "wandb-online"),
    "dead in the middle": (*SERVED, "wandb-online"),
    DISK_FULL: DISKS,
    DISK_AND_SERVER: DISKS[:1],
    "fork": ALL_BUT_DEAD,
    "SIGKILL": ALL_BUT_DEAD,
    "exit without close": ALL_BUT_DEAD,
}
"""Which loggers a failure can happen to. TensorBoard, trackio and W&B offline have no server, Kafka clients no disk;
ours writes to the disk only while its server is away, so that it meets the full disk both ways.
"""
ON_A_SMALL_DISK = (DISK_FULL, DISK_AND_SERVER)

WORKER_HANGS = "worker hangs"


@dataclass
class Seen:
    """What a script told of itself, and how it ended."""

    calls: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    start_s: float | None = None
    close_s: float | None = None
    raised_at: str = ""
    raises: int = 0
    worker_hung: bool = False
    ended: str = ""

    def take(self, line: str) -> None:
        """One line of `child`."""
        what, seconds, error = json.loads(line)
        self.worker_hung |= what == WORKER_HANGS
        if what == "step":
            self.calls.append(seconds)
        elif what in ("start", "close"):
            setattr(self, f"{what}_s", seconds)
        if error:
            self.raises += 1
            self.raised_at = self.raised_at or what
            self.errors = self.errors or [error]


class Cell(NamedTuple):
    """What is done to whom: `deadline` is how many seconds its script may take."""

    name: str
    failure: str
    steps: int
    deadline: float


def measure(one: Cell, servers: Servers) -> dict[str, Any]:
    """Do this failure to this logger; one row."""
    with tempfile.TemporaryDirectory(prefix="failures-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch) / "own"
        folder.mkdir()
        network, direct = servers.network_of(one.name, folder)
        if one.failure in ("dead at start", DISK_AND_SERVER):
            network.cut()
        seen = _run(one, folder, network)
        network.cut()
        network.restore()
        kept = READBACK[one.name](folder, direct)
        servers.done_with()
    return _row(one, seen, kept)


def _row(one: Cell, seen: Seen, kept: set[int]) -> dict[str, Any]:
    work = STEP_SECONDS * len(seen.calls)
    own = kept & set(range(one.steps))
    return {
        "failure": one.failure,
        "name": one.name,
        "raised": seen.errors[0] if seen.errors else "",
        "raised_at": seen.raised_at,
        "raises": seen.raises,
        "longest_call_s": max(seen.calls, default=None),
        "slowdown": (work + sum(seen.calls)) / work if seen.calls else None,
        "start_s": seen.start_s,
        "close_s": seen.close_s,
        "ended": seen.ended,
        "worker_hung": seen.worker_hung,
        "steps": one.steps,
        "called": len(seen.calls),
        "kept": len(own),
        "lost": one.steps - len(own),
        "kept_of_worker": len(kept - own),
    }


def _run(one: Cell, folder: Path, network: SlowNetwork) -> Seen:
    seen = Seen()
    reader, writer = os.pipe()
    arguments = [one.name, one.failure, str(folder), f"127.0.0.1:{network.port}", str(one.steps)]
    command = [sys.executable, "-m", "benchmarks.failures.child", *arguments]
    began = time.monotonic()
    process = subprocess.Popen(
        _on_a_full_disk(command, folder, one.deadline) if one.failure in ON_A_SMALL_DISK else command,
        env=os.environ | {"REPORT": str(writer)} | _OFFLINE,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=(folder.parent / "stderr").open("wb"),
        pass_fds=[writer],
        start_new_session=True,
    )
    os.close(writer)
    assert process.stdin is not None
    listening = threading.Thread(target=_listen, args=(reader, process.stdin, seen, network), daemon=True)
    listening.start()
    with _all_gone(process):
        status = _waited(process, one.deadline + (10.0 if one.failure in ON_A_SMALL_DISK else 0.0))
    took = time.monotonic() - began
    seen.ended = f"still ran after {one.deadline:.0f} s" if took >= one.deadline else _named(status)
    listening.join(3.0)
    return seen


def _waited(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    with suppress(subprocess.TimeoutExpired):
        return process.wait(seconds)
    return None


def _named(status: int | None) -> str:
    return "SIGKILL" if status in (-9, 137) else f"status {status}"


_OFFLINE = {
    "WANDB_SILENT": "true",
    "WANDB_CONSOLE": "off",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "HF_HUB_OFFLINE": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
}
"""Nobody is told of a benchmark, and nothing is printed; none of these changes what a failure does."""


def _listen(reader: int, stdin: IO[bytes], seen: Seen, network: SlowNetwork) -> None:
    with os.fdopen(reader) as lines:
        for line in lines:
            if json.loads(line)[0] == "half":
                network.cut()
                with suppress(OSError):
                    stdin.write(b"\n")
                    stdin.flush()
            else:
                seen.take(line)


@contextmanager
def _all_gone(process: "subprocess.Popen[bytes]") -> Any:
    """The script and whatever services it started are ended with it; what they do at SIGKILL is theirs."""
    try:
        yield
    finally:
        time.sleep(1.0 if process.poll() is not None else 0.0)  # a service may still write what its dead client sent
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _on_a_full_disk(command: list[str], folder: Path, deadline: float) -> list[str]:
    """The same, with a tiny file system on its folder, whose files are copied out when the script has ended."""
    kept = folder.parent / "kept"
    script = f"""
        mount -t tmpfs -o size={SMALL_DISK} tmpfs '{folder}' || exit 1
        timeout --signal=KILL {deadline:.0f} "$@"
        status=$?
        rm -f '{folder}/{BALLAST}'
        cp -r '{folder}' '{kept}'
        umount -l '{folder}'
        cp -r '{kept}/.' '{folder}'
        exit $status
    """
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", *command]


def can_fill_disks() -> bool:
    """Whether this machine lets us mount a file system of our own."""
    probe = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return (
        shutil.which("unshare") is not None and subprocess.run(probe, capture_output=True, check=False).returncode == 0
    )
