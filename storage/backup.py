"""A backup of the embedded archive and the way back: ClickHouse's own BACKUP and RESTORE, of one moment, while the
archive works on.

`pilothouse storage` calls it; what makes a folder a backup of ours, whole and unchanged, is `backup_files`. The engine
may write below `archive/backups` and nowhere else (`storage.engine`).
"""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..events.errors import ArchiveUnavailable
from .connect import DEFAULT_DATABASE, refusals
from .named import ask

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

BACKUPS = "backups"
"""In the archive's directory: the only folder that the engine writes backups to and reads them from."""
LOOK_EVERY = 0.1
_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")


def take(client: "Client", name: str) -> None:
    """Write the folder `name` among the archive's backups; returns when it is complete.

    Raises:
        QueryRefused: ClickHouse refuses.
        ArchiveUnavailable: it was begun and failed; what there is of it is no backup.
    """
    # Files of equal content would be kept once, and what a table holds could not be told from its folder.
    whole = "SETTINGS deduplicate_files = 0 ASYNC"
    _wait(client, f"BACKUP DATABASE {_quoted(client)} TO File('{_checked(name)}') {whole}", "BACKUP_CREATED")


def bring_back(client: "Client", name: str) -> dict[str, int]:
    """Restore the folder `name` into an archive without tables; the rows of each table, as many as were backed up.

    Nothing is merged meanwhile: rows that stand twice are counted as they came.

    Raises:
        QueryRefused: ClickHouse refuses.
        ArchiveUnavailable: it failed half-way; this archive cannot be used.
    """
    restoring = f"RESTORE DATABASE {_quoted(client)} FROM File('{_checked(name)}')"
    _wait(client, f"{restoring} SETTINGS structure_only = 1 ASYNC", "RESTORED")
    with refusals():
        client.command("SYSTEM STOP MERGES")  # of the tables that there are: they must be there before their rows
    _wait(client, f"{restoring} ASYNC", "RESTORED")
    rows = {row["name"]: row["rows"] for row in ask(client, "rows_of_tables")}
    with refusals():
        client.command("SYSTEM START MERGES")
    return rows


def rows_in(folder: Path) -> dict[str, int]:
    """The rows of each table in a backup, as the parts of its tables count them."""
    found: dict[str, int] = {}
    for count in folder.glob("data/*/*/*/count.txt"):
        table = count.parent.parent.name
        found[table] = found.get(table, 0) + int(count.read_text())
    return found


def _wait(client: "Client", statement: str, done: str) -> None:
    with refusals():
        [(identity, _)] = client.query(statement).result_rows
    while True:
        [row] = ask(client, "backup_status", id=identity)
        if row["status"] == done:
            return
        if row["status"].endswith(("FAILED", "CANCELLED")):
            raise ArchiveUnavailable(f"{statement.partition(' ')[0]} failed: {row['error'][:600]}")
        time.sleep(LOOK_EVERY)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a backup")  # made by `cli`, typed by nobody
    return name


def _quoted(client: "Client") -> str:
    # Neither statement takes an identifier as a parameter.
    return "`" + (client.database or DEFAULT_DATABASE).replace("\\", "\\\\").replace("`", "\\`") + "`"
