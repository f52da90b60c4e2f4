"""`pilothouse compare RUN RUN...`: configuration, curves, stability, stress and decisions of several runs side by side.

Thin: `control_room.report.making` reads, works out and lays out; `report_writing` writes.
"""

import time
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from .completion import run_ids
from .report_writing import AsHtml, AsJson, AsMarkdown, DataDir, Form, Output

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


class Axis(StrEnum):
    """Along what curves are laid beside each other."""

    STEP = "step"
    TOKENS = "tokens"
    TIME = "time"


def compare(  # noqa: PLR0913, PLR0917  # a command's options
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN...", help="The runs' ids, or their beginnings", show_default=False, autocompletion=run_ids
        ),
    ],
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="RUN",
            help="A run of the other group; may be repeated [default: runs that differ in seeds only are a group]",
            autocompletion=run_ids,
        ),
    ] = None,
    by: Annotated[Axis, typer.Option("--by", help="Along what curves are laid beside each other")] = Axis.STEP,
    as_html: AsHtml = False,
    as_markdown: AsMarkdown = False,
    as_json: AsJson = False,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """Compare runs: what differs, how they fared, and the first decision in which they part."""
    from ..control_room.report.making import of_comparison
    from .progress_bar import progress_bar
    from .reading import open_archive
    from .report_writing import chosen_form, deliver

    form = chosen_form(as_html=as_html, as_markdown=as_markdown, as_json=as_json, otherwise=Form.TERMINAL)
    client = open_archive(data_dir).client
    ours, theirs = _named(client, runs), _named(client, against or ())
    with progress_bar() as seen:
        made = of_comparison(client, ours, theirs, by.value, time.time_ns() // 1_000, seen)
    deliver(form, made, output)


def _named(client: "Client", runs: Sequence[str]) -> list[str]:
    from .reading import full_name

    return list(dict.fromkeys(full_name(client, run) for run in runs))
