"""`python -m benchmarks.control` (`make bench-control`): does control help, and what does it cost?

Trains every task of the experiments (`experiments.py`), `--jobs` at a time, each on one thread and at low priority.
Finished ones are kept (`control.kept.jsonl`) and not trained again, so that a run that was broken off goes on. Prints
the tables and whether each condition holds, writes `{"rows": [...], "findings": [...]}`, and puts both into a document.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..detection.table import written_into
from . import table
from .experiments import EXPERIMENTS, FAULTY, OVERFITTING, STRESS, faults, learning_rates, overfitting
from .keeping import Kept
from .pool import train
from .recipe import Row, Task

OUT = Path("build/bench")
TERMINATED = 128 + signal.SIGTERM
QUICK = {
    "overfitting": lambda seeds: overfitting(seeds, replace(OVERFITTING, steps=160, training_chars=1_000)),
    "learning-rates": lambda seeds: learning_rates(seeds, replace(STRESS, steps=150)),
    "faults": lambda seeds: faults(seeds, replace(FAULTY, steps=150, fault_at=90)),
}
"""Shorter, to see that it works: what it shows is not what the whole shows."""


class Reading(NamedTuple):
    """What makes rows of what was trained, the table of them, and the conditions that they are held to."""

    complete: Callable[[Sequence[Row]], list[Row]]
    draw: Callable[[Sequence[Row]], str]
    judge: Callable[[Sequence[Row]], list[table.Finding]]


READINGS = {
    "overfitting": Reading(table.with_early_stop, table.overfitting_table, table.overfitting_findings),
    "learning-rates": Reading(list, table.learning_rates_table, table.learning_rates_findings),
    "faults": Reading(table.judged_faults, table.faults_table, table.faults_findings),
}


def main(arguments: list[str]) -> int:
    """Train what is missing and say what all of it shows; 0 if every condition holds."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that processes and stack end with this one
    kept = Kept(options.out / "control.kept.jsonl")
    plan = {name: list(_tasks(name, options)) for name in options.experiment or EXPERIMENTS}
    missing = sorted(kept.missing(task for tasks in plan.values() for task in tasks), key=lambda task: task.seed)
    if missing and not options.only_table:
        train(missing, kept, options.jobs)
    said, rows, findings = [], list[Row](), list[table.Finding]()
    for name, tasks in plan.items():
        reading = READINGS[name]
        trained = kept.of(tasks)
        if not trained:
            continue
        mine = reading.complete(trained)
        said.append(_section(name, reading.draw(mine), reading.judge(mine), trained))
        rows += mine
        findings += reading.judge(mine)
        print(said[-1], flush=True)
    told = {"rows": [row.as_json() for row in rows], "findings": [one._asdict() for one in findings]}
    whole = options.experiment is None and options.arm is None and not options.quick
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / ("control.json" if whole else "control_part.json")).write_text(json.dumps(told, indent=1) + "\n")
    if options.document is not None and whole:
        options.document.write_text(written_into(options.document.read_text(), said))
    return 0 if all(one.held for one in findings) else 1


def _section(name: str, drawn: str, findings: Sequence[table.Finding], rows: Sequence[Row]) -> str:
    seeds, minutes = len({row.seed for row in rows}), sum(row.seconds for row in rows) / 60
    what = f"{len(rows)} trainings, {seeds} seeds, {minutes:.0f} minutes of CPU"
    heading = f"### {name.replace('-', ' ').capitalize()}: {what}"
    return "\n\n".join([heading, drawn, table.findings_table(findings), ""])


def _tasks(name: str, options: argparse.Namespace) -> Iterator[Task]:
    make = QUICK[name] if options.quick else EXPERIMENTS[name]
    tasks = make(range(options.first_seed, options.first_seed + options.seeds))
    return (task for task in tasks if options.arm is None or options.arm in task.arm.name)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.control", description=__doc__)
    parser.add_argument("--experiment", action="append", choices=tuple(EXPERIMENTS), help="only this one")
    parser.add_argument("--arm", help="only arms whose name contains this")
    parser.add_argument("--seeds", type=int, default=5, help="how many [%(default)s]")
    parser.add_argument("--first-seed", type=int, default=0, help="those from 100 on were tuned on [%(default)s]")
    parser.add_argument("--quick", action="store_true", help="shorter trainings, to see that it works")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="at a time [%(default)s]")
    parser.add_argument("--only-table", action="store_true", help="train nothing: say what is there")
    parser.add_argument(
        "--out", type=Path, default=OUT, help="folder of control.json (of a part: control_part.json), and what is kept"
    )
    parser.add_argument("--document", type=Path, help="put the tables of the whole into this file, for those it has")
    options = parser.parse_args(arguments)
    if options.seeds < 1 or options.jobs < 1 or options.first_seed < 0:
        parser.error("at least one seed from 0 on, and one job")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
