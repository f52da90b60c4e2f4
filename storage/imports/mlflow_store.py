"""Reads MLflow's two stores: the folder `mlruns` and the SQLite file, run by run, without MLflow.

In the folder a metric is a file of lines `time value step`; in SQLite all of them stand in one table, where infinities
are the largest doubles and NaN is a flag. Times are milliseconds. What a store counts of its machine (`system/…`) has
steps of its own and belongs to no step of the training.
"""

import heapq
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from ...events.errors import FileRefused
from ...events.telemetry import Outcome
from .source import MAX_MICROS, Item, Said, as_number, as_step

SYSTEM = "system/"
LARGEST = 1.7976931348623157e308
OUTCOMES: Mapping[str, Outcome | Literal["lost"]] = {
    "FINISHED": "completed",
    "FAILED": "crashed",
    "KILLED": "stopped",
    "RUNNING": "lost",
    "SCHEDULED": "lost",
}
STATES = {"1": "RUNNING", "2": "SCHEDULED", "3": "FINISHED", "4": "FAILED", "5": "KILLED"}
"""The folder keeps numbers of a protobuf enumeration, the database its names."""
COMMIT_TAG, SOURCE_TAG = "mlflow.source.git.commit", "mlflow.source.name"
USER_TAG, NAME_TAG = "mlflow.user", "mlflow.runName"
META_BYTES = 1024**2
MAX_METRICS = 20_000
OPEN_FILES = 200
"""So many files are read side by side; where a run has more metrics, each is read into memory."""


@dataclass(frozen=True)
class Facts:
    """What either store says of a run beside its metrics. Times are milliseconds; 0 is unknown."""

    run_id: str
    name: str
    state: str
    started_at: int
    ended_at: int
    params: Mapping[str, str]
    tags: Mapping[str, str]

    @property
    def called(self) -> str:
        name = self.name or self.tags.get(NAME_TAG, "")
        return f"{name}-{self.run_id[:8]}" if name else self.run_id

    def said(self) -> Said:
        own = {name: value for name, value in self.tags.items() if not name.startswith("mlflow.")}
        environment = {"command": self.tags.get(SOURCE_TAG, ""), "user": self.tags.get(USER_TAG, "")}
        return Said(
            config=dict(self.params),
            tags=own | {"mlflow.run_id": self.run_id},
            environment={name: value for name, value in environment.items() if value},
            code_version=self.tags.get(COMMIT_TAG, ""),
            started_at=self.started_at * 1_000 or None,
            ended_at=self.ended_at * 1_000 or None,
            outcome=OUTCOMES.get(STATES.get(self.state, self.state)),
        )


def _item(milliseconds: int, name: str, value: float, step: int) -> Item | None:
    at = milliseconds * 1_000
    if not 0 <= at < MAX_MICROS:
        return None
    if name.startswith(SYSTEM):
        return Item(at, None, {name: value})
    told = as_step(step)
    return None if told is None else Item(at, told, {name: value})


# -------------------------------------------------------------------------------------------------------- the folder


@dataclass(frozen=True)
class RunFolder:
    """`mlruns/EXPERIMENT/RUN`: meta.yaml, and folders of params, tags and metrics."""

    path: Path
    format: str = "mlflow"

    @property
    def name(self) -> str:
        return self._facts().called

    def said(self) -> Said:
        return self._facts().said()

    def items(self) -> Iterator[Item]:
        files = self._files("metrics")
        if len(files) > MAX_METRICS:
            raise FileRefused(f"{self.path}: has {len(files)} metrics; {MAX_METRICS} are possible")
        found = [self._lines(name, file) for name, file in files]
        parts = found if len(files) <= OPEN_FILES else [iter(list(lines)) for lines in found]
        merged = heapq.merge(*parts, key=lambda line: (line[0], line[3]))
        return (item for line in merged if (item := _item(*line)) is not None)

    def _lines(self, name: str, file: Path) -> Iterator[tuple[int, str, float, int]]:
        last = 0
        try:
            with file.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, start=1):
                    parts = line.split()
                    try:
                        at, value, step = int(parts[0]), float(parts[1]), int(parts[2]) if len(parts) > 2 else 0
                    except (ValueError, IndexError, OverflowError) as error:
                        if not line.endswith("\n"):
                            return  # whoever wrote it died in this line
                        what = f"line {number} is not `time value step`: {line.strip()!r:.60}"
                        raise FileRefused(f"{file}: {what}") from error
                    last = max(last, at)  # so that merging keeps the order in which a metric was logged
                    yield last, name, value, step
        except (OSError, UnicodeDecodeError) as error:
            raise FileRefused(f"{file}: cannot be read: {error}") from error

    def _files(self, kind: str) -> list[tuple[str, Path]]:
        folder = self.path / kind
        found = sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
        return [(file.relative_to(folder).as_posix(), file) for file in found]

    def _facts(self) -> Facts:
        meta = _yaml(self.path / "meta.yaml")
        return Facts(
            run_id=str(meta.get("run_id") or meta.get("run_uuid") or self.path.name),
            name=str(meta.get("run_name") or ""),
            state=str(meta.get("status", "")),
            started_at=_millis(meta.get("start_time")),
            ended_at=_millis(meta.get("end_time")),
            params={name: _small(file) for name, file in self._files("params")},
            tags={name: _small(file) for name, file in self._files("tags")},
        )


