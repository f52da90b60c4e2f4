"""`python -m benchmarks.core` (`make bench-core`): how many steps of how many ranks the pure core judges in a second.

Feeds it with decoded batches of a healthy training, of up to a thousand ranks and a thousand metrics, with no policy
and with the one that is shipped, and counts the CPU time of one core until the decisions are there. Beside it what
reading those batches from their bytes takes. Prints tables in microseconds, writes everything with `--json FILE`.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from pilothouse.events.codec import Encoded, decode, encode
from pilothouse.events.union import Record
from pilothouse.stream_processors.admission import Verdict
from pilothouse.stream_processors.fold import fold
from pilothouse.stream_processors.run_state import RunState, new_state

from .training import ROWS, RUN, STEPS_A_SECOND, WARM_STEPS, Training

RANKS = (1, 4, 8, 64, 512, 1_000)
METRICS = (3, 12, 100, 1_000)
POLICIES = ("none", "default")
LEAST_ROUNDS = 4
MICROS = 1e6
WANTED = 50_000
"""Rank-steps a second on one core."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one training costs, in microseconds; what its Ticks cost (`us_per_tick` each) is part of all of it."""

    ranks: int
    metrics: int
    policy: str
    us_per_step: float
    us_per_rank_step: float
    rank_steps_per_s: float
    us_per_tick: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What it takes to read a step of one rank from the wire."""

    metrics: int
    us_per_rank_step: float
    bytes_per_rank_step: float


def main(arguments: list[str]) -> int:
    """Measure and print."""
    options = _options(arguments)
    rows = []
    for ranks, metrics, policy in product(options.ranks, options.metrics, POLICIES):
        rows.append(measure(Training(ranks, metrics), policy, options.seconds, metrics))
        print(f"{ranks:>5} ranks {metrics:>5} metrics  {rows[-1].us_per_step:10.1f} µs a step", file=sys.stderr)
    readings = [read(metrics, options.seconds) for metrics in options.metrics]
    print("\n".join(lines(rows, readings)))
    if options.json is not None:
        told = {"rows": [asdict(row) for row in rows], "codec": [asdict(reading) for reading in readings]}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    return 0


def measure(training: Training, policy: str, seconds: float, metrics: int) -> Row:
    """The fastest of the rounds, each of one batch of each rank: whatever else a machine does can only add to it."""
    state = new_state(RUN)
    _fold(state, training.opening(governed=policy == "default"))
    while training.step < WARM_STEPS:
        _fold(state, [*training.batches(), *training.ticks()])
    steps: list[float] = []
    ticks: list[float] = []
    while len(steps) < LEAST_ROUNDS or sum(steps) < seconds:
        steps.append(_seconds(_fold, state, training.batches()))
        ticks += [_seconds(_fold, state, [tick]) for tick in training.ticks()]
    a_tick = min(ticks)
    a_step = min(steps) / ROWS + a_tick / STEPS_A_SECOND
    a_rank_step = a_step / training.ranks
    return Row(
        training.ranks, metrics, policy, a_step * MICROS, a_rank_step * MICROS, 1.0 / a_rank_step, a_tick * MICROS
    )


def read(metrics: int, seconds: float) -> Reading:
    """How long the codec takes for a batch of these."""
    encoded: Encoded = encode(Training(1, metrics).batches()[0].event)
    took: list[float] = []
    while len(took) < LEAST_ROUNDS or sum(took) < seconds:
        took.append(_seconds(decode, encoded.headers, encoded.body))
    return Reading(metrics, min(took) / ROWS * MICROS, len(encoded.body) / ROWS)


def lines(rows: Sequence[Row], readings: Sequence[Reading]) -> list[str]:
    """For each policy a table of ranks and metrics, then what the codec takes."""
    told = []
    for policy in dict.fromkeys(row.policy for row in rows):
        told += _table(f"policy: {policy}; µs a rank-step", [row for row in rows if row.policy == policy])
    told += ["| the codec | " + " | ".join(f"{reading.metrics} metrics" for reading in readings) + " |"]
    told += ["|---|" + "---|" * len(readings)]
    told += ["| µs a rank-step | " + " | ".join(f"{reading.us_per_rank_step:.2f}" for reading in readings) + " |"]
    told += ["| bytes a rank-step | " + " | ".join(f"{reading.bytes_per_rank_step:.0f}" for reading in readings) + " |"]
    least = min(row.rank_steps_per_s for row in rows)
    return [*told, "", f"at least {least:,.0f} rank-steps a second on one core ({WANTED:,} are wanted)"]


def _table(title: str, rows: Sequence[Row]) -> list[str]:
    metrics = sorted({row.metrics for row in rows})
    told = [f"| {title} | " + " | ".join(f"{count} metrics" for count in metrics) + " | µs a step | µs a Tick |"]
    told += ["|---|" + "---|" * (len(metrics) + 2)]
    for ranks in sorted({row.ranks for row in rows}):
        cells = [row for row in rows if row.ranks == ranks]
        figures = [f"{row.us_per_rank_step:.2f}" for row in cells]
        figures += [f"{cells[0].us_per_step:.1f}", f"{cells[0].us_per_tick:.0f}"]
        told.append(f"| {ranks} rank{'s' * (ranks > 1)} | " + " | ".join(figures) + " |")
    return [*told, ""]


def _fold(state: RunState, records: Iterable[Record]) -> None:
    """Into a state, which is changed in place."""
    for record in records:
        folded = fold(state, record)
        if folded.fault or folded.verdict is not Verdict.FOLDED:
            raise RuntimeError(folded.fault or folded.verdict)


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    began = time.thread_time()
    work(*arguments)
    return time.thread_time() - began


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.core", description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=RANKS)
    parser.add_argument("--metrics", type=int, nargs="+", default=METRICS, help="that every rank logs, at least 2")
    parser.add_argument("--seconds", type=float, default=0.5, help="of CPU for each figure, at least")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
