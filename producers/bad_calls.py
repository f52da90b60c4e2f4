"""Bad calls: counted by reason, and reported once per reason with the line that made them.

Called by `producers.values` and `producers.run`, on the training thread, where nothing may be raised; the counts leave
in the next `TelemetryGap` (`producers.outbox`).
"""

import contextlib
import logging
import os
import sys
import threading
from collections import Counter
from pathlib import Path

from .plain import on_one_line

logger = logging.getLogger("pilothouse")

LOSSES = frozenset({"queue_full", "device_limit", "device_value"})
"""Reasons for which telemetry was lost; with any other a call said nothing that could be kept."""

_HERE = str(Path(__file__).parent) + os.sep
_BETWEEN = contextlib.__file__
"""Stands between `with run.evaluating():` and us."""


class BadCalls:
    """What was asked for and could not be done. Its methods may be called from any thread, and by signal handlers."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._counts: Counter[str] = Counter()
        self._reported: set[str] = set()

    def add(self, reason: str, message: str, place: str = "") -> None:
        """Count it, and say so if this is the first of its reason; at `place`, or at the line that called us."""
        with self._lock:
            self._counts[reason] += 1
            known = reason in self._reported
        if not known and self.first(reason):
            where, said = place or caller(), on_one_line(message)
            logger.warning("%s: %s (said once; further ones are counted, as %s)", where, said, reason)

    def first(self, reason: str) -> bool:
        """Whether this is the first time that somebody asks this of `reason`."""
        with self._lock:
            first = reason not in self._reported
            self._reported.add(reason)
        return first

    def take(self) -> dict[str, int]:
        """The counts since the last call."""
        with self._lock:
            counts, self._counts = dict(self._counts), Counter()
        return counts


def caller() -> str:
    """file:line of the innermost frame that is not ours."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((_HERE, _BETWEEN)):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
