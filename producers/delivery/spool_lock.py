"""Who owns a spool folder: the process that writes it, or the one that sends what a dead process left behind.

Taken by `delivery.spool` with its first file and let go with its last; asked by `delivery.leftovers`. A process that
dies, however it dies, lets go: that is how the dead are told from the living, also on another machine where the folder
is shared.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

LOCK_FILE = "owner.lock"
"""Locked by the owner, whose process id is its text."""


class SpoolLock:
    """An exclusive lock on one folder, until `release`, `remove` or the end of the process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, folder: Path) -> "SpoolLock":
        """Own the folder, which is there.

        Raises:
            BlockingIOError: another process owns it.
            OSError: it cannot be locked; a file system may know no locks.
        """
        path = folder / LOCK_FILE
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(path, descriptor):
                    _sign(descriptor)
                    return cls(path, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # its owner removed it in between: that lock guards nothing

    def release(self) -> None:
        """Let the next process in. In a forked child: let go of the copy, which leaves the parent's lock alone."""
        with suppress(OSError):
            os.close(self._descriptor)

    def remove(self) -> None:
        """Let go, and leave no trace."""
        with suppress(OSError):
            self._path.unlink()
        self.release()


def owner_of(folder: Path) -> str | None:
    """The process that owns the folder, as it signed; None where nobody does.

    Raises:
        OSError: it cannot be told.
    """
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "unknown"
    finally:
        os.close(descriptor)
    return None


def _sign(descriptor: int) -> None:
    with suppress(OSError):  # a full disk takes no signature, and the lock holds without
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} on {os.uname().nodename}\n".encode(), 0)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
