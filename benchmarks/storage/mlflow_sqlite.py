"""MLflow's SQLite store: its own schema, filled by SQL (its client logs some ten thousand values a second, which would
take hours and would be said of us as unfairly), and asked through its own client where it has a question for it.

MLflow has no phases and no interventions. Phases are what its users make of them: a metric `seconds_in/Normal` of each
run, asked in SQL. For what helped there is nothing to ask.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from time import process_time
from typing import Any

from .generate import LONG_RUN, Run
from .questions import PIXELS, QUESTIONS, Stopwatch


class Mlflow:
    """One database file."""

    name = "MLflow, SQLite"
    note = "its schema filled by SQL, its client asked"

    def __init__(self, folder: Path) -> None:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        self._file = folder / "mlflow.db"
        self._store: Any = SqlAlchemyStore(f"sqlite:///{self._file}", str(folder / "artifacts"))
        self._base = sqlite3.connect(self._file)

    def keep(self, runs: Iterator[Run]) -> Stopwatch:
        took = Stopwatch()
        for run in runs:
            rows = [
                (name, value, at, run.run_id, step, 0)
                for name in run.metrics
                for step, (value, at) in enumerate(
                    zip(run.values[name].tolist(), (run.times // 1_000).tolist(), strict=True)
                )
            ]
            with took.running():
                self._write(run, rows)
        return took

    def cpu_seconds(self) -> float:
        return process_time()

    def bytes_on_disk(self) -> int:
        return sum(file.stat().st_size for file in self._file.parent.glob("mlflow.db*"))

    def questions(self) -> dict[str, Callable[[], object]]:
        asked = (self._list, self._overview, self._curve, self._phases)
        return dict(zip(QUESTIONS, asked, strict=False))

    def close(self) -> None:
        self._base.close()
        self._store.engine.dispose()

    def _write(self, run: Run, rows: Sequence[tuple[Any, ...]]) -> None:
        first, last = int(run.times[0]) // 1_000, int(run.times[-1]) // 1_000
        status = "FINISHED" if run.number % 20 else "FAILED"
        with self._base:
            self._base.execute(
                "INSERT INTO runs (run_uuid, name, source_type, user_id, status, start_time, end_time, lifecycle_stage,"
                " experiment_id, artifact_uri, source_name, entry_point_name, source_version)"
                " VALUES (?, ?, 'LOCAL', 'x', ?, ?, ?, 'active', 0, 'a', '', '', '')",
                (run.run_id, run.run_id, status, first, last),
            )
            insert = "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)"
            self._base.executemany(insert, rows)
            lasts: list[tuple[Any, ...]] = [row for row in rows if row[4] == run.steps - 1]
            lasts += [
                (f"seconds_in/{phase}", 1.0, last, run.run_id, 0, 0) for phase in ("Warmup", "Normal", "Unstable")
            ]
            latest = insert.replace("INTO metrics", "INTO latest_metrics")
            self._base.executemany(latest, lasts)
            names = ("learning_rate", "batch_size", "layers", "heads", "width", "seed")
            self._base.executemany(
                "INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)",
                zip(names, repeat("1"), repeat(run.run_id)),
            )

    def _list(self) -> object:
        from mlflow.entities import ViewType

        return self._store.search_runs(["0"], "", ViewType.ACTIVE_ONLY, 100, ["attributes.start_time DESC"])

    def _overview(self) -> object:
        return self._store.get_run("run-00004")

    def _curve(self) -> object:
        """What its client has for it: all of the history, or since 2.x a sample of it by interval."""
        history = self._store.get_metric_history(LONG_RUN, "loss")
        width = max(1, len(history) // PIXELS)
        return [max(metric.value for metric in history[at : at + width]) for at in range(0, len(history), width)]

    def _phases(self) -> object:
        sql = "SELECT key, sum(value), count(*) FROM latest_metrics WHERE key LIKE 'seconds_in/%' GROUP BY key"
        return self._base.execute(sql).fetchall()
