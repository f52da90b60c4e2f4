"""SIGTERM, as schedulers send it before they take a machine away: the script unwinds, so that the run can say
`preempted`.

Armed by `producers.run` for as long as a run is open. A script's own handler keeps its say; without one, Python would
die at once and tell nobody.
"""

import signal
import threading
from types import FrameType


class Preemption:
    """Whether SIGTERM came. Arms itself on the main thread only, where Python allows it."""

    def __init__(self) -> None:
        self.seen = False
        self._armed = False
        self._before: object = None

    def arm(self) -> None:
        """From now on SIGTERM raises SystemExit(143), unless the script handles it itself."""
        before = signal.getsignal(signal.SIGTERM)
        # None is a handler that was not set from Python: it is not ours to replace.
        if threading.current_thread() is threading.main_thread() and before not in (None, signal.SIG_IGN):
            self._before = before
            signal.signal(signal.SIGTERM, self._on_term)
            self._armed = True

    def disarm(self) -> None:
        """Put the handler back that was there, if ours is still in its place."""
        on_main = threading.current_thread() is threading.main_thread()
        if self._armed and on_main and signal.getsignal(signal.SIGTERM) == self._on_term:
            signal.signal(signal.SIGTERM, self._before)  # type: ignore[arg-type]  # it came from getsignal
        self._armed = False

    def _on_term(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        if callable(self._before):
            self._before(number, frame)
        else:
            raise SystemExit(128 + number)
