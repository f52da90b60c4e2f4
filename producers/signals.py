"""SIGTERM, as schedulers send it before they take a machine away: the script unwinds, so that the run can say
`preempted`.

Armed by `producers.run` for as long as a run is open. A script's own handler keeps its say; without one, Python would
die at once and tell nobody.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

AGAIN_SECONDS = 5.0
"""A launcher passes on what the scheduler has sent to its ranks as well: what comes so soon after the first says the
same.
"""


class Preemption:
    """Whether SIGTERM came. Arms itself on the main thread only, where Python allows it. `clock` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.seen = False
        self._clock = clock
        self._armed = False
        self._before: object = None
        self._raised_at = -AGAIN_SECONDS
        self._closing = False
        self._waits = False

    def arm(self) -> None:
        """From now on SIGTERM raises SystemExit(143), unless the script handles it itself."""
        before = signal.getsignal(signal.SIGTERM)
        # None is a handler that was not set from Python: it is not ours to replace.
        if threading.current_thread() is threading.main_thread() and before not in (None, signal.SIG_IGN):
            self._before = before
            signal.signal(signal.SIGTERM, self._on_term)
            self._armed = True

    def hold(self) -> None:
        """The run is being closed, which takes seconds at most: what comes before `disarm` waits until then."""
        self._closing = True

    def disarm(self) -> None:
        """Put the handler back that was there, if ours is still in its place, and let it hear what has waited."""
        on_main = threading.current_thread() is threading.main_thread()
        if self._armed and on_main and signal.getsignal(signal.SIGTERM) == self._on_term:
            signal.signal(signal.SIGTERM, self._before)  # type: ignore[arg-type]  # it came from getsignal
        self._armed = self._closing = False
        if self._waits:
            self._waits = False
            os.kill(os.getpid(), signal.SIGTERM)

    def _on_term(self, number: int, frame: FrameType | None) -> None:
        again, self.seen = self.seen, True
        if self._closing:
            self._waits = self._waits or callable(self._before) or not again
        elif callable(self._before):
            self._before(number, frame)
        elif not again or self._clock() - self._raised_at > AGAIN_SECONDS:
            self._raised_at = self._clock()
            raise SystemExit(128 + number)
