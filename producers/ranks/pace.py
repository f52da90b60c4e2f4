"""How long a step takes, and so how many steps ahead all ranks must be told what they will do. For
`steering.safe_point`.
"""

import math
import time
from dataclasses import dataclass
from typing import Protocol

MARGIN_STEPS = 3


class Clock(Protocol):
    """Seconds that only grow."""

    def __call__(self) -> float: ...


@dataclass
class StepPace:
    """How long a step takes, from the safe points of the last dozen steps or so."""

    clock: Clock = time.monotonic
    seconds: float = 0.0
    _last: float | None = None

    def note(self) -> None:
        now = self.clock()
        if self._last is not None:
            took = now - self._last
            self.seconds = took if self.seconds == 0.0 else self.seconds + (took - self.seconds) / 12
        self._last = now

    def forget(self) -> None:
        """What comes next is not a step (a pause was between)."""
        self._last = None

    def margin(self, word_seconds: float, tries: int) -> int:
        """How many steps ahead to agree, so that every rank has heard before; doubled at every try."""
        needed = math.ceil(word_seconds / self.seconds) if self.seconds > 0 else 0
        return max(MARGIN_STEPS, needed + 1) << tries
