"""A person's orders to a run: `stop`. An order is a record of the log like any other, with who and why.

It is told to the governor, which commands the trainers; this waits a little for what follows and says what did.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from ..producers.person import person

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

WAIT_SECONDS = 15.0
LOOK_EVERY = 0.3
ANSWERS = ("intervention_proposed", "intervention_issued", "intervention_declined", "intervention_receipt", "run_ended")


def stop(
    run: Annotated[str, typer.Argument(help="The run's id, or its beginning", show_default=False)],
    why: Annotated[
        str, typer.Option("--why", help="Kept with the order, for whoever reads it later", show_default=False)
    ],
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Of the stack [default: ~/.pilothouse]")] = None,
    wait: Annotated[float, typer.Option(min=0.0, help="Seconds to wait for what happens")] = WAIT_SECONDS,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of words")] = False,
) -> None:
    """Stop a run in order: a last checkpoint, all telemetry sent, outcome `stopped`."""
    from ..producers.kafka import send_fact
    from ..storage.queries import last_places
    from .reading import full_name, open_archive
    from .rendering import json_line, print_line

    archive = open_archive(data_dir)
    run_id = full_name(archive.client, run)
    _refuse_ended(archive.client, run_id)
    cursor = last_places(archive.client, run_id)
    send_fact(archive.settings, stop_order(run_id, why, who=person(), at=time.time_ns() // 1_000))
    seen = _until_over(archive.client, run_id, cursor, wait)
    said = {"run_id": run_id, "sent": True, "outcome": outcome(seen), "events": [row["kind"] for row in seen]}
    print_line(json_line(said) if as_json else account(run_id, seen))


def stop_order(run_id: str, why: str, who: str, at: int) -> Any:
    """The command itself. Its writer is this one order.

    Raises:
        UserMistake: `why` is empty or too long.
    """
    from ..events.commands import OperatorCommand
    from ..events.errors import UserMistake

    if not why.strip() or len(why) > 16_000:
        raise UserMistake("--why must say why, in at most 16,000 characters")
    return OperatorCommand(
        at=at, run_id=run_id, writer_id=f"operator-{uuid4().hex}", seq=1, verb="stop", who=who[:200], why=why
    )


def _refuse_ended(client: "Client", run_id: str) -> None:
    from ..events.errors import UserMistake
    from ..storage.queries import show_run

    row = show_run(client, run_id)
    if row["outcome"]:
        raise UserMistake(f"run {run_id} has ended already ({row['outcome']})")


def _until_over(client: "Client", run_id: str, cursor: Any, seconds: float) -> list[dict[str, Any]]:
    from ..storage.queries import events_of

    deadline = time.monotonic() + seconds
    while True:
        seen = events_of(client, run_id, kinds=ANSWERS, after=cursor)
        if outcome(seen) in ("ended", "declined") or time.monotonic() >= deadline:
            return seen
        time.sleep(LOOK_EVERY)


def outcome(seen: Sequence[dict[str, Any]]) -> str:
    """How far the order came: `ended`, `declined`, `answered` (by ranks), `issued`, or only `sent`."""
    kinds = {row["kind"] for row in seen}
    for kind, name in (
        ("run_ended", "ended"),
        ("intervention_declined", "declined"),
        ("intervention_receipt", "answered"),
        ("intervention_issued", "issued"),
    ):
        if kind in kinds:
            return name
    return "sent"


def account(run_id: str, seen: Sequence[dict[str, Any]]) -> str:
    """What happened, for a person, and what to do where nothing did."""
    from .event_text import line_of

    follow = f"`pilothouse tail {run_id}`"
    last = {
        "ended": f"run {run_id} has ended",
        "declined": f"the governor declined to stop run {run_id}",
        "answered": f"the ranks of run {run_id} have answered; it is coming to its end",
        "issued": f"the governor told run {run_id} to stop; its ranks have not answered yet: {follow}",
        "sent": f"the order is in the log, and nothing came of it yet: {follow}",
    }[outcome(seen)]
    return "\n".join([*(line_of(row) for row in seen), last])
