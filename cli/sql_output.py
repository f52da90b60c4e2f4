"""How `pilothouse sql` gives its answer: a table for people, JSON lines, CSV or Parquet for programs.

Called by `query_commands`. Parquet is written by ClickHouse itself and passed on piece by piece, whatever its size; the
others are held in memory.
"""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..events.errors import UserMistake

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


class Limits(NamedTuple):
    """What a query may cost the archive."""

    seconds: float
    memory_bytes: int

    @property
    def settings(self) -> dict[str, float]:
        """As ClickHouse takes them."""
        return {"max_execution_time": self.seconds, "max_memory_usage": self.memory_bytes}


def print_answer(client: "Client", query: str, form: str, limits: Limits, output: Path | None) -> None:
    """
    Raises:
        UserMistake: the form cannot go where it should.
        QueryRefused: why the query did not run to its end.
    """
    from ..storage.queries import run_sql, sql_as
    from .rendering import csv_lines, show_rows

    if form == "parquet":
        if output is None and sys.stdout.isatty():
            raise UserMistake("parquet is not for a terminal: name a file with --output, or redirect the output")
        _give(sql_as(client, query, "Parquet", limits.settings), output)
        return
    answer = run_sql(client, query, limits.settings)
    if form == "csv":
        lines = csv_lines(answer.columns, answer.rows)
        sys.stdout.write(lines) if output is None else _give([lines.encode()], output)
        return
    if output is not None:
        raise UserMistake(f"--output is for csv and parquet; for {form}, redirect the output: > {output}")
    rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
    show_rows(rows, as_json=form == "json", empty="no rows")


def _give(pieces: Iterable[bytes], output: Path | None) -> None:
    if output is None:
        sys.stdout.flush()
        sys.stdout.buffer.writelines(pieces)
        sys.stdout.buffer.flush()
        return
    draft = output.with_name(f".{output.name}.{os.getpid()}.draft")
    try:
        with draft.open("wb") as file:
            file.writelines(pieces)
        draft.replace(output)
    except OSError as error:
        raise UserMistake(f"{output} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
