"""`pilothouse audit`: who did what to which run, and whether the archive still says what was said.

The work is `storage.audit`'s. Heads that are kept elsewhere show later what was cut off the end of a run.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .stack_commands import AsJson, DataDir

if TYPE_CHECKING:
    from ..events.signing import Trust
    from ..storage.audit import Audit, Head

audit = typer.Typer(
    name="audit", no_args_is_help=True, help="Who did what, and whether the archive still says what was said."
)

Run = Annotated[str, typer.Argument(help="Only this run", show_default=False)]


@audit.command("log")
def log(
    run: Run = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="How many, the latest")] = 100,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Who did what, when, why and from where, and whose signature it bears; the latest last."""
    from ..storage.audit import audit_trail
    from .reading import full_name, open_archive
    from .rendering import show_rows

    archive = open_archive(data_dir)
    run_id = full_name(archive.client, run) if run else ""
    rows = audit_trail(archive.client, _trust(data_dir), run_id, limit)
    show_rows(rows, as_json=as_json, empty="nobody has done anything yet")


@audit.command("verify")
def verify(
    run: Run = "",
    heads: Annotated[Path | None, typer.Option("--heads", help="A file of `audit heads`, to hold it against")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Hold every decision and order against its signature and its chain. Status 1 where something is not as it was
    said.
    """
    from ..storage.audit import audited
    from .reading import full_name, open_archive
    from .rendering import json_line, print_line

    archive = open_archive(data_dir)
    run_id = full_name(archive.client, run) if run else ""
    trust = _trust(data_dir)
    found = audited(archive.client, trust, run_id, _read_heads(heads) if heads else None)
    if as_json:
        for finding in found.findings:
            print_line(json_line(finding._asdict()))
    else:
        print_line(_account(found, trust))
    if found.faults:
        raise typer.Exit(1)


@audit.command("heads")
def heads(data_dir: DataDir = None) -> None:
    """The head of each run's chain as JSON: keep it where the archive's owner cannot write."""
    from ..storage.audit import audited
    from .reading import open_archive
    from .rendering import print_line

    found = audited(open_archive(data_dir).client, _trust(data_dir))
    print_line(json.dumps({run_id: head._asdict() for run_id, head in found.heads.items()}, indent=1))


def _trust(data_dir: Path | None) -> "Trust":
    from ..keyring import trust_of
    from ..settings import load_settings

    return trust_of(load_settings(os.environ, data_dir=data_dir))()


def _read_heads(file: Path) -> "dict[str, Head]":
    from ..events.errors import UserMistake
    from ..storage.audit import Head

    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return {run_id: Head(str(head["link"]), int(head["decisions"])) for run_id, head in told.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserMistake(f"--heads {file} is no file of `pilothouse audit heads`: {error}") from error


def _account(found: "Audit", trust: "Trust") -> str:
    lines = [f"{found.events:,} decisions and orders of {found.runs:,} runs"]
    lines += [f"  {count:,} signed by {name}" for name, count in sorted(found.signers.items())]
    if not trust.keys:
        lines.append("  no trusted keys are known here: the chains were looked at, the signatures were not")
    for finding in found.findings:
        where = (
            ""
            if finding.place is None
            else f" at {finding.place.epoch}/{finding.place.partition}@{finding.place.offset}"
        )
        sign = "✗" if finding.is_fault else "·"
        lines.append(f"{sign} run {finding.run_id}{where}: {finding.what}: {finding.detail}")
    count = len(found.faults)
    lines.append("nothing is other than it was said" if not count else f"{count:,} faults")
    return "\n".join(lines)
