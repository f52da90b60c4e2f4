"""One process owns an embedded archive's directory; a second one is told who it is and what to do.

The engine itself refuses a second process with an error that never says so; this lock is taken before the engine is
touched. `storage.engine` holds it for as long as its handles are open; a process that dies, however it dies, lets go.
"""

import fcntl
import os
from pathlib import Path

from ..events.errors import DirectoryInUse, SettingsInvalid

LOCK_FILE = "owner.lock"
"""Inside the archive's directory: locked by its owner, whose process id is its text."""


class DirectoryLock:
    """An exclusive lock on one directory, held until `release` or the end of the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, directory: Path) -> "DirectoryLock":
        """Make the directory if it is not there, and own it.

        Raises:
            DirectoryInUse: another process owns it; the message names that process.
            SettingsInvalid: the directory cannot be made, written or locked.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise SettingsInvalid(
                f"the archive cannot live in {directory}: {error}; choose another data directory"
            ) from error
        try:
            _lock(descriptor, directory)
        except BaseException:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        """Let the next process in."""
        os.close(self._descriptor)


def _lock(descriptor: int, directory: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        raise DirectoryInUse(
            f"the archive in {directory} is open in process {owner}, and only one process may own it: "
            f"stop that process, talk to its endpoint instead, or choose another data directory"
        ) from error
    except OSError as error:
        raise SettingsInvalid(
            f"the archive in {directory} cannot be locked ({error}): choose a data directory on a local disk"
        ) from error
