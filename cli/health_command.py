"""`pilothouse health ROLE`: whether a worker of this machine lives and is ready, as an exit status for a prober.

Registered by `main`. For a probe that runs a command in the worker's container, or a supervisor's check; what it says
is `stream_processors.health.fitness`, the same as over HTTP.
"""

import os
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

NOT_WELL = 1


class Which(StrEnum):
    """The processes of a stack that are ours."""

    GOVERNOR = "governor"
    ARCHIVER = "archiver"
    ADVISOR = "advisor"
    ENDPOINT = "endpoint"


def health(
    role: Annotated[Which, typer.Argument(help="Which process", show_default=False)],
    slot: Annotated[str | None, typer.Option(help="Which of its equals [default: 0]")] = None,
    ready: Annotated[bool, typer.Option("--ready", help="Ask whether it works, not only whether it lives")] = False,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Of the stack [default: ~/.pilothouse]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object")] = False,
) -> None:
    """Say whether a worker lives (or is --ready): exit status 0, else 1 and why."""
    from ..settings import load_settings
    from ..stream_processors.health import fitness, health_file, read_health
    from .rendering import json_line, print_line

    settings = load_settings(os.environ, data_dir=data_dir, slot=slot)
    if role is Which.ENDPOINT:
        found = _endpoint(settings.clickhouse_url)
    else:
        told = read_health(health_file(settings.data_dir, role, settings.slot))
        found = fitness(told, time.time_ns() // 1_000)
    well = found.ready if ready else found.live
    said = {"role": role.value, "slot": settings.slot, **found._asdict()}
    print_line(json_line(said) if as_json else f"{role.value}: {found.why}")
    if not well:
        raise typer.Exit(NOT_WELL)


def _endpoint(url: str) -> Any:
    """An archive that answers its ping is ready: it is pinged only when its tables can be asked."""
    from ..stream_processors.health import Fitness
    from .parts import answers

    if answers(url, "/ping"):
        return Fitness(True, True, "it answers")
    return Fitness(False, False, "it does not answer")
