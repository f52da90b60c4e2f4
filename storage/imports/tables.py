"""Reads CSV and JSON lines: one row or object a step. Lightning's CSVLogger writes such a file, too (`lightning`).

Which column is the step and which the time is known by its name, or from what the person said (`--map step=...`). All
other columns of numbers are metrics. A table is a person's to correct, so what is wrong in it is said with its line.
"""

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from ...events.errors import FileRefused
from .source import Clock, Item, Said, as_number, as_step, micros, moment

STEP_NAMES = (
    *("step", "global_step", "_step", "trainer/global_step", "train/global_step", "steps", "iter", "iteration"),
    *("iterations", "num_updates", "update", "batch", "epoch"),
)
TIME_NAMES = ("_timestamp", "timestamp", "wall_time", "wall time", "datetime", "date", "created_at", "time", "ts")
ELAPSED_NAMES = ("elapsed", "elapsed_s", "elapsed_time", "relative_time", "relative time", "_runtime")
NOTHING = frozenset(("", "na", "n/a", "null", "none", "-", "<na>"))
ABSOLUTE = 1e8
"""Seconds of day are larger (1973), those since a run began are not (three years)."""
UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
"""Above the first, a time of day is in nanoseconds, microseconds, milliseconds."""
LINE_BYTES = 16 * 1024**2
LOOK_LINES = 100
"""So many lines of JSON may stand before the first that has a step: configuration, a greeting."""
YAML_BYTES = 1024**2
YAML_VALUES = 20_000


class Line(NamedTuple):
    """One row as it stands in the file: its number there, and what it holds by name."""

    number: int
    cells: dict[str, Any]


class Layout(NamedTuple):
    """Which cells are no metrics."""

    step: str | None
    time: str | None
    clock: Clock


@dataclass(frozen=True)
class Table:
    """One file. `wanted` is what the person said, their names by ours (`step`, `time` and metrics)."""

    path: Path
    name: str
    format: str
    wanted: Mapping[str, str] = field(default_factory=dict)

    def said(self) -> Said:
        config = _hyperparameters(self.path.parent / "hparams.yaml") if self.format == "lightning" else {}
        return Said(config=config, clock=self._layout().clock)

    def items(self) -> Iterator[Item]:
        layout = self._layout()
        numeric: dict[str, bool] = {}
        for index, line in enumerate(self._lines()):
            if layout.step is not None and line.cells.get(layout.step) in (None, ""):
                self._refuse_unless_silent(line, layout)
                continue
            step = index if layout.step is None else self._step(line, layout.step)
            values = self._values(line, layout, numeric)
            if values:
                yield Item(self._time(line, layout), step, values)

    def _refuse_unless_silent(self, line: Line, layout: Layout) -> None:
        if self.format != "jsonl" and any(_text(cell) not in NOTHING for cell in line.cells.values()):
            raise self._refused(line, f"has no {layout.step}")

    def _step(self, line: Line, column: str) -> int:
        step = as_step(_parsed(line.cells[column]))
        if step is None:
            raise self._refused(line, f"{column} {line.cells[column]!r:.60} is no step: whole numbers from 0")
        return step

    def _time(self, line: Line, layout: Layout) -> int | None:
        if layout.time is None:
            return None
        at = _moment(line.cells.get(layout.time), layout.clock)
        if at is None:
            raise self._refused(line, f"{layout.time} {line.cells.get(layout.time)!r:.60} is no time")
        return at

    def _values(self, line: Line, layout: Layout, numeric: dict[str, bool]) -> dict[str, float]:
        values: dict[str, float] = {}
        for name, cell in line.cells.items():
            if name in (layout.step, layout.time) or not name or _text(cell) in NOTHING:
                continue
            value = _parsed(cell)
            if value is not None:
                values[name] = value
            elif (numeric.get(name) and isinstance(cell, str)) or name in self.wanted.values():
                hint = "correct it, or leave the column out" if self.format == "csv" else "correct it"
                raise self._refused(line, f"{name} {cell!r:.60} is no number, as it was before: {hint}")
            numeric.setdefault(name, value is not None)
        return values

    def _layout(self) -> Layout:
        """From the first line that has a step, or, where none has, from the first."""
        first: Line | None = None
        for line, _ in zip(self._lines(), range(LOOK_LINES), strict=False):
            first = first or line
            if (step := self._column(line, "step", STEP_NAMES)) is not None:
                return self._timed(line, step)
        if first is None:
            raise FileRefused(f"{self.path}: holds no rows")
        if "step" in self.wanted:
            raise FileRefused(f"{self.path}: has no {self.wanted['step']!r}, which --map calls its step")
        if not any(_parsed(cell) is not None for cell in first.cells.values()):
            raise FileRefused(f"{self.path}: line {first.number} has no numbers; it is no log of a training")
        return self._timed(first, None)

    def _column(self, line: Line, ours: str, names: tuple[str, ...]) -> str | None:
        if ours in self.wanted:
            return self.wanted[ours] if self.wanted[ours] in line.cells else None
        by_lower = {name.strip().lower(): name for name in reversed(line.cells)}
        return next((by_lower[name] for name in names if name in by_lower), None)

    def _timed(self, line: Line, step: str | None) -> Layout:
        column = self._column(line, "time", TIME_NAMES)
        if column is None and "time" in self.wanted:
            raise self._refused(line, f"has no {self.wanted['time']!r}, which --map calls its time")
        if column is not None:
            value = _parsed(line.cells[column])
            if (value is None and _moment(line.cells[column], "wall") is not None) or (value or 0) >= ABSOLUTE:
                return Layout(step, column, "wall")
            if "time" in self.wanted:
                return Layout(step, column, "elapsed")
        elapsed = self._column(line, "elapsed", ELAPSED_NAMES)
        if elapsed is not None and _parsed(line.cells[elapsed]) is not None:
            return Layout(step, elapsed, "elapsed")
        return Layout(step, None, "none")

    def _lines(self) -> Iterator[Line]:
        try:
            with self.path.open(newline="", encoding="utf-8-sig") as file:
                yield from self._objects(file) if self.format == "jsonl" else self._rows(file)
        except UnicodeDecodeError as error:
            raise FileRefused(f"{self.path}: is no text in UTF-8 ({error.reason} at byte {error.start})") from error
        except OSError as error:
            raise FileRefused(f"{self.path}: cannot be read: {error.strerror}") from error

    def _rows(self, file: IO[str]) -> Iterator[Line]:
        head = file.readline(LINE_BYTES)
        delimiter = max(",;\t", key=head.count)
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter)
        try:
            names = [name.strip() for name in next(reader, [])]
            named = [name for name in names if name]
            if named and all(_parsed(name) is not None for name in named):
                raise FileRefused(f"{self.path}: its first line holds numbers, where the columns' names should be")
            if len(set(named)) != len(named):
                raise FileRefused(f"{self.path}: two columns have one name in its first line")
            for cells in reader:
                if len(cells) > len(names):
                    raise FileRefused(f"{self.path}: line {reader.line_num} has more cells than the first has names")
                if cells:
                    yield Line(reader.line_num, dict(zip(names, cells, strict=False)))
        except csv.Error as error:
            raise FileRefused(f"{self.path}: line {reader.line_num}: {error}") from error

    def _objects(self, file: IO[str]) -> Iterator[Line]:
        number = 0
        while text := file.readline(LINE_BYTES):
            number += 1
            if not text.strip():
                continue
            try:
                found = json.loads(text)
            except (ValueError, RecursionError) as error:
                if not text.endswith("\n") and len(text) < LINE_BYTES:
                    return  # whoever wrote it died in this line
                raise FileRefused(f"{self.path}: line {number} is no JSON object: {error}") from error
            if not isinstance(found, dict):
                raise FileRefused(f"{self.path}: line {number} is no JSON object but a {type(found).__name__}")
            yield Line(number, dict(flattened(found)))

    def _refused(self, line: Line, what: str) -> FileRefused:
        return FileRefused(f"{self.path}: line {line.number}: {what}")


