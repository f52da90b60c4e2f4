"""How much training the present state of a trainer is worth, in seconds.

It stands in every checkpoint; what a rollback throws away is the difference. So training is lost once, however often
the run goes back to the same checkpoint, and neither the time in which no process ran nor another machine's clock is
counted. Kept by `steering.rollback`.
"""

import time
from collections.abc import Callable


class WorkClock:
    """Runs while the process trains; goes back with the state."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._worth = 0.0
        self._since = clock()

    @property
    def seconds(self) -> float:
        return self._worth + self._clock() - self._since

    def go_back_to(self, worth: float) -> float:
        """The state is one that was worth so much; the seconds that are lost with it."""
        lost = self.seconds - worth
        self._worth, self._since = worth, self._clock()
        return max(0.0, lost)
