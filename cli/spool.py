"""What dead trainers left on this machine's disk: `pilothouse spool list`, `push` and `drop`.

Registered by `main`. Thin: `producers.delivery.leftovers` finds, sends and deletes; what a living process still holds
is shown and never touched.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..events.plain_text import printable
from .rendering import Column, clock, show_rows

if TYPE_CHECKING:
    from ..producers.delivery.leftovers import Leftover
    from ..settings import Settings

spool = typer.Typer(
    name="spool", no_args_is_help=True, help="Telemetry that dead trainers left on disk: list, send, delete."
)

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Whose spool [default: ~/.pilothouse; PILOTHOUSE_SPOOL_DIR wins]")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines instead of a table")]
EMPTY = "the spool is empty"


def _when(row: Any) -> str:
    return f"{clock(row['first_at'])} to {clock(row['last_at'])}"


def _steps(row: Any) -> str:
    return "–" if row["steps"] is None else f"{row['steps'][0]}–{row['steps'][1]}"


def _owner(row: Any) -> str:
    return {"": "dead", "?": "unknown"}.get(row["owner"], f"lives ({printable(row['owner'])})")


WHICH: list[Column] = [
    ("run", lambda row: printable(row["run_id"])),
    ("writer", lambda row: printable(row["writer_id"][:8])),
    ("rank", lambda row: "–" if row["rank"] is None else str(row["rank"])),
]
LISTED: list[Column] = [
    *WHICH,
    ("records", lambda row: str(row["records"])),
    ("calls", lambda row: str(row["calls"])),
    ("bytes", lambda row: str(row["bytes"])),
    ("steps", _steps),
    ("time", _when),
    ("process", _owner),
]
DONE: list[Column] = [
    *WHICH,
    ("result", lambda row: row["result"]),
    ("sent", lambda row: str(row["sent"])),
    ("lost", lambda row: str(row["lost"])),
]


@spool.command("list")
def list_spool(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """What waits, the oldest first, and whether the process that wrote it lives."""
    _, leftovers = _look(data_dir)
    show_rows([leftover.as_row() for leftover in leftovers], as_json=as_json, columns=LISTED, empty=EMPTY)


@spool.command("push")
def push_spool(
    which: Annotated[
        list[str] | None,
        typer.Argument(help="Runs, or beginnings of writers [default: all of dead processes]", show_default=False),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Send what dead processes left, in order. Doing it again, or being stopped, does no harm: readers see each record
    once.
    """
    settings, leftovers = _look(data_dir)
    chosen = _named(leftovers, which) if which else leftovers
    rows: list[dict[str, Any]] = []
    try:
        rows.extend(_pushed(settings, chosen, insist=bool(which)))
    finally:
        if rows or not chosen:
            show_rows(rows, as_json=as_json, columns=DONE, empty=EMPTY)


@spool.command("drop")
def drop_spool(
    which: Annotated[list[str], typer.Argument(help="Runs, or beginnings of writers", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Really: what is dropped is gone for good")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Delete what dead processes left, unsent."""
    from ..events.errors import UserMistake
    from ..producers.delivery.leftovers import drop, refuse_living

    _, leftovers = _look(data_dir)
    chosen = _named(leftovers, which)
    for leftover in chosen:
        refuse_living(leftover)
    if not yes:
        calls = sum(leftover.calls for leftover in chosen)
        raise UserMistake(f"this would delete {calls} calls of {len(chosen)} writers for good: say so with --yes")
    for leftover in chosen:
        drop(leftover)
    rows = [leftover.as_row() | {"result": "dropped", "sent": 0, "lost": leftover.calls} for leftover in chosen]
    show_rows(rows, as_json=as_json, columns=DONE)


def _look(data_dir: Path | None) -> "tuple[Settings, list[Leftover]]":
    from ..keyring import sealing_key
    from ..producers.delivery.leftovers import find_leftovers
    from ..producers.delivery.spool_sealing import use
    from ..settings import load_settings

    settings = load_settings(os.environ, data_dir=data_dir)
    use(sealing_key(settings))
    return settings, find_leftovers(settings.spool)


def _named(leftovers: "Sequence[Leftover]", which: Sequence[str]) -> "list[Leftover]":
    """
    Raises:
        UserMistake: a word names nothing.
    """
    from ..events.errors import UserMistake

    for word in which:
        if not any(leftover.is_named(word) for leftover in leftovers):
            known = ", ".join(dict.fromkeys(leftover.run_id for leftover in leftovers)) or "nothing"
            raise UserMistake(f"nothing in the spool is called {word!r}; there is: {printable(known)[:500]}")
    return [leftover for leftover in leftovers if any(leftover.is_named(word) for word in which)]


def _pushed(settings: "Settings", leftovers: "Sequence[Leftover]", *, insist: bool) -> Iterator[dict[str, Any]]:
    """One row for each; a living process is a mistake where it was named, and passed over where it was not."""
    from ..producers.delivery.leftovers import Sent, push, refuse_living

    for leftover in leftovers:
        if leftover.owner and not insist:
            sent, result = Sent(0, 0), "passed over: its process lives"
        else:
            refuse_living(leftover)
            with _quiet():
                sent, result = push(settings, leftover), "sent"
        yield leftover.as_row() | {"result": result, "sent": sent.calls, "lost": sent.lost}


@contextmanager
def _quiet() -> Iterator[None]:
    """What the SDK logs for the owner of a training script, this command says by itself."""
    sdk = logging.getLogger("pilothouse")
    before = sdk.level
    sdk.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        sdk.setLevel(before)
