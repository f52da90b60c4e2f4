"""`pilothouse import PATH`: runs that other trackers logged, and runs that were exported, into the archive.

Thin: finds, calls `importing` for each run, says what became of it. Doing it again changes nothing; cut off, it goes on
where it was.
"""

import time
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..storage.imports.finding import Exported, Found
    from ..storage.imports.source import Source
    from .importing import Importer, Result, Wishes
    from .rendering import Column

MISTAKE, INTERRUPTED = 2, 130


class From(StrEnum):
    """As `storage.imports.finding.Format`, which a command line that only shows its help need not load."""

    TENSORBOARD = "tensorboard"
    MLFLOW = "mlflow"
    WANDB = "wandb"
    HUGGINGFACE = "huggingface"
    LIGHTNING = "lightning"
    CSV = "csv"
    JSONL = "jsonl"
    PILOTHOUSE = "pilothouse"


class Ended(StrEnum):
    """How a run may be said to have ended; `lost` is: nobody knows."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out_of_memory"
    PREEMPTED = "preempted"
    DIVERGED = "diverged"
    LOST = "lost"


def import_(  # noqa: PLR0913, PLR0917  # a command's options
    path: Annotated[Path, typer.Argument(help="A log, a database, or a folder of them", show_default=False)],
    form: Annotated[From | None, typer.Option("--from", help="What wrote it [default: found by looking]")] = None,
    run_name: Annotated[
        str, typer.Option("--run-name", help="The run's id, where PATH is one run [default: its own name]")
    ] = "",
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="OURS=THEIRS", help="loss=train/ce, step=iter, time=date, …; may be repeated"),
    ] = None,
    outcome: Annotated[
        Ended | None, typer.Option("--outcome", help="How it ended, where the log does not say [default: completed]")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Of the archive [default: ~/.pilothouse]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines instead of a table")] = False,
) -> None:
    """Bring in runs from TensorBoard, MLflow, W&B, Hugging Face, Lightning, CSV, JSON lines, or an export."""
    from ..storage.imports.finding import Format, find
    from .importing import Wishes

    wishes = Wishes(read_mapping(mapping or ()), run_name, outcome.value if outcome else "")
    found = find(path, Format(form.value) if form else None, wishes.wanted)
    _refuse_unless_usable(path, found, wishes)
    try:
        results = _brought(found, wishes, data_dir)
    except KeyboardInterrupt:
        typer.echo("pilothouse: stopped; the same command goes on where it was", err=True)
        raise typer.Exit(INTERRUPTED) from None
    _show(results, as_json=as_json)
    if all(result.result == "refused" for result in results):
        raise typer.Exit(MISTAKE)


def read_mapping(pairs: Sequence[str]) -> dict[str, str]:
    """`loss=train/loss` and the like: theirs by ours.

    Raises:
        UserMistake: one is no such pair, or two are about one name.
    """
    from ..events.errors import UserMistake

    wanted: dict[str, str] = {}
    for pair in pairs:
        ours, _, theirs = pair.partition("=")
        if not ours or not theirs:
            raise UserMistake(f"--map {pair!r} is no pair of names; write it as loss=train/loss")
        if ours in wanted or theirs in wanted.values():
            raise UserMistake(f"--map {pair!r}: one of these names is mapped already")
        wanted[ours] = theirs
    return wanted


def _refuse_unless_usable(path: Path, found: "Found", wishes: "Wishes") -> None:
    from ..events.errors import FileRefused, UserMistake

    runs = len(found.sources) + len(found.exports)
    if runs + len(found.refused) == 0:
        raise FileRefused(f"{path}: holds no log that is known here; `pilothouse import --help` names them")
    if wishes.run_name and (runs > 1 or found.exports):
        what = "an export keeps the name of its run" if found.exports else f"there are {runs} runs in {path}"
        raise UserMistake(f"--run-name names one run: {what}")


def _brought(found: "Found", wishes: "Wishes", data_dir: Path | None) -> "list[Result]":
    from ..stream_processors.policy_text import read_policies
    from .importing import Importer, Result
    from .own_archive import whole_archive
    from .progress_bar import progress_bar

    results = [Result(str(path), "", "", "refused", why) for path, why in found.refused]
    if not found.sources and not found.exports:
        return results
    with whole_archive(data_dir, make=True) as archive, progress_bar() as seen:
        importer = Importer(archive.client, read_policies(archive.settings.policy_file), wishes, seen)
        results += _each(found, importer)
    return results


def _each(found: "Found", importer: "Importer") -> "Iterator[Result]":
    from ..events.errors import FileRefused
    from .importing import Result

    sources: list[Source | Exported] = [*found.sources, *found.exports]
    for source in sources:
        began = time.monotonic()
        try:
            result = importer.bring(source)
        except FileRefused as error:
            why = str(error).removeprefix(f"{source.path}: ")
            result = Result(str(source.path), source.format, "", "refused", why)
        yield result._replace(seconds=round(time.monotonic() - began, 3))


def _show(results: "Sequence[Result]", *, as_json: bool) -> None:
    from ..events.plain_text import printable
    from .rendering import json_line, print_line, show_rows

    if as_json:
        for result in results:
            print_line(json_line(result._asdict()))
    elif taken := [result._asdict() for result in results if result.result != "refused"]:
        show_rows(taken, columns=_columns())
    for result in results:
        if result.result == "refused":
            typer.echo(f"pilothouse: {printable(result.path)}: {printable(result.why)}", err=True)


def _columns() -> "list[Column]":
    from ..events.plain_text import printable

    return [
        ("run", lambda row: printable(row["run_id"])),
        ("from", lambda row: row["format"]),
        ("result", lambda row: {"present": "there already"}.get(row["result"], row["result"])),
        ("rows", lambda row: str(row["rows"])),
        ("incidents", lambda row: str(row["incidents"])),
        ("seconds", lambda row: f"{row['seconds']:.1f}"),
    ]
