"""`pilothouse similar RUN`: the past runs and incidents that are most like it, what was done then, and did it help.

Thin: `control_room.report.making` reads, measures and lays out; `report_writing` writes.
"""

import time
from typing import Annotated

import typer

from .completion import run_ids
from .report_writing import AsHtml, AsJson, AsMarkdown, DataDir, Form, Output


def similar(  # noqa: PLR0913, PLR0917  # a command's options
    run: Annotated[
        str, typer.Argument(help="The run's id, or its beginning", show_default=False, autocompletion=run_ids)
    ],
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, help="How many runs, and how many incidents for each")
    ] = 5,
    as_html: AsHtml = False,
    as_markdown: AsMarkdown = False,
    as_json: AsJson = False,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """Find the past runs and incidents that are most like a run's: what was done then, and did it help."""
    from ..control_room.report.making import of_likeness
    from .progress_bar import progress_bar
    from .reading import full_name, open_archive
    from .report_writing import chosen_form, deliver

    form = chosen_form(as_html=as_html, as_markdown=as_markdown, as_json=as_json, otherwise=Form.TERMINAL)
    client = open_archive(data_dir).client
    with progress_bar() as seen:
        made = of_likeness(client, full_name(client, run), limit, time.time_ns() // 1_000, seen)
    deliver(form, made, output)
