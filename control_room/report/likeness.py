"""The runs and incidents of the past that are most like one, and what was done then. Pure.

Runs are compared by what they were told (Gower's distance, Biometrics 27, 1971: numbers by their ratio, names by
equality, over what at least one of them has) and by what happened to them (signatures of incidents). Incidents are
alike by their signature, then by how like their runs are. Called by `pilothouse similar`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .figures import flat

Row = Mapping[str, Any]
WEIGHTS = {"model": 3.0, "model_family": 3.0, "dataset": 3.0, "world_size": 2.0, "code_version": 1.0, "cluster": 1.0}
"""Heads of a run weigh more than one name of its configuration."""
IMPORTANT = ("lr", "learning_rate", "batch_size", "optimizer", "precision", "width", "layers", "hidden_size", "seq_len")
IMPORTANT_WEIGHT = 2.0
DECADE = 10.0
"""Numbers that differ by this factor are as different as can be."""
OF_SIGNATURES = 0.3
"""How much of the likeness is what happened; the rest is what was told."""


def likeness(run_id: str, described: Sequence[Row], incidents: Sequence[Row], most: int) -> dict[str, Any]:
    """The runs nearest to this one, and the incidents nearest to each of its own, at most so many each."""
    told = {row["run_id"]: _told(row) for row in described}
    marked: dict[str, set[str]] = {}
    for row in incidents:
        marked.setdefault(row["run_id"], set()).add(row["signature"])
    own = told[run_id]
    distances = {other: distance(own, told[other]) for other in told if other != run_id}
    runs = [
        _near(row, own, told[row["run_id"]], _alike(distances[row["run_id"]], marked, run_id, row["run_id"]), marked)
        for row in described
        if row["run_id"] != run_id
    ]
    runs.sort(key=lambda row: (-row["likeness"], -row["last_at"], row["run_id"]))
    mine = [row for row in incidents if row["run_id"] == run_id]
    return {
        "run_id": run_id,
        "looked_at": len(described) - 1,
        "runs": runs[:most],
        "incidents": [_past(row, incidents, distances, most) for row in mine],
    }


def distance(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> float:
    """From 0 (told the same) to 1 (nothing alike)."""
    total = apart = 0.0
    for name in {**ours, **theirs}:
        weight = _weight(name)
        total += weight
        apart += weight * _apart(ours.get(name), theirs.get(name))
    return apart / total if total else 1.0


def _told(row: Row) -> dict[str, Any]:
    try:
        config = json.loads(row["config"] or "{}")
    except ValueError:
        config = {}
    heads = {f"run.{name}": row[name] for name in WEIGHTS if row[name]}
    return heads | {
        name: value
        for name, value in flat(config).items()
        if "seed" not in name.lower() and row["run_id"] not in str(value)
    }


def _weight(name: str) -> float:
    if name.startswith("run."):
        return WEIGHTS.get(name.removeprefix("run."), 1.0)
    return IMPORTANT_WEIGHT if name.rpartition(".")[2] in IMPORTANT else 1.0


def _apart(ours: Any, theirs: Any) -> float:
    if ours == theirs:
        return 0.0
    numbers = [value for value in (ours, theirs) if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == 2 and min(numbers) > 0 and all(math.isfinite(float(value)) for value in numbers):
        return min(1.0, math.log(max(numbers) / min(numbers)) / math.log(DECADE))
    return 1.0


def _alike(far: float, marked: Mapping[str, set[str]], ours: str, theirs: str) -> float:
    """Configuration and signatures as one figure, 1 for the same; where neither run had an incident, that is alike."""
    left, right = marked.get(ours, set()), marked.get(theirs, set())
    either = left | right
    happened = len(left & right) / len(either) if either else 1.0
    return (1 - OF_SIGNATURES) * (1 - far) + OF_SIGNATURES * happened


def _near(
    row: Row, own: Mapping[str, Any], told: Mapping[str, Any], alike: float, marked: Mapping[str, set[str]]
) -> dict[str, Any]:
    differs = sorted(name for name in {**own, **told} if own.get(name) != told.get(name))
    heads = (
        "run_id",
        "model",
        "outcome",
        "phase",
        "stability_score",
        "last_step",
        "incidents",
        "started_at",
        "last_at",
    )
    return {
        **{name: row[name] for name in heads},
        "likeness": alike,
        "signatures": sorted(marked.get(row["run_id"], ())),
        "differs_in": [{"name": name, "ours": own.get(name), "theirs": told.get(name)} for name in differs],
    }


def _past(incident: Row, incidents: Sequence[Row], distances: Mapping[str, float], most: int) -> dict[str, Any]:
    """The same signature first, then the same condition; of those the nearest runs, then the latest."""
    others = [row for row in incidents if row["run_id"] in distances and row["condition"] == incident["condition"]]
    others.sort(
        key=lambda row: (row["signature"] != incident["signature"], distances[row["run_id"]], -(row["opened_at"] or 0))
    )
    same = [row for row in others if row["signature"] == incident["signature"]]
    return {
        "incident_id": incident["incident_id"],
        "signature": incident["signature"],
        "onset_step": incident["onset_step"],
        "outcome": incident["outcome"] or "open",
        "tried": [_tried(one) for one in incident["tried"]],
        "seen_before": len(same),
        "worked": _worked(same),
        "nearest": [
            {
                "run_id": row["run_id"],
                "signature": row["signature"],
                "onset_step": row["onset_step"],
                "opened_at": row["opened_at"],
                "outcome": row["outcome"] or "open",
                "steps_lost": row["steps_lost"],
                "recovery_s": row["recovery_s"],
                "run_likeness": 1 - distances[row["run_id"]],
                "tried": [_tried(one) for one in row["tried"]],
            }
            for row in others[:most]
        ],
    }


def _tried(one: Sequence[Any]) -> dict[str, str]:
    _, rule, action, state, verification = one
    return {"rule": rule, "action": action, "state": state, "verification": verification}


def _worked(same: Sequence[Row]) -> list[dict[str, Any]]:
    """By action: how often it was applied in such incidents, and how often it was verified to have helped."""
    counts: dict[str, list[int]] = {}
    for row in same:
        for one in map(_tried, row["tried"]):
            if one["state"] in ("applied", "verified"):
                count = counts.setdefault(one["action"], [0, 0])
                count[0] += 1
                count[1] += one["verification"] == "recovered"
    rows = [{"action": action, "applied": applied, "helped": helped} for action, (applied, helped) in counts.items()]
    return sorted(rows, key=lambda row: (-row["helped"], row["applied"], row["action"]))
