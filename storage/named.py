"""SQL by name: the statements of `queries/*.sql`, and how they are asked.

`queries`, `history` and `migrate` call it; it calls the driver. Values travel as server-side parameters, never as text
in SQL.
"""

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..events.errors import QueryRefused
from .connect import UNKNOWN_TABLE, refusals

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

FOLDER = Path(__file__).parent / "queries"
Row = dict[str, Any]


@cache
def statements() -> dict[str, str]:
    """Every named statement, read once."""
    found: dict[str, str] = {}
    for file in sorted(FOLDER.glob("*.sql")):
        for name, text in split_named(file.read_text()):
            if name in found:
                raise ValueError(f"{file.name}: a second statement is named {name}")
            found[name] = text
    return found


def split_named(text: str) -> list[tuple[str, str]]:
    """The statements of one file, each under its `-- name: …` line; other comment lines are dropped."""
    parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)
    return [(name, _bare(body)) for name, body in zip(parts[1::2], parts[2::2], strict=True)]


def _bare(body: str) -> str:
    lines = [line for line in body.splitlines() if line.strip() and not line.lstrip().startswith("--")]
    return "\n".join(lines).rstrip(";")


def ask(client: "Client", name: str, **parameters: Any) -> list[Row]:
    """The rows of a named query, as dicts in its columns' order.

    Raises:
        QueryRefused: ClickHouse refused it.
        StackNotRunning: nothing answers.
    """
    try:
        with refusals():
            return list(client.query(statements()[name], parameters=parameters).named_results())
    except QueryRefused as refusal:
        if refusal.code == UNKNOWN_TABLE:
            message = f"the archive lacks its tables; `pilothouse migrate` makes them (code {UNKNOWN_TABLE})"
            raise QueryRefused(message, UNKNOWN_TABLE) from refusal
        raise