def _millis(value: object) -> int:
    number = as_number(value)
    return int(number) if number is not None and 0 < number < 2**52 else 0


def _small(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return content.read(16_000).decode(errors="replace")
    except OSError as error:
        raise FileRefused(f"{file}: cannot be read: {error.strerror}") from error


def _yaml(file: Path) -> dict[str, Any]:
    """What MLflow writes with YAML is flat: one `name: value` a line, which needs no YAML package."""
    try:
        if file.stat().st_size > META_BYTES:
            raise FileRefused(f"{file}: is over {META_BYTES} bytes")
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileRefused(f"{file}: cannot be read: {error}") from error
    found: dict[str, Any] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon and not name.startswith((" ", "-", "#")):
            text = value.strip().strip("'\"")
            found[name.strip()] = int(text) if text.lstrip("-").isdecimal() and name.endswith("_time") else text
    return found


# ------------------------------------------------------------------------------------------------------------ SQLite


@dataclass(frozen=True)
class RunRows:
    """One run of an `mlflow.db`."""

    path: Path
    run_id: str
    format: str = "mlflow"

    @property
    def name(self) -> str:
        return self._facts().called

    def said(self) -> Said:
        return self._facts().said()

    def items(self) -> Iterator[Item]:
        sql = "SELECT timestamp, key, value, step, is_nan FROM metrics WHERE run_uuid = ? ORDER BY timestamp, step, key"
        for at, key, value, step, is_nan in rows_of(self.path, sql, (self.run_id,)):
            try:
                item = _item(int(at), str(key), _value(value, is_nan), int(step))
            except (TypeError, ValueError) as error:
                raise FileRefused(f"{self.path}: run {self.run_id} has a metric that is none: {error}") from error
            if item is not None:
                yield item

    def _facts(self) -> Facts:
        def pairs(table: str) -> dict[str, str]:
            found = rows_of(self.path, f"SELECT key, value FROM {table} WHERE run_uuid = ?", (self.run_id,))
            return {str(key): str(value) for key, value in found}

        sql = "SELECT name, status, start_time, end_time FROM runs WHERE run_uuid = ?"
        [(name, state, began, ended)] = rows_of(self.path, sql, (self.run_id,))
        times = {"started_at": _millis(began), "ended_at": _millis(ended)}
        return Facts(self.run_id, str(name or ""), str(state), **times, params=pairs("params"), tags=pairs("tags"))


def _value(value: object, is_nan: object) -> float:
    if is_nan:
        return float("nan")
    number = float(value)  # type: ignore[arg-type]  # whatever stands there: its caller catches what is none
    return number if abs(number) < LARGEST else float("inf") if number > 0 else float("-inf")


def runs_in(path: Path) -> list[RunRows]:
    """The runs of a database, the oldest first.

    Raises:
        FileRefused: it is no database of MLflow's.
    """
    sql = "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active' ORDER BY start_time, run_uuid"
    return [RunRows(path, str(run_id)) for (run_id,) in rows_of(path, sql, ())]


def rows_of(path: Path, sql: str, parameters: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    """Rows of a database that nobody changes meanwhile, and that is not changed by looking."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as connection:
            yield from connection.execute(sql, parameters)
    except sqlite3.Error as error:
        raise FileRefused(f"{path}: is no database of MLflow's: {error}") from error
