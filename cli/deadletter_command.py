"""What no worker could use: `pilothouse deadletter list`, `show` and `replay`.

Registered by `main`. Thin: `dead_letters` reads, names and sends.
"""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ..events.plain_text import printable
from .rendering import Column, clock, out, show_rows

deadletter = typer.Typer(no_args_is_help=True, help="Records that could not be used: list, look into one, send again.")

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Whose stack [default: ~/.pilothouse]")]
Most = Annotated[int, typer.Option("--limit", "-n", min=1, help="Look at so many, the latest")]
MOST = 50
FAR_BACK = 10_000
HEX_BYTES = 512

DONE: list[Column] = [
    ("record", lambda row: printable(row["name"]) or "–"),
    ("reason", lambda row: printable(row["reason"]) or "–"),
    ("result", lambda row: printable(row["result"])),
]


@deadletter.command("list")
def list_letters(
    limit: Most = MOST,
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines, with all of each record's bytes")] = False,
) -> None:
    """What arrived and could not be used: why, where it stood, and its original bytes. Oldest first."""
    from .dead_letters import COLUMNS

    letters = _read(data_dir, limit)
    show_rows([letter.as_row() for letter in letters], as_json=as_json, columns=COLUMNS, empty="no dead letters")


@deadletter.command("show")
def show_letter(
    which: Annotated[str, typer.Argument(help="TOPIC/PARTITION@OFFSET, as `list` shows it", show_default=False)],
    raw: Annotated[bool, typer.Option("--raw", help="Only the original bytes, to standard output")] = False,
    limit: Most = FAR_BACK,
    data_dir: DataDir = None,
) -> None:
    """One of them whole: its headers and its bytes, and whether it could be used now."""
    from .dead_letters import chosen, hex_lines

    [letter] = chosen(_read(data_dir, limit), [which], None)
    body = letter.body or b""
    if raw:
        typer.echo(body, nl=False)
        return
    told = {
        "record": letter.name,
        "at": clock(letter.at),
        "reason": letter.reason,
        "detail": letter.detail,
        "now": letter.still_wrong() or "it could be used: `pilothouse deadletter replay` sends it again",
        "key": repr(letter.key),
        **{f"header {name}": repr(value) for name, value in letter.headers},
        "bytes": str(letter.size),
    }
    console = out()
    for name, value in told.items():
        console.print(f"{printable(name):<8}  {printable(value)}", markup=False, soft_wrap=True)
    for line in hex_lines(body[:HEX_BYTES]):
        console.print(line, markup=False, soft_wrap=True)
    if len(body) > HEX_BYTES:
        console.print(f"… {len(body) - HEX_BYTES} bytes more: --raw gives all of them", markup=False)


@deadletter.command("replay")
def replay_letters(  # noqa: PLR0913, PLR0917  # one argument for each option
    which: Annotated[
        list[str] | None, typer.Argument(help="TOPIC/PARTITION@OFFSET, as `list` shows them", show_default=False)
    ] = None,
    reason: Annotated[str | None, typer.Option(help="All of this reason, as NewerSchema after an upgrade")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that can be used now")] = False,
    limit: Most = FAR_BACK,
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines instead of a table")] = False,
) -> None:
    """Send them again, byte for byte, to the end of the partition where they stood. What could not be used now either
    is left alone. Doing it again does no harm: an event that came before is known by its number.
    """
    from ..events.errors import UserMistake
    from ..settings import load_settings
    from .dead_letters import chosen, replayed

    if sum((bool(which), reason is not None, every)) != 1:
        raise UserMistake("say which: TOPIC/PARTITION@OFFSET as `list` shows them, or --reason REASON, or --all")
    letters = chosen(_read(data_dir, limit), which or (), reason)
    rows: list[dict[str, Any]] = []
    try:
        for letter, result in replayed(load_settings(os.environ, data_dir=data_dir), letters):
            rows.append({"name": letter.name, "reason": letter.reason, "result": result})
    finally:
        if rows or not letters:
            show_rows(rows, as_json=as_json, columns=DONE, empty="no dead letters")


def _read(data_dir: Path | None, limit: int) -> "list[Any]":
    from ..settings import load_settings
    from .dead_letters import read_dead_letters

    return read_dead_letters(load_settings(os.environ, data_dir=data_dir), limit)
