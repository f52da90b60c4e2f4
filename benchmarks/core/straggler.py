"""`python -m benchmarks.core.straggler`: what it costs to know the slow rank, in the trainer and in the core.

Both are measured with the times of a step (`data_wait_s`, `compute_s`, `comm_s`) and without them, in turn: in the
trainer as the CPU time of a loop that draws a batch and logs a row, in the core as that of judging a step of each rank.
The anchor is NVIDIA's Resiliency Extension, which asks for under 1% of the time of a step.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import Any

from pilothouse.producers.metrics.timings import COMM, COMPUTE, DATA_WAIT, StepTimings, TimedLoader

from .__main__ import measure
from .training import Training

TIMES = (DATA_WAIT, COMPUTE, COMM)
RANKS = (8, 64, 512)
METRICS = 12
STEPS, ROUNDS = 20_000, 9
STEP_SECONDS = 0.1
"""A short step of a large training; a tenth of a second is what the shares are of."""
MOST = 0.01


def main(arguments: list[str]) -> int:
    """Measure and print; 1 where it costs more than it may."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.core.straggler", description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.5, help="of CPU for each figure of the core, at least")
    parser.add_argument("--ranks", type=int, nargs="+", default=RANKS)
    options = parser.parse_args(arguments)
    in_trainer = trainer()
    print(f"in the trainer: {1e6 * in_trainer:.2f} µs a step, {in_trainer / STEP_SECONDS:.4%} of {STEP_SECONDS} s")
    for ranks in options.ranks:
        with_times, without = core(ranks, options.seconds)
        share = (with_times - without) * ranks / 1e6 / STEP_SECONDS
        print(
            f"in the core, {ranks} ranks: {with_times:.2f} µs a rank-step, {without:.2f} without the times; "
            f"{share:.3%} of one core at {1.0 / STEP_SECONDS:.0f} steps a second"
        )
    return 0 if in_trainer <= MOST * STEP_SECONDS else 1


def core(ranks: int, seconds: float) -> tuple[float, float]:
    """Microseconds a step of one rank, with the times and without."""
    timed, plain = Training(ranks, METRICS), Training(ranks, METRICS, without=TIMES)
    return tuple(measure(training, "default", seconds, METRICS).us_per_rank_step for training in (timed, plain))  # type: ignore[return-value]  # two of two


def trainer() -> float:
    """CPU seconds that timing adds to a step: the fastest of some rounds, each beside one without."""
    return min(_loop(_timed) for _ in range(ROUNDS)) - min(_loop(_plain) for _ in range(ROUNDS))


def _loop(made: Callable[[Iterable[Any]], Iterator[dict[str, float]]]) -> float:
    began = time.thread_time()
    for _ in made(repeat(None, STEPS)):
        pass
    return (time.thread_time() - began) / STEPS


def _plain(batches: Iterable[Any]) -> Iterator[dict[str, float]]:
    for _ in batches:
        yield {"loss": 2.0, "grad_norm": 1.0}


def _timed(batches: Iterable[Any]) -> Iterator[dict[str, float]]:
    timings = StepTimings()
    for step, _ in enumerate(TimedLoader(batches, timings)):
        row = {"loss": 2.0, "grad_norm": 1.0}
        timings.put(step, row)
        yield row


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