def flattened(fields: Mapping[str, Any], above: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """What stands within an object under one name: `{"train": {"loss": 1}}` is `train/loss`."""
    for name, value in fields.items():
        if isinstance(value, dict) and depth < 8:
            yield from flattened(value, f"{above}{name}/", depth + 1)
        else:
            yield f"{above}{name}", value


def _text(cell: object) -> str:
    return "" if cell is None else str(cell).strip().lower()


def _parsed(cell: object) -> float | None:
    if not isinstance(cell, str):
        return as_number(cell)
    try:
        return float(cell)
    except ValueError:
        return None


def _moment(cell: object, clock: Clock) -> int | None:
    value = _parsed(cell)
    if value is None:
        return moment(cell) if isinstance(cell, str) and clock == "wall" else None
    if not math.isfinite(value):
        return None
    unit = next((unit for above, unit in UNITS if value > above), 1.0) if clock == "wall" else 1.0
    return micros(value / unit)


def _hyperparameters(file: Path) -> dict[str, Any]:
    """What Lightning keeps beside its metrics, where it is there and plain."""
    try:
        import yaml

        if file.stat().st_size > YAML_BYTES:
            return {}
        found = yaml.safe_load(file.read_text())
    except (ImportError, OSError, UnicodeDecodeError, RecursionError, ValueError):
        return {}
    except yaml.YAMLError:  # an object of the script's own, which nobody else can make again
        return {}
    return {str(name): value for name, value in found.items()} if isinstance(found, dict) and _is_small(found) else {}


def _is_small(found: object) -> bool:
    """Whether there is as little in it as there seems: a few lines of aliases stand for billions of values, or go
    round in a circle."""
    waiting = [found]
    for _ in range(YAML_VALUES):
        if not waiting:
            return True
        match waiting.pop():
            case dict() as members:
                waiting += [*members.keys(), *members.values()]
            case list() | tuple() | set() as items:
                waiting += items
            case _:
                pass  # a value
    return False
