"""`pilothouse export RUN FILE`: one run with its whole history in one file, which `pilothouse import` reads again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from .completion import run_ids


def export(
    run: Annotated[
        str, typer.Argument(help="The run's id, or its beginning", show_default=False, autocompletion=run_ids)
    ],
    file: Annotated[Path, typer.Argument(help="Where to; RUN.pilothouse is a good name", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="In the place of a file that is there")] = False,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Of the archive [default: ~/.pilothouse]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="What it holds, as one JSON object")] = False,
) -> None:
    """Write a run into one portable file: facts, steps, clock and decisions (Parquet and JSON in a zip)."""
    from ..storage.portable_writing import export_run
    from .extras import require
    from .own_archive import whole_archive
    from .reading import full_name
    from .rendering import json_line, print_line

    require(("pyarrow",), "an export")
    with whole_archive(data_dir, make=False) as archive, _counting() as seen:
        run_id = full_name(archive.client, run)
        manifest = export_run(archive.client, run_id, file, replace=force, seen=seen)
    told = manifest.model_dump() | {"file": str(file), "bytes": file.stat().st_size}
    size = f"{manifest.records} records and {manifest.decisions} decisions in {told['bytes']} bytes"
    print_line(json_line(told) if as_json else f"run {run_id} is in {file}: {size}")


@contextmanager
def _counting() -> Iterator[Callable[[int], None]]:
    """How far it is, on a terminal."""
    from .rendering import out

    console = out(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("exporting…") as status:

        def seen(done: int) -> None:
            if done % 1_000 == 0:
                status.update(f"exporting… {done} records")

        yield seen
