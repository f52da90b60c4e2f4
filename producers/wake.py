"""Somebody's wake-up call: as `threading.Event`, but one that may also be set by a signal handler.

An Event takes a lock of its own while it is set, and a handler that runs just then, on the same thread, waits for it
for ever. Here setting is one step of the interpreter's.
"""

import threading


class Wake:
    """Set from anywhere, any number of times; waited for by one thread, which uses the call up."""

    def __init__(self) -> None:
        self._calls = threading.Lock()
        self._calls.acquire()

    def set(self) -> None:
        try:
            self._calls.release()
        except RuntimeError:  # it was set, and nobody has waited since
            return

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it was set, then or within that time; without a time, wait until it is."""
        return self._calls.acquire(timeout=-1 if seconds is None else max(0.0, min(seconds, threading.TIMEOUT_MAX)))
