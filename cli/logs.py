"""`pilothouse logs RUN`: the job's own log lines, as the ranks told them. One query, rendered."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Level(StrEnum):
    """The levels of Python's `logging`."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"

    @property
    def severity(self) -> int:
        return 10 * (1 + list(Level).index(self))


def logs(  # noqa: PLR0913, PLR0917  # a command's options
    run: Annotated[str, typer.Argument(help="The run's id, or its beginning", show_default=False)],
    level: Annotated[
        Level, typer.Option("--level", "-l", case_sensitive=False, help="This level and above")
    ] = Level.DEBUG,
    rank: Annotated[int | None, typer.Option("--rank", min=0, help="Only of this rank")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the latest")] = 200,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Of the stack [default: ~/.pilothouse]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines instead of a table")] = False,
) -> None:
    """The lines that a run's script logged, where it calls `run.capture_logs`: oldest first."""
    from ..storage.queries import dropped_log_lines_of, log_lines_of
    from .reading import full_name, open_archive
    from .rendering import out, show_rows
    from .views import LOG_COLUMNS

    client = open_archive(data_dir).client
    run_id = full_name(client, run)
    rows = log_lines_of(client, run_id, least_severity=level.severity, rank=rank, limit=limit)
    show_rows(rows, as_json=as_json, columns=LOG_COLUMNS, empty="no log lines (`run.capture_logs()` sends them)")
    if dropped := dropped_log_lines_of(client, run_id, rank=rank):
        out(stderr=True).print(_said(dropped), markup=False)


def _said(dropped: dict[str, Any]) -> str:
    reasons = ", ".join(f"{reason} {lines}" for reason, lines in dropped.items())
    return f"{sum(dropped.values())} lines were over the bounds of what a run may send ({reasons})"
