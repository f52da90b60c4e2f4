"""What a shell may complete besides options and files: the runs of the archive. Silent where there is none."""

from contextlib import suppress
from pathlib import Path

import typer

MOST = 50


def run_ids(context: typer.Context, incomplete: str) -> list[str]:
    """The runs whose names begin so, last heard of first."""
    from ..events.errors import PilothouseError
    from ..storage.queries import runs_like
    from .reading import open_archive

    data_dir = context.params.get("data_dir")
    with suppress(PilothouseError, ImportError):
        return runs_like(open_archive(Path(data_dir) if data_dir else None).client, incomplete, MOST)
    return []
