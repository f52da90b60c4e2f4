"""Bad calls: counted by reason, and reported once per reason with the line that made them.

Called by `metrics.values` and `producers.run`, on the training thread, where nothing may be raised; the counts leave
in the next `TelemetryGap` (`delivery.outbox`).
"""

import contextlib
import os
import sys
import threading
from collections import Counter, deque
from pathlib import Path

from .plain import on_one_line
from .voice import logger

LOSSES = frozenset({"queue_full", "device_limit", "device_value"})
"""Reasons for which telemetry was lost; with any other a call said nothing that could be kept."""

UNCOUNTED = 1_000
"""So many wait to be counted before the caller counts them."""

COUNT_SECONDS = 1.0

_HERE = str(Path(__file__).parent) + os.sep
_BETWEEN = contextlib.__file__
"""Stands between `with run.evaluating():` and us."""


class BadCalls:
    """What was asked for and could not be done.

    Its methods may be called from any thread, and by a signal handler in the midst of another call: so nothing is
    counted up where it is said, and no lock is waited for that the interrupted call may hold.
    """

    def __init__(self) -> None:
        self._said: deque[str] = deque()
        self._counts: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._reported: dict[str, object] = {}

    def add(self, reason: str, message: str, place: str = "") -> None:
        """Count it, and say so if this is the first of its reason; at `place`, or at the line that called us."""
        self._said.append(reason)
        if len(self._said) > UNCOUNTED and self._counting.acquire(blocking=False):
            try:
                self._count()
            finally:
                self._counting.release()
        if reason not in self._reported and self.first(reason):
            where, said = place or caller(), on_one_line(message)
            logger.warning("%s: %s (said once; further ones are counted, as %s)", where, said, reason)

    def first(self, reason: str) -> bool:
        """Whether this is the first time that somebody asks this of `reason`."""
        me = object()
        return self._reported.setdefault(reason, me) is me

    def take(self) -> dict[str, int]:
        """The counts since the last call. Called by the outbox's thread."""
        if not self._counting.acquire(timeout=COUNT_SECONDS):  # an interrupt can leave it held
            return {}
        try:
            self._count()
            counts, self._counts = dict(self._counts), Counter()
        finally:
            self._counting.release()
        return counts

    def _count(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._counts[self._said.popleft()] += 1


def caller() -> str:
    """file:line of the innermost frame that is not ours."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((_HERE, _BETWEEN)):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
