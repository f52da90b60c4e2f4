"""What waits for a person, and which of it somebody means. Used by the commands of `operator`."""

import json
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..events.errors import UserMistake
from ..events.event_words import action, numbers, short
from ..storage.people import waiting
from .rendering import Column, clock, json_line, out, print_line, show_rows

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

WAITING_COLUMNS: list[Column] = [
    ("run", lambda row: row["run_id"]),
    ("intervention", lambda row: short(row["intervention_id"])),
    ("rule", lambda row: row["rule"]),
    ("severity", lambda row: row["severity"]),
    ("wants to", lambda row: action(row["action"])),
    ("because", lambda row: row["reason"]),
    ("since", lambda row: clock(row["at"])),
    ("else", lambda row: f"{row['default']} at {clock(row['until'])}"),
    ("evidence", lambda row: numbers(dict(list(row["evidence"].items())[:4]))),
]


def meant(client: "Client", run_id: str, typed: str) -> str:
    """The full id of the intervention that somebody means: the only one that waits, or one by the beginning of its id.

    Raises:
        UserMistake: none, or more than one; what there is instead.
    """
    from ..storage.named import ask

    rows = waiting(client, run_id)
    ids = [row["intervention_id"] for row in rows if row["intervention_id"].startswith(typed)]
    if len(ids) == 1:
        return str(ids[0])
    if ids:
        raise UserMistake(f"run {run_id} waits for more than one answer; name one: {'; '.join(_named(rows))}")
    if not typed:
        raise UserMistake(f"nothing waits for an answer in run {run_id}")
    known = ask(client, "runs_of_intervention", prefix=typed)
    here = [row["intervention_id"] for row in known if row["run_id"] == run_id]
    if len(here) == 1:
        return str(here[0])  # it is too late, or nobody was asked: the governor says which
    if known and not here:
        raise UserMistake(f"intervention {typed} is of run {known[0]['run_id']}, not of {run_id}")
    there_are = "; ".join(_named(rows)) or "nothing"
    raise UserMistake(f"no intervention of run {run_id} begins with {typed!r}; waiting: {there_are}")


def _named(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield f"{short(row['intervention_id'])} ({row['rule']}: {action(row['action'])})"


def show_waiting(client: "Client", run_id: str, *, as_json: bool) -> None:
    """A line for each; in JSON with every id in full."""
    show_rows(waiting(client, run_id), as_json=as_json, columns=WAITING_COLUMNS, empty="nothing waits for an answer")


def show_silences(client: "Client", run_id: str, *, as_json: bool) -> None:
    """What may be in force still: steps are counted by the governor, and only time is known here."""
    for row in silences(client, run_id):
        print_line(json_line(row)) if as_json else out().print(_silence(row), markup=False)


def silences(client: "Client", run_id: str = "") -> Iterator[dict[str, Any]]:
    """The silences that are not over by the clock, nor ended or replaced by a later one."""
    from ..storage.named import ask

    now, seen = time.time_ns() // 1_000, set()
    for row in ask(client, "silences", run=run_id):
        order = json.loads(row["body"])
        about = (row["run_id"], order.get("rule", ""), order.get("condition") or "")
        if about in seen:
            continue
        seen.add(about)
        steps, seconds = order.get("steps") or 0, order.get("seconds") or 0
        if steps or (seconds and order["at"] + seconds * 1_000_000 > now):
            until = (
                {"from_step": row["from_step"], "steps": steps}
                if steps
                else {"until": order["at"] + seconds * 1_000_000}
            )
            kept = {"run_id": about[0], "silenced": json.loads(row["answer"])["reason"]}
            yield {**kept, "rule": about[1], "condition": about[2], "who": order["who"], "why": order["why"], **until}


def _silence(row: Mapping[str, Any]) -> str:
    ends = f"until {clock(row['until'])}" if "until" in row else f"from step {row['from_step']}"
    why = f": {row['why']}" if row["why"] else ""
    return f"run {row['run_id']}: {row['silenced']}, {ends}, by {row['who']}{why}"
