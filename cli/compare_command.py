"""`pilothouse compare RUN RUN...`: configuration, curves, stability, stress and decisions of several runs side by side.

Thin: `control_room.report` reads, works out and lays out; `report_writing` writes.
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

    from ..control_room.report.comparison import Side
    from .progress_bar import Seen

MOST_RUNS = 24


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
    from ..control_room.report.compare_page import compare_page
    from ..control_room.report.comparison import comparison
    from .progress_bar import progress_bar
    from .reading import open_archive
    from .report_writing import chosen_form, deliver

    form = chosen_form(as_html=as_html, as_markdown=as_markdown, as_json=as_json, otherwise=Form.TERMINAL)
    client = open_archive(data_dir).client
    ours, theirs = _named(client, runs), _named(client, against or ())
    names = _chosen(ours, theirs)
    with progress_bar() as seen:
        sides = _read(client, names, seen)
    found = comparison(sides, by.value, [ours, theirs] if theirs else ())
    now = time.time_ns() // 1_000
    deliver(form, found, lambda: compare_page(found, now), f"compare-{'-'.join(names)}", output)


def _named(client: "Client", runs: Sequence[str]) -> list[str]:
    from .reading import full_name

    return list(dict.fromkeys(full_name(client, run) for run in runs))


def _chosen(ours: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """
    Raises:
        UserMistake: there are too few, too many, or one is on both sides.
    """
    from ..events.errors import UserMistake

    if both := [run for run in ours if run in theirs]:
        raise UserMistake(f"{both[0]} cannot be compared with itself: it stands on both sides of --against")
    names = [*ours, *theirs]
    if len(names) < 2:
        raise UserMistake("two different runs at least: `pilothouse compare RUN RUN`")
    if len(names) > MOST_RUNS:
        raise UserMistake(f"{len(names)} runs are more than can be read beside each other: at most {MOST_RUNS}")
    return names


def _read(client: "Client", names: Sequence[str], seen: "Seen") -> "list[Side]":
    from ..control_room.report.comparison import side_of
    from ..control_room.report.material import read_material
    from .replay_command import decisions_in_order

    sides = []
    for number, name in enumerate(names):
        seen(f"reading {name}", number, len(names))
        material = read_material(client, name, lambda *_: None)
        sides.append(side_of(material, decisions_in_order(client, name)))
    return sides
