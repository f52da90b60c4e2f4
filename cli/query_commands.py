"""The commands that look: `runs`, `show`, `events`, `tail`, `interventions`, `sql`. One query each, rendered.

Registered by `main`. Nothing here changes anything; with `--json` every one is for programs.
"""

import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Of the stack to ask [default: ~/.pilothouse]")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines instead of a table")]
Run = Annotated[str, typer.Argument(help="The run's id, or its beginning", show_default=False)]
Kinds = Annotated[list[str] | None, typer.Option("--kind", "-k", help="Only events of this kind; may be repeated")]

LOOK_EVERY = 0.5


class Order(StrEnum):
    """How `runs` are listed."""

    LATEST = "latest"
    STABILITY = "stability"


class Format(StrEnum):
    """How `sql` prints."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


def runs(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the first by that order")] = 50,
    sort: Annotated[
        Order, typer.Option("--sort", help="latest: last heard of first; stability: least stable first")
    ] = Order.LATEST,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """The runs, last heard of first: phase, stability margin, step, interventions."""
    from ..storage.queries import list_runs
    from .reading import open_archive
    from .rendering import show_rows
    from .views import RUN_COLUMNS

    rows = list_runs(open_archive(data_dir).client, limit, least_stable_first=sort is Order.STABILITY)
    show_rows(rows, as_json=as_json, columns=RUN_COLUMNS, empty="no runs yet")


def show(run: Run, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """One run in full: how it stands, and why."""
    from ..storage.queries import show_run
    from .reading import full_name, open_archive
    from .rendering import json_line, out, print_line
    from .views import show_sections

    client = open_archive(data_dir).client
    row = show_run(client, full_name(client, run))
    if as_json:
        print_line(json_line(row))
    else:
        show_sections(out(), row)


def events(
    run: Run,
    kinds: Kinds = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the latest")] = 200,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """What happened in a run: facts and decisions, oldest first."""
    from ..storage.queries import events_of
    from .reading import full_name, open_archive

    wanted = _known(kinds)
    client = open_archive(data_dir).client
    for row in events_of(client, full_name(client, run), kinds=wanted, limit=limit):
        _print_event(row, as_json)


def tail(
    run: Run,
    kinds: Kinds = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many past events first")] = 10,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Follow a run's events as they are archived, until Ctrl-C."""
    from .reading import full_name, open_archive

    wanted = _known(kinds)
    client = open_archive(data_dir).client
    try:
        for row in _following(client, full_name(client, run), wanted, lines):
            _print_event(row, as_json)
    except KeyboardInterrupt:
        return  # the way to end it


def interventions(run: Run, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """What was proposed and done, at which step by which ranks, and whether it helped."""
    from ..storage.queries import interventions_of
    from .reading import full_name, open_archive
    from .rendering import show_rows
    from .views import INTERVENTION_COLUMNS

    client = open_archive(data_dir).client
    rows = interventions_of(client, full_name(client, run))
    show_rows(rows, as_json=as_json, columns=INTERVENTION_COLUMNS, empty="no interventions")


def sql(  # noqa: PLR0913, PLR0917  # one argument for each option
    query: Annotated[str, typer.Argument(help="A SELECT over the tables and views of the archive", show_default=False)],
    form: Annotated[Format, typer.Option("--format", "-f", help="How to print")] = Format.TABLE,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write csv or parquet into this file")] = None,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Give up after so long")] = 60.0,
    max_memory_mb: Annotated[int, typer.Option(min=1, help="Give up beyond so much of the archive's memory")] = 2_048,
    write: Annotated[bool, typer.Option("--write", help="As the user who may write")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Ask the archive in SQL, reading only: `pilothouse sql "SELECT run_id, phase FROM runs"`."""
    from .reading import open_archive
    from .sql_output import Limits, print_answer

    limits = Limits(max_seconds, max_memory_mb * 2**20)
    client = open_archive(data_dir, writing=write).client
    print_answer(client, query, "json" if as_json else form.value, limits, output)


COMMANDS = (runs, show, events, tail, interventions, sql)


def _following(client: Any, run_id: str, kinds: list[str], lines: int) -> Iterator[dict[str, Any]]:
    from ..storage.queries import cursor_behind, events_of, last_places

    cursor = last_places(client, run_id)
    seen: set[str] = set()
    rows = events_of(client, run_id, kinds=kinds, limit=lines) if lines else []
    while True:
        for row in rows:
            if row["event_id"] not in seen:
                yield row
        seen = {row["event_id"] for row in rows} or seen
        cursor = cursor_behind(rows, cursor)
        time.sleep(LOOK_EVERY)
        rows = events_of(client, run_id, kinds=kinds, limit=1_000, after=cursor)


def _known(kinds: list[str] | None) -> list[str]:
    from ..events.errors import UserMistake
    from ..events.union import KINDS

    unknown = [kind for kind in kinds or [] if kind not in KINDS]
    if unknown:
        raise UserMistake(f"no kind of event is called {unknown[0]!r}; there are {', '.join(sorted(KINDS))}")
    return kinds or []


def _print_event(row: dict[str, Any], as_json: bool) -> None:
    from ..events.plain_json import body_of
    from .event_text import line_of
    from .rendering import json_line, print_line

    print_line(json_line({**row, "body": body_of(row)}) if as_json else line_of(row))
