"""One contestant in a process of its own: `python -m benchmarks.sdk.worker NAME FOLDER ADDRESS TURNS`.

Reads one order a line on standard input, does that block, and answers with one line of JSON; `benchmarks.sdk.__main__`
gives the orders, so that the blocks of all contestants take turns. What a contestant prints goes to standard error.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from .contestants import CONTESTANTS, Contestant
from .step import Work, event

HOT_CALLS = 900
HOT_SECONDS = 0.6
STEPS_SECONDS = 2.0
"""What is slow is asked less often."""

QUIET_SECONDS = 6.0
QUIET_SHARE = 0.04
"""A process tree that uses no more of a core than this has nothing left to do."""


class Bench:
    """A contestant and the step it is in."""

    def __init__(self, contestant: Contestant, work: Work) -> None:
        import psutil

        self.contestant = contestant
        self.work = work
        self.step = 0
        self._process = psutil.Process()

    def hot(self) -> dict[str, Any]:
        """Calls in a loop, as many as fit into a short time; nanoseconds of each, and CPU seconds as in `steps`."""
        call, took = self.contestant.call, []
        others = self._cpu_of_others()
        until = time.perf_counter() + HOT_SECONDS
        events = [event(self.step + offset) for offset in range(HOT_CALLS)]
        for metrics in events:
            self.step += 1
            began = time.perf_counter_ns()
            call(self.step, metrics)
            ended = time.perf_counter_ns()
            took.append(ended - began)
            if time.perf_counter() > until:
                break
        self._settle()
        return {"took_ns": took, "cpu_s": self._cpu_of_others() - others + sum(took) / 1e9}

    def steps(self, count: int, *, logged: bool) -> dict[str, Any]:
        """Training steps with a call after each, or without. Wall seconds of the loop; CPU seconds that are not the
        work's: all other threads and processes until they are done, and the calls themselves.
        """
        call, took = self.contestant.call if logged else _no_call, []
        others, in_calls = self._cpu_of_others(), 0
        began = time.perf_counter()
        for _ in range(count):
            self.step += 1
            self.work.do()
            metrics = event(self.step)
            cpu = time.thread_time_ns()
            before = time.perf_counter_ns()
            call(self.step, metrics)
            after = time.perf_counter_ns()
            in_calls += time.thread_time_ns() - cpu
            took.append(after - before)
            if time.perf_counter() - began > STEPS_SECONDS:
                break
        wall = time.perf_counter() - began
        self._settle()
        return {"took_ns": took, "wall_s": wall, "cpu_s": self._cpu_of_others() - others + in_calls / 1e9}

    def _cpu_of_others(self) -> float:
        """CPU seconds of everything but this thread: the other threads of this process, and its children."""
        children = sum(sum(child.cpu_times()[:2]) for child in self._process.children(recursive=True))
        return time.process_time() - time.thread_time() + children

    def _settle(self) -> None:
        self.contestant.settle()
        until = time.monotonic() + QUIET_SECONDS
        used = self._cpu_of_others()
        while time.monotonic() < until:
            time.sleep(0.1)
            used, before = self._cpu_of_others(), used
            if used - before <= 0.1 * QUIET_SHARE:
                return


def _no_call(_step: int, _metrics: dict[str, float]) -> None:
    """The same loop without a call."""


def main(name: str, folder: str, address: str, turns: str) -> int:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        contestant = CONTESTANTS[name].open(Path(folder), address)
        release = CONTESTANTS[name].version()
    except Exception as error:  # noqa: BLE001  # a peer that cannot be opened is a row that says why
        _answer(answers, {"missing": f"{type(error).__name__}: {error}"[:200]})
        return 1
    _answer(answers, {"version": release})
    bench = Bench(contestant, Work(int(turns)))
    blocks: dict[str, Callable[[int], dict[str, Any]]] = {
        "hot": lambda _: bench.hot(),
        "plain": lambda count: bench.steps(count, logged=False),
        "logged": lambda count: bench.steps(count, logged=True),
    }
    for line in sys.stdin:
        block, count = line.split()
        _answer(answers, blocks[block](int(count)))
    contestant.close()
    return 0


def _answer(answers: TextIO, what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
