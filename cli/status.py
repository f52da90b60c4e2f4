"""`pilothouse status`: how far the archive has come in each partition of the log, and what the workers say.

Registered by `main`. Workers are those of this machine's stack, by their health files.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..events.event_words import number, text_of
from .query_commands import AsJson, DataDir
from .rendering import Column, clock

LATE_SECONDS = 10.0
"""A partition of telemetry gets a tick a second; behind by more, the archive is late or the governor away."""


def status(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """How far behind the archive is, and how the workers of this machine's stack are."""
    from ..storage.queries import ingest_lag
    from .reading import open_archive
    from .rendering import out, show_rows

    archive = open_archive(data_dir)
    rows = ingest_lag(archive.client)
    workers = list(_workers(archive.settings.data_dir))
    if as_json:
        show_rows([*({"partition": row} for row in rows), *({"worker": worker} for worker in workers)], as_json=True)
        return
    show_rows(rows, columns=LAG_COLUMNS, empty="nothing was archived yet")
    if workers:
        out().print()
        show_rows(workers, columns=WORKER_COLUMNS)


def _workers(data_dir: Path) -> Iterator[dict[str, Any]]:
    from ..stream_processors.health import read_health

    for file in sorted((data_dir / "health").glob("*.json")):
        if told := read_health(file):
            yield {"worker": file.stem, **told}


def _lag(row: Any) -> str:
    if row["topic"].endswith("control"):
        return "–"  # nothing is written there while nothing is decided
    return f"{number(row['behind_s'], 3)} s" + (" (late)" if row["behind_s"] > LATE_SECONDS else "")


LAG_COLUMNS: list[Column] = [
    ("topic", lambda row: row["topic"]),
    ("partition", lambda row: text_of(row["log_partition"])),
    ("archived up to", lambda row: text_of(row["log_offset"])),
    ("newest event", lambda row: clock(row["last_at"])),
    ("behind", _lag),
    ("took", lambda row: f"{number(row['took_s'], 3)} s"),
]
WORKER_COLUMNS: list[Column] = [
    ("worker", lambda row: row["worker"]),
    ("state", lambda row: text_of(row.get("state"))),
    ("records", lambda row: text_of(row.get("records"))),
    ("waiting", lambda row: text_of(sum((row.get("lag") or {}).values()))),
    ("trouble", lambda row: row.get("last_error") or "–"),
]
