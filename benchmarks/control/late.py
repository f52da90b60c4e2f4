"""The fault layer of the benchmark: answers that come late or never, between whoever hears commands and the pilot.

It stands where rank 0 takes its commands from (`producers.steering.control.Commands`), over the real follower of the
control topic or over the fold in the same process.
"""

import random
from collections import deque
from typing import NamedTuple

from pilothouse.events.decisions import InterventionIssued
from pilothouse.producers.checkpoints.retention import Judgement
from pilothouse.producers.steering.control import CLOSE_SECONDS, Commands, Distrusted


class _Heard(NamedTuple):
    update: int
    command: InterventionIssued


class Late:
    """Gives every command `late` updates after it was heard, and loses a `share` of them, the same ones for the same
    seed.
    """

    def __init__(self, commands: Commands, late: int, share: float, seed: int) -> None:
        self._commands = commands
        self._late, self._share = late, share
        self._chance = random.Random(f"{seed}/{late}")  # a run hears few commands: not the same for all arms
        self._waiting: deque[_Heard] = deque()
        self._update = 0
        self.lost = 0
        self.lags: list[int] = []

    def at(self, update: int, step: int) -> None:
        """So many updates are done; what has come until now is heard now."""
        self._update = update
        while (command := self._commands.take()) is not None:
            if isinstance(command, Distrusted):
                continue
            if self._chance.random() < self._share:
                self.lost += 1
                continue
            self.lags.append(max(0, step - command.step) + self._late)
            self._waiting.append(_Heard(update, command))

    def take(self) -> InterventionIssued | None:
        if self._waiting and self._update - self._waiting[0].update >= self._late:
            return self._waiting.popleft().command
        return None

    def judged(self) -> Judgement:
        return self._commands.judged()

    def close(self, within: float = CLOSE_SECONDS) -> None:
        self._commands.close(within)
