"""`pilothouse doctor`: every check, each finding with what to do, and an exit status for those who look by machine."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from .finding import Check, Finding

FAULTS = 1


def doctor(
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Of the stack [default: ~/.pilothouse]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines, one for each finding")] = False,
) -> None:
    """Look for the usual faults and say what to do about each. Exit status 1 where something does not work."""
    from ..rendering import out, show_rows

    found = list(_found(data_dir))
    if as_json:
        show_rows([finding._asdict() for finding in found], as_json=True)
    else:
        show_rows([finding._asdict() for finding in found], columns=COLUMNS)
        for finding in (finding for finding in found if finding.do):
            out().print(f"{finding.found}\n    → {finding.do}", markup=False, soft_wrap=True)
    if any(finding.status == "fault" for finding in found):
        raise typer.Exit(FAULTS)


COLUMNS: list[tuple[str, Any]] = [
    ("", lambda row: {"well": "✓", "warning": "!", "fault": "✗"}[row["status"]]),
    ("check", lambda row: row["check"]),
    ("found", lambda row: row["found"]),
]


def _found(data_dir: Path | None) -> "Iterator[Finding]":
    from ...events.errors import SettingsInvalid
    from ...settings import load_settings
    from .finding import Finding, findings

    try:
        settings = load_settings(os.environ, data_dir=data_dir)
    except SettingsInvalid as error:
        for line in str(error).splitlines()[1:]:
            yield Finding("settings", "fault", line.strip(), "correct it where it was given")
        return
    yield Finding("settings", "well", f"data directory {settings.data_dir}, Kafka {settings.kafka}")
    broken: set[str] = set()
    for asks, check in _checks():
        if asks in broken:
            continue  # what it would ask is away, which was said once
        told = list(findings(check, settings))
        yield from told
        if check.name in ("broker", "schema") and any(finding.status == "fault" for finding in told):
            broken.add(asks)


def _checks() -> "Iterator[tuple[str, Check]]":
    """Whom each asks, and the check: the first of each tells whether there is anybody to ask."""
    from . import archive_checks as archive
    from . import log_checks as log
    from . import machine_checks as machine
    from .finding import Check

    yield "broker", Check("broker", log.broker)
    yield "broker", Check("topics", log.topics)
    yield "broker", Check("dead letters", log.dead_letters)
    yield "machine", Check("workers", machine.workers)
    yield "machine", Check("policies", machine.policies)
    yield "machine", Check("keys", machine.keys)
    yield "machine", Check("disk", machine.disks)
    yield "machine", Check("spool", machine.spool)
    yield "machine", Check("leftovers", machine.leftovers)
    yield "archive", Check("schema", archive.schema)
    yield "archive", Check("archive", archive.lag)
    yield "archive", Check("clocks", archive.clocks)
    yield "archive", Check("policies", archive.policies_in_force)
    yield "archive", Check("trainers", archive.refusals)
    yield "archive", Check("disk", archive.archive_disks)
