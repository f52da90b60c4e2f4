"""A child process that cannot outlive us, with its output in a log file of bounded size.

The brokers and the supervisor's workers are started here. A child has a session of its own, so that Ctrl-C in the
terminal reaches the supervisor alone, which then stops its children in order; and the kernel kills it when its parent
is gone, however the parent died.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

LOG_BYTES = 4 * 1024 * 1024
"""A log larger than this becomes `NAME.log.1`, over the one before: at most twice this on disk for each child."""

LINE_CHARACTERS = 400
"""Of each line that a person is shown: a traceback on one line may have thousands."""

# A process of its own between fork and exec: a preexec_fn in a parent that has threads may deadlock. The look at the
# parent closes the gap in which it could have died before the kernel was asked.
_LEASH = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
if hasattr(libc, "prctl"):
    libc.prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""


@dataclass
class Child:
    """One process: `start`, `alive`, `stop` (asks, then insists), `kill` (the fault). It may be started again.

    Must be started from a thread that lives as long as the process should: the kernel ties a child to that thread.
    """

    name: str
    log: Path
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    def start(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        leashed = [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *command]
        with self._open_log() as output:
            self._process = subprocess.Popen(
                leashed,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id; 0 when it was never started."""
        return self._process.pid if self._process else 0

    @property
    def exit_status(self) -> int | None:
        """None while it lives; negative is the signal that ended it."""
        return self._process.poll() if self._process else 0

    @property
    def alive(self) -> bool:
        return self.exit_status is None

    def ask_to_stop(self) -> None:
        """SIGTERM, without waiting."""
        if self._process and self.alive:
            self._process.send_signal(signal.SIGTERM)

    def stop(self, seconds: float) -> bool:
        """Whether it ended by itself within `seconds` of being asked; otherwise it is killed."""
        self.ask_to_stop()
        if self.wait(seconds):
            return True
        self.kill()
        return False

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process and self.alive:
            self._process.kill()
            self._process.wait()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended by then."""
        if self._process is None:
            return True
        try:
            self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return False
        return True

    def last_lines(self, count: int = 12) -> list[str]:
        """The end of its log, for a person who must know why it died."""
        try:
            text = self.log.read_bytes()[-16_384:].decode(errors="replace")
        except OSError:
            return []
        return [line[:LINE_CHARACTERS] for line in text.splitlines() if line.strip()][-count:]

    def bound_log(self, limit: int = LOG_BYTES) -> None:
        """Keep the log within `limit` bytes; called now and then while the child runs.

        The file is emptied in place: the child goes on writing to the same one, opened for appending.
        """
        if self.log.exists() and self.log.stat().st_size > limit:
            shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
            os.truncate(self.log, 0)

    def _open_log(self) -> IO[bytes]:
        self.bound_log()
        return self.log.open("ab")


def stop_all(children: Sequence[Child], seconds: float) -> list[str]:
    """Ask all at once, then wait for each; the names of those that had to be killed."""
    for child in children:
        child.ask_to_stop()
    deadline = time.monotonic() + seconds
    return [child.name for child in children if not child.stop(deadline - time.monotonic())]
