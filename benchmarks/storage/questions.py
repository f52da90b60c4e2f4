"""The questions that are asked of every store, and how long an answer may take."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from .generate import Run

QUESTIONS = ("list runs", "overview of a run", "loss of a million steps", "time in phase, all runs", "what helped")
"""The latest hundred runs; all that is known of one as a whole; its loss at the resolution of a screen (a thousand
intervals with mean, least and greatest); how long all runs were in which phase; what was done about which kind of
incident, and with what success."""
WANTED_MS, WANTED_BYTES, WANTED_RATE = 200.0, 3.5, 1_000_000
LEAST_ASKED, MOST_SECONDS = 5, 20.0
PIXELS = 1_000


class Store(Protocol):
    """One way to keep a history."""

    name: str
    note: str

    def keep(self, runs: Iterator[Run]) -> float:
        """Write all of them; the seconds that storing took, without making them."""

    def bytes_on_disk(self) -> int: ...

    def questions(self) -> dict[str, Callable[[], object]]:
        """By name; a question that cannot be asked of it is left out."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Answered:
    """How long one question took, in milliseconds, and how often it was asked."""

    p50_ms: float
    p99_ms: float
    asked: int


def asked(question: Callable[[], object], times: int) -> Answered:
    """Once to warm up, then `times`; fewer where it is slow."""
    question()
    took: list[float] = []
    while len(took) < LEAST_ASKED or (len(took) < times and sum(took) < MOST_SECONDS):
        began = perf_counter()
        question()
        took.append(perf_counter() - began)
    took.sort()
    return Answered(1e3 * took[len(took) // 2], 1e3 * took[min(len(took) - 1, int(len(took) * 0.99))], len(took))
