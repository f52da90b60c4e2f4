"""What was trained is kept: one line of JSON for each finished task, so that a run that was broken off goes on."""

import json
from collections.abc import Iterable
from pathlib import Path

from .recipe import Row, Task


class Kept:
    """A file of rows, by what they depend on: another recipe, policy or seed is another row. A line that was only half
    written is passed over.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.rows: dict[str, Row] = {}
        for line in file.read_text().splitlines() if file.exists() else ():
            try:
                row = Row.of(json.loads(line))
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
            self.rows[row.key] = row

    def missing(self, tasks: Iterable[Task]) -> list[Task]:
        return [task for task in tasks if task.key not in self.rows]

    def of(self, tasks: Iterable[Task]) -> list[Row]:
        """The rows of these tasks, as far as they are there."""
        return [self.rows[task.key] for task in tasks if task.key in self.rows]

    def add(self, row: Row) -> None:
        self.rows[row.key] = row
        self._file.parent.mkdir(parents=True, exist_ok=True)
        broken = self._file.exists() and not self._file.read_bytes().endswith(b"\n")
        with self._file.open("a") as file:
            file.write(("\n" if broken else "") + json.dumps(row.as_json()) + "\n")
