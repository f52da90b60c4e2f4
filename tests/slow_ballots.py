"""Registers that several simulated ranks share; every word is delayed as a schedule says. Virtual time, one thread."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from pilothouse.producers.ranks.ballots import COMMIT, BallotsLost

PATIENCE_ROUNDS = 100


@dataclass
class Registers:
    """What all ranks share."""

    stands: dict[str, str] = field(default_factory=dict)
    yes: dict[str, int] = field(default_factory=dict)


class SlowBallots:
    """One rank's view of the registers: its words leave, and others' arrive, only when the schedule says so. Who waits
    lets the others go on meanwhile.
    """

    word_seconds = 0.0

    def __init__(self, registers: Registers, rank: int, voters: int) -> None:
        self.rank, self.voters = rank, voters
        self.lost = ""
        self.waiting = False
        self.others_go_on: Callable[[], None] = lambda: None
        self._registers = registers
        self._heard: dict[str, str] = {}
        self._leaving: deque[Callable[[], None]] = deque()

    def value(self, key: str) -> str | None:
        return self._heard.get(key)

    def post(self, key: str, value: str) -> None:
        self._leaving.append(lambda: self._write(key, value))

    def agree(self, key: str) -> None:
        def count() -> None:
            self._registers.yes[key] = self._registers.yes.get(key, 0) + 1
            if self._registers.yes[key] == self.voters:
                self._write(key, COMMIT)

        self._leaving.append(count)

    def settle(self, key: str, value: str, within: float) -> str:  # noqa: ARG002  # virtual time: the answer comes at once
        if self.lost:
            raise BallotsLost(self.lost)
        self.post(key, value)
        while self._leaving:
            self.let_one_out()
        return self._registers.stands[key]

    def wait(self, key: str, within: float) -> str | None:  # noqa: ARG002  # virtual time: so many rounds of the others
        self.waiting = True
        for _ in range(PATIENCE_ROUNDS):
            while self._leaving:
                self.let_one_out()
            self.listen()
            if key in self._heard:
                break
            self.others_go_on()
        self.waiting = False
        return self._heard.get(key)

    def send(self, key: str, text: str) -> None:
        raise NotImplementedError(key, text)

    def receive(self, key: str, within: float) -> str | None:
        raise NotImplementedError(key, within)

    def close(self, within: float) -> None:
        raise NotImplementedError(within)

    def let_one_out(self) -> None:
        if self._leaving:
            self._leaving.popleft()()

    def listen(self) -> None:
        self._heard |= self._registers.stands

    def _write(self, key: str, value: str) -> None:
        self._heard[key] = self._registers.stands.setdefault(key, value)
