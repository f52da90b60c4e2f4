"""Real trainings that other people published, as they lie in a folder: `runs/*.csv` and `manifest.csv`.

A run has the columns `step,loss,grad_norm,lr,val_loss,throughput`, blank where a row does not have one. The manifest
names for each run its repository, a label, how sure it is, and its incidents: JSON objects with `kind`, `row_start` and
`row_end`, 0-based and inclusive. A folder without a manifest is read as runs of which nothing is known.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from pilothouse.events.errors import UserMistake

from .series import Column, Incident, Series

METRICS = {"loss": "loss", "grad_norm": "grad_norm", "lr": "lr", "throughput": "throughput"}
NO_FAILURE = frozenset({"data_outlier", "log_artifact"})
"""What must not alarm: a batch that is hard, a log that is wrong."""
OPEN = frozenset({"restart", "startup_overshoot", "stressed", "val_spike"})
"""What may alarm and need not: an opinion, or no failure of the training."""
EARLY_ROWS = 3
"""Labels were drawn by eye: an alarm so many rows before one is about it."""


def read_corpus(folder: Path, confidence: str | None = None) -> Iterator[Series]:
    """Every run of the folder, or those whose labels have this confidence.

    Raises:
        UserMistake: the folder holds no runs, or one of them cannot be read.
    """
    runs = sorted((folder / "runs").glob("*.csv"))
    if not runs:
        raise UserMistake(f"{folder} holds no runs: it wants runs/*.csv, and manifest.csv if there are labels")
    known = _manifest(folder / "manifest.csv")
    for run in runs:
        told = known.get(run.stem, {})
        if confidence is None or told.get("confidence") == confidence:
            try:
                yield _series(run, told)
            except (KeyError, TypeError, ValueError) as error:
                raise UserMistake(f"{run} cannot be read: {type(error).__name__}: {error}") from error


def _manifest(file: Path) -> dict[str, dict[str, str]]:
    if not file.exists():
        return {}
    with file.open(newline="") as lines:
        return {row["run_id"]: row for row in csv.DictReader(lines)}


def _series(run: Path, told: dict[str, str]) -> Series:
    with run.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    columns = {ours: [_number(row.get(theirs)) for row in rows] for theirs, ours in METRICS.items()}
    metrics: dict[str, Column] = {
        name: column for name, column in columns.items() if any(value is not None for value in column)
    }
    steps = [int(float(row["step"])) for row in rows]
    val_losses = (_number(row.get("val_loss")) for row in rows)
    return Series(
        name=run.stem,
        family=told.get("label") or "unlabelled",
        group=told.get("source_repo") or run.stem,
        steps=steps,
        seconds=[float(row) for row in range(len(rows))],
        ranks=[metrics],
        incidents=tuple(_incidents(told.get("incidents") or "[]")),
        restarts=tuple(row for row in range(1, len(steps)) if steps[row] < steps[row - 1]),
        evaluations={row: value for row, value in enumerate(val_losses) if value is not None},
    )


def _number(text: str | None) -> float | None:
    return float(text) if text else None


def _incidents(text: str) -> Iterator[Incident]:
    for told in json.loads(text):
        kind, first, last = told["kind"], int(told["row_start"]), int(told["row_end"])
        must = kind not in NO_FAILURE | OPEN
        yield Incident(kind, first, last, must=must, may=kind not in NO_FAILURE, early=EARLY_ROWS)
