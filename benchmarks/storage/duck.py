"""DuckDB as installed: one table of points, and tables of what happened, filled from Arrow.

It has no runs, phases or incidents of its own, so it is given the tables that somebody would make for these questions.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time

import numpy as np
import pyarrow as pa

from .generate import LONG_RUN, Run
from .questions import PIXELS, QUESTIONS, Stopwatch

CURVE = """
SELECT step // {width} AS b, avg(value), min(value), max(value), count(*)
FROM points WHERE run_id = '{run}' AND metric = 'loss' GROUP BY b ORDER BY b
"""
OVERVIEW = """
SELECT r.*, (SELECT list((phase, ended - began)) FROM phases AS p WHERE p.run_id = r.run_id),
    (SELECT list((metric, last)) FROM (
        SELECT metric, arg_max(value, step) AS last FROM points AS q WHERE q.run_id = 'run-00004' GROUP BY metric
    ))
FROM runs AS r WHERE r.run_id = 'run-00004'
"""
POINTS = 2_000_000
"""In one insert."""


class Duck:
    """One database file."""

    name = "DuckDB"
    note = "tables made for these questions, Arrow in"

    def __init__(self, folder: Path) -> None:
        import duckdb

        self._file = folder / "points.duckdb"
        self._base = duckdb.connect(str(self._file))
        self._base.execute(
            "CREATE TABLE points (run_id VARCHAR, metric VARCHAR, step BIGINT, time_us BIGINT, value DOUBLE);"
            "CREATE TABLE runs (run_id VARCHAR, model VARCHAR, team VARCHAR, outcome VARCHAR,"
            " began BIGINT, ended BIGINT, last_step BIGINT);"
            "CREATE TABLE phases (run_id VARCHAR, phase VARCHAR, began BIGINT, ended BIGINT);"
            "CREATE TABLE interventions (run_id VARCHAR, signature VARCHAR, action VARCHAR, verdict VARCHAR);"
        )

    def keep(self, runs: Iterator[Run]) -> Stopwatch:
        took, waiting, count = Stopwatch(), list[pa.Table](), 0
        for run in runs:
            waiting.append(_points(run))
            count += run.points
            with took.running():
                self._life(run)
            if count >= POINTS:
                self._write(waiting, took)
                waiting, count = [], 0
        if waiting:
            self._write(waiting, took)
        with took.running():
            self._base.execute("CHECKPOINT")
        return took

    def cpu_seconds(self) -> float:
        return process_time()

    def bytes_on_disk(self) -> int:
        return self._file.stat().st_size

    def questions(self) -> dict[str, Callable[[], object]]:
        width = 1_000_000 // PIXELS
        texts = (
            "SELECT * FROM runs ORDER BY ended DESC LIMIT 100",
            OVERVIEW,
            CURVE.format(width=width, run=LONG_RUN),
            "SELECT phase, sum(ended - began), count(*) FROM phases GROUP BY phase",
            "SELECT signature, action, count(*), avg((verdict = 'recovered')::INT) FROM interventions GROUP BY ALL",
        )

        def ask(text: str) -> Callable[[], object]:
            return lambda: self._base.execute(text).fetchall()

        return {name: ask(text) for name, text in zip(QUESTIONS, texts, strict=True)}

    def close(self) -> None:
        self._base.close()

    def _write(self, waiting: list[pa.Table], took: Stopwatch) -> None:
        table = pa.concat_tables(waiting)
        with took.running():
            self._base.register("more", table)
            self._base.execute("INSERT INTO points SELECT * FROM more")
            self._base.unregister("more")

    def _life(self, run: Run) -> None:
        first, last = int(run.times[0]), int(run.times[-1])
        outcome = "completed" if run.number % 20 else "crashed"
        row = (run.run_id, f"gpt-{run.number % 5}", f"team-{run.number % 7}", outcome, first, last, run.steps - 1)
        self._base.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        stays = [("Warmup", first, int(run.times[30])), ("Normal", int(run.times[30]), last)]
        if run.troubled:
            raised, settled = int(run.times[400]), int(run.times[430])
            stays[1:] = [("Normal", stays[1][1], raised), ("Unstable", raised, settled), ("Normal", settled, last)]
            verdict = "recovered" if run.number % 4 else "ineffective"
            reason = ("LossAboveBaseline", "NonFinite", "GradientExploding")[run.number // 3 % 3]
            self._base.execute("INSERT INTO interventions VALUES (?, ?, 'rollback', ?)", (run.run_id, reason, verdict))
        self._base.executemany("INSERT INTO phases VALUES (?, ?, ?, ?)", [(run.run_id, *stay) for stay in stays])


def _points(run: Run) -> pa.Table:
    steps, many = np.arange(run.steps), len(run.metrics)
    return pa.table(
        {
            "run_id": pa.array([run.run_id] * run.points),
            "metric": pa.array(np.repeat(np.array(run.metrics), run.steps)),
            "step": np.tile(steps, many),
            "time_us": np.tile(run.times, many),
            "value": np.concatenate([run.values[name] for name in run.metrics]),
        }
    )
