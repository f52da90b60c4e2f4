"""`pilothouse report RUN` and `report --fleet`: the whole run, or a time of all runs, for people.

Thin: `control_room.report.making` reads, works out and lays out; `report_writing` writes.
"""

import time
from typing import Annotated

import typer

from .completion import run_ids
from .report_writing import AsHtml, AsJson, AsMarkdown, DataDir, Form, Output

DEFAULT_SINCE = "7d"


def report(  # noqa: PLR0913, PLR0917  # a command's options
    run: Annotated[
        str, typer.Argument(help="The run's id, or its beginning", show_default=False, autocompletion=run_ids)
    ] = "",
    fleet: Annotated[bool, typer.Option("--fleet", help="The review of all runs instead of one")] = False,
    since: Annotated[str, typer.Option("--since", help=f"With --fleet: 12h, 7d, 4w [default: {DEFAULT_SINCE}]")] = "",
    as_html: AsHtml = False,
    as_markdown: AsMarkdown = False,
    as_json: AsJson = False,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """Write the report of a run: curves, incidents, decisions, checkpoints, cost, drafts of postmortems."""
    from ..control_room.report.making import of_fleet, of_run
    from .progress_bar import progress_bar
    from .reading import full_name, open_archive
    from .report_writing import chosen_form, deliver

    form = chosen_form(as_html=as_html, as_markdown=as_markdown, as_json=as_json, otherwise=Form.HTML)
    _refuse_unclear(run, fleet, since)
    now = time.time_ns() // 1_000
    window = _window(since or DEFAULT_SINCE)
    client = open_archive(data_dir).client
    with progress_bar() as seen:
        made = of_fleet(client, window, now, seen) if fleet else of_run(client, full_name(client, run), now, seen)
    deliver(form, made, output)


def _refuse_unclear(run: str, fleet: bool, since: str) -> None:
    from ..events.errors import UserMistake

    if bool(run) == fleet:
        raise UserMistake("say which report: `pilothouse report RUN`, or `pilothouse report --fleet --since 7d`")
    if since and not fleet:
        raise UserMistake("--since goes with --fleet: a run is told of from its first word on")


def _window(since: str) -> int:
    """In microseconds."""
    from .backtest_command import seconds_of

    return 1_000_000 * seconds_of(since)
