"""The columns of each table, and the page of one run. Rendering only: rows come from `storage.queries`.

Used by `query_commands`.
"""

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from .event_text import action
from .rendering import Column, Row, clock, number, numbers, short, table, text_of

RUN_COLUMNS: list[Column] = [
    ("run", lambda row: row["run_id"]),
    ("phase", lambda row: row["phase"]),
    ("margin", lambda row: number(row["margin"], 3)),
    ("step", lambda row: text_of(row["last_step"])),
    ("attempt", lambda row: text_of(row["attempt"])),
    ("ranks", lambda row: text_of(row["world_size"])),
    ("outcome", lambda row: row["outcome"] or "running"),
    ("interventions", lambda row: text_of(row["interventions"])),
    (
        "incidents",
        lambda row: (
            f"{row['incidents']} ({row['open_incidents']} open)" if row["open_incidents"] else str(row["incidents"])
        ),
    ),
    ("started", lambda row: clock(row["started_at"])),
    ("last heard", lambda row: clock(row["last_at"])),
]


def _applied(row: Row) -> str:
    """At which step by how many ranks: the proof that they moved together, in short."""
    if not row["applied_steps"]:
        return "–"
    together = "" if row["same_step"] else ", not together"
    return f"{text_of(row['applied_steps'])} ({row['ranks_applied']}/{row['world_size']} ranks{together})"


INTERVENTION_COLUMNS: list[Column] = [
    ("intervention", lambda row: short(row["intervention_id"])),
    ("rule", lambda row: row["rule"]),
    ("action", lambda row: action(_fields(row["action_body"]))),
    ("state", lambda row: row["state"]),
    ("proposed", lambda row: text_of(row["proposed_step"])),
    ("applied at step", _applied),
    ("result", lambda row: row["verification"] or "–"),
    ("why", lambda row: row["reason"] or ""),
    ("evidence", lambda row: numbers(row["evidence"] or {})),
]

CONDITION_COLUMNS: list[Column] = [
    ("condition", lambda row: row["condition"]),
    ("status", lambda row: row["status"]),
    ("since step", lambda row: text_of(row["since_step"])),
    ("reason", lambda row: row["reason"]),
    ("message", lambda row: row["message"]),
]

INCIDENT_COLUMNS: list[Column] = [
    ("incident", lambda row: short(row["incident_id"])),
    ("condition", lambda row: row["condition"]),
    ("reason", lambda row: row["reason"]),
    ("onset", lambda row: text_of(row["onset_step"])),
    ("opened", lambda row: text_of(row["opened_step"])),
    ("resolved", lambda row: text_of(row["resolved_step"]) if row["resolved_at"] else "open"),
    ("outcome", lambda row: row["outcome"] or "–"),
    ("steps lost", lambda row: text_of(row["steps_lost"])),
]

ATTEMPT_COLUMNS: list[Column] = [
    ("attempt", lambda row: text_of(row["attempt"])),
    ("reason", lambda row: row["reason"]),
    ("first step", lambda row: text_of(row["first_step"])),
    ("ranks", lambda row: text_of(row["world_size"])),
    ("started", lambda row: clock(row["started_at"])),
]

RANK_COLUMNS: list[Column] = [
    ("rank", lambda row: text_of(row["rank"])),
    ("attempt", lambda row: text_of(row["attempt"])),
    ("last step", lambda row: text_of(row["last_step"])),
    ("last heard", lambda row: clock(row["last_at"])),
]

METRIC_COLUMNS: list[Column] = [
    ("metric (rank 0)", lambda row: row["metric"]),
    ("last value", lambda row: number(row["value"])),
    ("at step", lambda row: text_of(row["step"])),
]

SECTIONS = (
    ("conditions", CONDITION_COLUMNS),
    ("incident_list", INCIDENT_COLUMNS),
    ("attempt_list", ATTEMPT_COLUMNS),
    ("ranks", RANK_COLUMNS),
    ("metrics", METRIC_COLUMNS),
)


def show_sections(console: Console, run: Row) -> None:
    """The page of one run."""
    console.print(table([run], RUN_COLUMNS[:7]))
    facts = {"model": run["model"], "code": run["code_version"], "tags": run["tags"]}
    for name, value in facts.items():
        if value and value not in ("{}", "null"):
            console.print(f"{name}: {value}", markup=False)
    console.print(f"started {clock(run['started_at'])}, last heard of {clock(run['last_at'])}", markup=False)
    for name, columns in SECTIONS:
        if run[name]:
            console.print()
            console.print(table(run[name], columns))


def _fields(body: str) -> Mapping[str, Any]:
    loaded = json.loads(body or "{}")
    return loaded if isinstance(loaded, dict) else {}
