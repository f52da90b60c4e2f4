"""The columns of each table, and the page of one run. Rendering only: rows come from `storage.queries`.

Used by `query_commands`.
"""

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from ..events.event_words import action, number, numbers, short, text_of
from ..events.plain_text import printable
from .rendering import Column, Row, clock, table

RUN_COLUMNS: list[Column] = [
    ("run", lambda row: row["run_id"]),
    ("phase", lambda row: row["phase"]),
    ("margin", lambda row: number(row["margin"], 3)),
    ("stability", lambda row: number(row["stability_score"], 3)),
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

LOG_COLUMNS: list[Column] = [
    ("time", lambda row: clock(row["at"])),
    ("attempt", lambda row: text_of(row["attempt"])),
    ("rank", lambda row: text_of(row["rank"])),
    ("step", lambda row: text_of(row["step"])),
    ("level", lambda row: row["level"]),
    ("logger", lambda row: printable(row["logger"])),
    ("text", lambda row: "\n".join(map(printable, row["text"].splitlines()))),
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
    console.print(table([run], RUN_COLUMNS[:8]))
    facts = {
        "model": " ".join(filter(None, (run["model"], run["model_family"] and f"({run['model_family']})"))),
        "code": run["code_version"] + (" with uncommitted changes" if is_dirty(run) else ""),
        "data": " ".join(filter(None, (run["dataset"], run["dataset_version"]))),
        "cluster": run["cluster"],
        "team": run["team"],
        "on": machine(_fields(run["environment"])),
        "tags": run["tags"],
    }
    for name, value in facts.items():
        if value and value not in ("{}", "null"):
            console.print(f"{name}: {value}", markup=False)
    console.print(f"started {clock(run['started_at'])}, last heard of {clock(run['last_at'])}", markup=False)
    for name, columns in SECTIONS:
        if run[name]:
            console.print()
            console.print(table(run[name], columns))


def is_dirty(run: Row) -> bool:
    """Whether the code that ran differs from its commit, as far as is known."""
    git = _fields(run["environment"]).get("git")
    return isinstance(git, dict) and git.get("dirty") is True


def machine(environment: Mapping[str, Any]) -> str:
    """Where a run runs, in a few words: `node7, 8 × NVIDIA H100, Python 3.11.7, torch 2.13.0`."""
    gpus, packages = environment.get("gpus") or {}, environment.get("packages") or {}
    words = [str(environment.get("host", ""))]
    if gpus:
        words.append(f"{gpus.get('count')} × {', '.join(gpus.get('models', ()))}")
    if "python" in environment:
        words.append(f"Python {environment['python']}")
    words += [f"{name} {packages[name]}" for name in ("torch", "jax", "tensorflow") if name in packages]
    return ", ".join(filter(None, words))


def _fields(body: str) -> Mapping[str, Any]:
    loaded = json.loads(body or "{}")
    return loaded if isinstance(loaded, dict) else {}
