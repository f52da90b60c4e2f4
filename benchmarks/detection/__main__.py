"""`python -m benchmarks.detection` (`make bench-detection`): who sees which failure of a training, and who cries wolf.

Runs our detectors (the real core, fed with what ranks would tell) and the peers' published rules over the same series:
made ones, whose failures are known to the step, and the real runs of `--runs DIR` or PILOTHOUSE_CORPUS, whose labels
were drawn by eye. Prints a table for each kind of data and writes `{"rows": [...]}` with `--json FILE`; with
`--mistakes FILE` every false episode and every miss.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pilothouse.events.errors import UserMistake

from . import ours, peers
from .corpus import read_corpus
from .families import faulty_series, healthy_series
from .score import Mistake, Score, judge
from .series import Alarm, Series

OURS = "pilothouse"
Detector = Callable[[Series], tuple[list[Alarm], float]]
"""The alarms over a series, and the CPU seconds that they took."""


def main(arguments: list[str]) -> int:
    """Measure and print; 0 unless something could not be read."""
    options = _options(arguments)
    detectors = {name: detector for name, detector in _detectors().items() if options.only in (None, name)}
    rows: list[dict[str, Any]] = []
    mistakes: dict[str, list[dict[str, Any]]] = {}
    try:
        for data, series in _data(options):
            for name, detector in detectors.items():
                score, wrong = _score(detector, series, None if name == OURS else peers.WATCHED)
                rows.append(row_of(name, data, score))
                mistakes[f"{name}, {data}"] = [asdict(mistake) for mistake in wrong]
            print(table(data, [row for row in rows if row["data"] == data]), flush=True)
    except UserMistake as mistake:
        print(f"benchmarks.detection: {mistake}", file=sys.stderr)
        return 2
    for file, told in ((options.json, {"rows": rows}), (options.mistakes, mistakes)):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(told, indent=1) + "\n")
    return 0


def row_of(detector: str, data: str, score: Score) -> dict[str, Any]:
    """One row of the JSON."""
    return {
        "detector": detector,
        "data": data,
        "rows": score.rows,
        "false_episodes": score.false,
        "false_per_10k": round(score.false_per_10k, 3),
        "recall": {kind: round(share, 4) for kind, share in score.recall.items()},
        "delay_p50": score.delay_p50,
        "us_per_step": round(score.us_per_step, 2),
    }


def table(data: str, rows: Sequence[dict[str, Any]]) -> str:
    """The rows of one kind of data: false episodes, time, and for each kind of incident its recall and median delay."""
    kinds = sorted({kind for row in rows for kind in row["recall"]})
    lines = [f"## {data}: {rows[0]['rows']} steps", ""]
    lines += ["| | " + " | ".join(row["detector"] for row in rows) + " |", "|---|" + "---|" * len(rows)]
    lines.append(
        "| false episodes per 10,000 steps | " + " | ".join(f"{row['false_per_10k']:.2f}" for row in rows) + " |"
    )
    lines.append("| µs a step | " + " | ".join(f"{row['us_per_step']:.1f}" for row in rows) + " |")
    for kind in kinds:
        cells = [_cell(row, kind) for row in rows]
        lines.append(f"| {kind.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _cell(row: dict[str, Any], kind: str) -> str:
    if kind not in row["recall"]:
        return "–"
    delay = row["delay_p50"].get(kind)
    return f"{100 * row['recall'][kind]:.0f}%" + (f" ({delay:.0f})" if delay is not None else "")


def _data(options: argparse.Namespace) -> Iterable[tuple[str, list[Series]]]:
    if not options.real_only:
        yield "synthetic", [*healthy_series(options.seeds), *faulty_series(options.seeds)]
    if options.runs is not None:
        yield "real", list(read_corpus(options.runs, options.confidence))


def _detectors() -> dict[str, Detector]:
    return {OURS: _ours} | {name: _peer(rule) for name, rule in peers.RULES.items()}


def _ours(series: Series) -> tuple[list[Alarm], float]:
    records = ours.records_of(series)
    began = time.thread_time()
    alarms = ours.alarms_of(series, records)
    return alarms, time.thread_time() - began


def _peer(rule: peers.Rule) -> Detector:
    def detect(series: Series) -> tuple[list[Alarm], float]:
        began = time.thread_time()
        alarms = peers.alarms_of(rule, series)
        return alarms, time.thread_time() - began

    return detect


def _score(detector: Detector, data: list[Series], watched: Iterable[str] | None) -> tuple[Score, list[Mistake]]:
    score, mistakes = Score(), []
    for series in data:
        alarms, seconds = detector(series)
        score.seconds += seconds
        mistakes += judge(score, series, alarms, watched)
    return score, mistakes


def _options(arguments: list[str]) -> argparse.Namespace:
    corpus = os.environ.get("PILOTHOUSE_CORPUS")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many series of each made family")
    parser.add_argument("--runs", type=Path, default=Path(corpus) if corpus else None, help="a folder of real runs")
    parser.add_argument("--confidence", help="only real runs whose labels have it: high, medium or low")
    parser.add_argument("--real-only", action="store_true", help="leave the made series out")
    parser.add_argument("--only", help="one detector")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--mistakes", type=Path)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
