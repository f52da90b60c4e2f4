"""Real trainings that other people published, as they lie in a folder: `runs/*.csv` and `manifest.csv`.

A run has the columns `step,loss,grad_norm,lr,val_loss,throughput`, in any order and beside others, blank where a row
does not have one. The manifest names for each run its repository, a label, how sure it is, and its incidents: JSON
objects with `kind`, `row_start` and `row_end`, 0-based and inclusive. A folder without a manifest is read as runs of
which nothing is known. A run without a row says nothing and is left out; what cannot be read is a mistake with its
place, and no run is guessed at.
"""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pilothouse.events.errors import UserMistake

from .score import KNOWN
from .series import Column, Incident, Series

METRICS = ("loss", "grad_norm", "lr", "throughput")
NO_FAILURE = frozenset({"data_outlier", "log_artifact"})
"""What must not alarm: a batch that is hard, a log that is wrong."""
OPEN = frozenset({"restart", "startup_overshoot", "stressed", "val_spike"})
"""What may alarm and need not: an opinion, or no failure of the training. So may a kind that nobody here knows."""
EARLY_ROWS = 3
"""Labels were drawn by eye: an alarm so many rows before one is about it."""
MAX_STEP = 2**62

Cells = dict[str, str | None]


def read_corpus(folder: Path, confidence: str | None = None) -> Iterator[Series]:
    """Every run of the folder that has rows, or those whose labels have this confidence.

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
            rows = _rows(run, "step")
            if rows:
                yield _series(run, rows, told)


def _manifest(file: Path) -> dict[str, Cells]:
    if not file.exists():
        return {}
    return {row["run_id"] or "": row for _, row in _rows(file, "run_id")}


def _rows(file: Path, needed: str) -> list[tuple[int, Cells]]:
    """The rows with the number of the line that each ends in; blank lines are none."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:  # a spreadsheet's export begins with a mark
            reader = csv.DictReader(lines, skipinitialspace=True)
            if reader.fieldnames is None:
                return []
            reader.fieldnames = [name.strip() for name in reader.fieldnames]
            if needed not in reader.fieldnames:
                raise UserMistake(f"{file} has no column {needed!r}; it has: {', '.join(reader.fieldnames)}")
            return [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserMistake(f"{file} cannot be read: {type(error).__name__}: {error}") from error


def _series(run: Path, rows: list[tuple[int, Cells]], told: Cells) -> Series:
    columns = {name: [_number(run, line, name, row) for line, row in rows] for name in METRICS}
    metrics: dict[str, Column] = {
        name: column for name, column in columns.items() if any(value is not None for value in column)
    }
    steps = [_step(run, line, row) for line, row in rows]
    val_losses = (_number(run, line, "val_loss", row) for line, row in rows)
    return Series(
        name=run.stem,
        family=told.get("label") or "unlabelled",
        group=told.get("source_repo") or run.stem,
        steps=steps,
        seconds=[float(row) for row in range(len(rows))],
        ranks=[metrics],
        incidents=_incidents(run, told.get("incidents") or "[]", len(rows)),
        restarts=tuple(row for row in range(1, len(steps)) if steps[row] < steps[row - 1]),
        evaluations={row: value for row, value in enumerate(val_losses) if value is not None},
    )


def _number(run: Path, line: int, name: str, row: Cells) -> float | None:
    text = (row.get(name) or "").strip()
    try:
        return float(text) if text else None
    except ValueError:
        raise UserMistake(f"{run}, line {line}: {name} is no number: {text[:40]!r}") from None


def _step(run: Path, line: int, row: Cells) -> int:
    step = _number(run, line, "step", row)
    if step is None or not math.isfinite(step) or not 0 <= step < MAX_STEP:
        raise UserMistake(f"{run}, line {line}: step is no number from 0 on: {(row.get('step') or '')[:40]!r}")
    return int(step)


def _incidents(run: Path, text: str, rows: int) -> tuple[Incident, ...]:
    try:
        return tuple(_incident(told, rows) for told in json.loads(text))
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserMistake(f"the manifest's incidents of {run.stem} cannot be read: {reason}") from error


def _incident(told: Any, rows: int) -> Incident:
    kind, first = str(told["kind"]), int(told["row_start"])
    last = int(told.get("row_end", first))
    if not 0 <= first <= last < rows:
        raise ValueError(f"rows {first} to {last} of {rows}")
    must = kind in KNOWN and kind not in NO_FAILURE | OPEN
    return Incident(kind, first, last, must=must, may=kind not in NO_FAILURE, early=EARLY_ROWS)
