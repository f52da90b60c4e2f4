"""`python -m benchmarks.detection` (`make bench-detection`): who sees which failure of a training, and who cries wolf.

Runs our detectors (the real core, fed with what ranks would tell) and the peers' published rules over the same series:
made ones, whose failures are known to the step, and the real runs of PILOTHOUSE_CORPUS, whose labels were drawn by eye.
`--runs DIR` scores the real runs of a folder and nothing else. Prints a table for each kind of data, writes
`{"rows": [...]}` (`--json`), every false episode and every miss (`--mistakes`), and a picture of each of ours
(`--pictures`).
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pilothouse.events.errors import UserMistake

from . import ours, peers, pictures
from .corpus import read_corpus
from .families import FAULTS, faulty_series, healthy_series
from .healthy import HEALTHY
from .score import Score, judge
from .series import Alarm, Series
from .table import row_of, table, written_into

OURS = "pilothouse"
OUT = Path("build/bench")
Detector = Callable[[Series], tuple[list[Alarm], float]]
"""The alarms over a series, and the CPU seconds that they took."""


class Bench:
    """What was measured so far: rows of the table, everybody's mistakes, and the cases that deserve a picture."""

    def __init__(self, detectors: dict[str, Detector]) -> None:
        self.rows: list[dict[str, Any]] = []
        self.mistakes: dict[str, list[dict[str, Any]]] = {}
        self.cases: list[pictures.Case] = []
        self._detectors = detectors

    def measure(self, data: str, all_series: list[Series]) -> str:
        """The table of all detectors over one kind of data."""
        scores = {name: Score() for name in self._detectors}
        for series in all_series:
            said = {}
            for name, detector in self._detectors.items():
                said[name], seconds = detector(series)
                scores[name].seconds += seconds
            for name, score in scores.items():
                self._judge(data, series, name, score, said)
        rows = [row_of(name, data, score) for name, score in scores.items()]
        self.rows += rows
        return table(data, rows)

    def _judge(self, data: str, series: Series, name: str, score: Score, said: dict[str, list[Alarm]]) -> None:
        mistakes = judge(score, series, said[name], None if name == OURS else peers.WATCHED)
        self.mistakes.setdefault(f"{name}, {data}", []).extend(asdict(mistake) for mistake in mistakes)
        if name == OURS:
            self.cases += [pictures.Case(data, mistake, series, said) for mistake in mistakes]


def main(arguments: list[str]) -> int:
    """Measure and print; 0 unless something could not be read."""
    options = _options(arguments)
    bench, tables = Bench(_detectors(options.only)), list[str]()
    try:
        for data, series in _data(options):
            if not series:
                raise UserMistake(f"no {data} series to be scored: every run is empty, or none has this confidence")
            tables.append(bench.measure(data, series))
            print(tables[-1], flush=True)
        if options.document is not None:
            _write_into(options.document, tables)
    except UserMistake as mistake:
        print(f"benchmarks.detection: {mistake}", file=sys.stderr)
        return 2
    for file, told in ((options.json, {"rows": bench.rows}), (options.mistakes, bench.mistakes)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(told, indent=1) + "\n")
    _draw(bench.cases, options.pictures, options.most_pictures)
    return 0


def _write_into(document: Path, tables: list[str]) -> None:
    try:
        document.write_text(written_into(document.read_text(), tables))
    except (OSError, ValueError) as error:
        raise UserMistake(f"no tables in {document}: {error}") from error


def _draw(cases: list[pictures.Case], folder: Path, most: int) -> None:
    if not most or not cases:
        return
    if find_spec("matplotlib") is None:
        print("no pictures: matplotlib is not installed (it is in the `bench-detection` extra)", file=sys.stderr)
        return
    left_out = pictures.draw(cases, folder, most)
    more = f"; {left_out} left out (--most-pictures)" if left_out else ""
    print(f"{len(cases) - left_out} pictures of misses and false alarms in {folder}{more}")


def _data(options: argparse.Namespace) -> Iterable[tuple[str, list[Series]]]:
    corpus = os.environ.get("PILOTHOUSE_CORPUS")
    if options.real_only and options.runs is None and not corpus:
        raise UserMistake("no real runs: name their folder with --runs or PILOTHOUSE_CORPUS")
    if options.runs is None and not options.real_only:
        only = options.family
        yield "synthetic", [*healthy_series(options.seeds, only=only), *faulty_series(options.seeds, only=only)]
    if options.runs is not None or corpus:
        yield "real", list(read_corpus(options.runs or Path(corpus or "."), options.confidence))


def _detectors(only: str | None) -> dict[str, Detector]:
    """Ours first. A peer that lives in a library which is not installed is left out, and said to be; one that is there
    is imported now, and not in the time that is measured.
    """
    detectors: dict[str, Detector] = {OURS: _ours} | {name: _peer(rule) for name, rule in peers.RULES.items()}
    wanted = {name: detector for name, detector in detectors.items() if only in (None, name)}
    for name in [name for name in peers.NEEDS if name in wanted]:
        try:
            import_module(peers.NEEDS[name])
        except ModuleNotFoundError as missing:
            print(f"not measured: {name} ({missing}; it is in the `bench-detection` extra)", file=sys.stderr)
            del wanted[name]
    return wanted


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


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    parser.add_argument("--seeds", type=int, default=6, help="how many series of each made family")
    parser.add_argument("--family", action="append", default=[], choices=(*HEALTHY, *FAULTS), help="only this one")
    parser.add_argument("--runs", type=Path, help="score the real runs of this folder, and nothing else")
    parser.add_argument("--confidence", help="only real runs whose labels have it: high, medium or low")
    parser.add_argument("--real-only", action="store_true", help="leave the made series out")
    parser.add_argument("--only", help="one detector", choices=(OURS, *peers.RULES))
    parser.add_argument("--json", type=Path, default=OUT / "detection.json")
    parser.add_argument("--mistakes", type=Path, default=OUT / "detection_mistakes.json")
    parser.add_argument("--document", type=Path, help="put the tables into this file, in the place of those it has")
    parser.add_argument("--pictures", type=Path, default=OUT / "detection", help="a folder; its *.png are replaced")
    parser.add_argument("--most-pictures", type=int, default=60, help="no more of them than that")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
