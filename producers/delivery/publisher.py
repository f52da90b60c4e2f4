"""The thread around an outbox: pumps it, ends it by a deadline, and leaves forked children alone.

Started by `producers.start`. The training thread meets it only at the end, in `close`, which never takes longer
than its deadline: what the broker has not taken by then stays in the spool.
"""

import math
import threading
import time
import weakref
from collections.abc import Callable
from functools import cache
from os import register_at_fork

from ..voice import logger
from .outbox import Outbox

GRACE_SECONDS = 0.9
"""How much longer than its deadline the end is waited for: files are written then. With what else ends, a second."""

LAST_ATTEMPTS = 2
"""How often the end tries to reach a broker that is away; the first of them may have begun before."""

_live: "weakref.WeakSet[Publisher]" = weakref.WeakSet()


class Publisher:
    """Runs `outbox.pump` when it is due, and at once when the outbox asks for it."""

    def __init__(self, outbox: Outbox, on_inert: Callable[[], None] = lambda: None) -> None:
        self.inert = False
        self._on_inert = on_inert
        self._outbox = outbox
        self._closing = threading.Event()
        self._deadline = math.inf
        self._thread = threading.Thread(target=self._work, name="pilothouse-outbox", daemon=True)

    def start(self) -> None:
        """Start the thread. A child that is forked from here on has an inert copy of the run, and so has a process that
        may start no thread.
        """
        try:
            self._thread.start()
        except RuntimeError as error:
            self.inert = True
            self._on_inert()
            logger.warning("this run publishes nothing: no thread of its own can be started (%s)", error)
            return
        _watch_forks()
        _live.add(self)

    def close(self, seconds: float) -> None:
        """Send what there is, for at most `seconds`; what is left stays on disk. Never raises. Called again, where a
        first call was broken off, it takes the sooner deadline.
        """
        if self.inert:
            return
        self._deadline = min(self._deadline, time.monotonic() + seconds)
        self._closing.set()
        self._outbox.wake.set()
        self._thread.join(seconds + GRACE_SECONDS)
        if self._thread.is_alive():
            logger.warning("the outbox did not end within %.0f s; it is left behind", seconds + GRACE_SECONDS)

    def forked(self) -> None:
        """This is a child's copy: its thread is the parent's, and so is everything it would send."""
        self.inert = True
        self._on_inert()
        self._outbox.sender.forget()
        self._outbox.backlog.spool.forget()

    def _work(self) -> None:
        while not self._closing.is_set():
            self._round()
            self._outbox.wake.wait(self._outbox.rest_seconds())
        self._finish()

    def _round(self, *, flush: bool = False) -> None:
        try:
            self._outbox.pump(flush=flush)
        except Exception:  # noqa: BLE001  # one round that fails must not keep the next from sending
            if self._outbox.bad_calls.first("pump"):
                logger.exception("publishing telemetry failed; it goes on, but this is a bug of Pilothouse")

    def _finish(self) -> None:
        sender = self._outbox.sender
        sender.hurry()
        given_up = sender.failures + LAST_ATTEMPTS
        while not self._outbox.empty() and time.monotonic() < self._deadline and sender.failures < given_up:
            self._round(flush=True)
            self._outbox.wake.wait(0.05)
        self._leave()
        sender.close()

    def _leave(self) -> None:
        if self._outbox.empty():
            return
        unsaved = self._outbox.put_away()
        counts, folder = self._outbox.counts(), self._outbox.backlog.spool.folder
        if counts.spooled:
            logger.warning("the broker did not take everything: %d calls wait in %s", counts.spooled, folder)
        if unsaved:
            logger.warning("%d calls of telemetry are lost: neither the broker nor %s took them", unsaved, folder)


@cache
def _watch_forks() -> None:
    """Once a process, and not at import: nothing of ours happens then."""
    register_at_fork(after_in_child=_all_forked)


def _all_forked() -> None:
    for publisher in list(_live):
        publisher.forked()
