"""`pilothouse report RUN` and `report --fleet`: the whole run, or a time of all runs, for people.

Thin: `control_room.report` reads, works out and lays out; `report_writing` writes.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from .completion import run_ids
from .report_writing import AsHtml, AsJson, AsMarkdown, DataDir, Form, Output

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from ..control_room.report.document import Document
    from .progress_bar import Seen

DEFAULT_SINCE = "7d"


class Made(NamedTuple):
    """A report as data, how to lay it out, and what to call it."""

    data: Any
    page: "Callable[[], Document]"
    name: str


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
    from .progress_bar import progress_bar
    from .reading import full_name, open_archive
    from .report_writing import chosen_form, deliver

    form = chosen_form(as_html=as_html, as_markdown=as_markdown, as_json=as_json, otherwise=Form.HTML)
    _refuse_unclear(run, fleet, since)
    now = time.time_ns() // 1_000
    window = _window(since or DEFAULT_SINCE)
    client = open_archive(data_dir).client
    with progress_bar() as seen:
        made = _of_fleet(client, window, now, seen) if fleet else _of_run(client, full_name(client, run), now, seen)
    deliver(form, made.data, made.page, made.name, output)


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


def _of_run(client: "Client", run_id: str, now: int, seen: "Seen") -> Made:
    from ..control_room.report.material import read_material
    from ..control_room.report.overview import overview
    from ..control_room.report.run_page import run_page

    material = read_material(client, run_id, seen)
    whole = overview(material)
    return Made(whole, lambda: run_page(whole, material.resource_course, now), run_id)


def _of_fleet(client: "Client", window: int, now: int, seen: "Seen") -> Made:
    from ..control_room.report.fleet import fleet_review
    from ..control_room.report.fleet_page import fleet_page
    from ..storage.report_queries import fleet_runs, incidents_of_runs, service_levels

    since = max(0, now - window)
    seen("reading runs", 0, 3)
    runs = fleet_runs(client, since, now + 1)
    seen("reading runs", 1, 3)
    before = fleet_runs(client, max(0, since - window), since)
    seen("reading incidents", 2, 3)
    incidents = incidents_of_runs(client, since=since)
    review = fleet_review(runs, before, incidents, (since, now), service_levels(client))
    return Made(review, lambda: fleet_page(review, now), "fleet")
