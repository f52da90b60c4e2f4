"""The questions that are asked of every store, and how long an answer may take."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Protocol

from .generate import Run

QUESTIONS = ("list runs", "overview of a run", "loss of a million steps", "time in phase, all runs", "what helped")
"""The latest hundred runs; all that is known of one as a whole; its loss at the resolution of a screen (a thousand
intervals with mean, least and greatest); how long all runs were in which phase; what was done about which kind of
incident, and with what success."""
WANTED_MS, WANTED_BYTES, WANTED_RATE = 200.0, 3.5, 1_000_000
LEAST_ASKED, MOST_SECONDS = 5, 20.0
PIXELS = 1_000


class Stopwatch:
    """Seconds by the clock, and of the processors that this process used: those can be compared on a machine that
    others use as well.
    """

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        wall, cpu = perf_counter(), process_time()
        yield
        self.wall += perf_counter() - wall
        self.cpu += process_time() - cpu


class Store(Protocol):
    """One way to keep a history."""

    name: str
    note: str

    def keep(self, runs: Iterator[Run]) -> Stopwatch:
        """Write all of them; what storing took, without making them."""

    def cpu_seconds(self) -> float:
        """What its processes, this one among them, have used so far."""

    def bytes_on_disk(self) -> int: ...

    def questions(self) -> dict[str, Callable[[], object]]:
        """By name; a question that cannot be asked of it is left out."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Answered:
    """How long one question took, in milliseconds, what it took of the processors on average, and how often it was
    asked.
    """

    p50_ms: float
    p99_ms: float
    cpu_ms: float
    asked: int


def asked(question: Callable[[], object], times: int, cpu_seconds: Callable[[], float]) -> Answered:
    """Once to warm up, then `times`; fewer where it is slow."""
    question()
    took: list[float] = []
    cpu = cpu_seconds()
    while len(took) < LEAST_ASKED or (len(took) < times and sum(took) < MOST_SECONDS):
        began = perf_counter()
        question()
        took.append(perf_counter() - began)
    cpu = (cpu_seconds() - cpu) / len(took)
    took.sort()
    p99 = took[min(len(took) - 1, int(len(took) * 0.99))]
    return Answered(1e3 * took[len(took) // 2], 1e3 * p99, 1e3 * cpu, len(took))
