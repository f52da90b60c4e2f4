"""The overview of a whole run, as data: what `pilothouse report RUN --json` prints and `run_page` lays out. Pure.

What is not known is None or empty, and `missing` says for each what would tell it.
"""

from collections.abc import Iterator
from typing import Any

from .candidates import judged_by, ranked
from .effort import Effort, effort_of
from .figures import flat
from .incident_story import incidents_of
from .material import Material, Row, Told
from .samples import samples_among

PARTS_OF_A_STEP = {"data_wait_s": "waiting for data", "compute_s": "compute", "comm_s": "communication"}
SHOWN = (
    *("run_id", "model", "model_family", "dataset", "dataset_version", "cluster", "team", "code_version", "world_size"),
    *("phase", "margin", "stability_score", "last_step", "outcome", "attempts", "interventions", "incidents"),
    *("open_incidents", "started_at", "last_at"),
)


def overview(material: Material) -> Row:
    """Everything that is known of the run, worked out."""
    starts = starts_of(material)
    effort = effort_of(material.spans, starts, material.phases, material.undone)
    whole: Row = {
        "run": {name: material.run[name] for name in SHOWN},
        "configuration": _configuration(material, starts),
        "attempts": _attempts(material, starts),
        "effort": _effort(material, effort),
        "stability": _stability(material),
        "curves": _curves(material),
        "evaluations": _evaluations(material),
        "step_time": _step_time(material),
        "resources": [dict(row) for row in material.resources],
        "checkpoints": ranked(material),
        "incidents": incidents_of(material, effort),
        "interventions": [dict(row) for row in material.interventions],
        "data_profiles": [dict(row) for row in material.profiles],
        "samples": samples_among(material.told),
        "notes": _notes(material),
        "orders": [_said(told) for told in material.of("operator_command")],
        "pipeline": [_said(told) for told in material.of("pipeline_reported")],
        "errors": [_said(told) for told in material.of("run_ended") if told.body.get("error")],
        "log_lines": [dict(row) for row in material.log_lines],
        "log_lines_dropped": material.dropped_lines,
        "telemetry_dropped": _dropped(material),
    }
    return whole | {"missing": [{"what": what, "remedy": remedy} for what, remedy in _missing(whole, material)]}


def starts_of(material: Material) -> dict[str, Row]:
    """The announcement of each attempt: the last word counts."""
    return {told.attempt_id: told.body for told in material.of("run_started")}


def _configuration(material: Material, starts: dict[str, Row]) -> Row:
    last = starts.get(material.run["attempt_id"], {})
    environment = last.get("environment") or {}
    policies = material.of("policy_activated")
    return {
        "config": flat(last.get("config") or {}),
        "config_changes": _config_changes(starts),
        "tags": last.get("tags") or {},
        "links": last.get("links") or {},
        "code_version": last.get("code_version") or "",
        "code_dirty": any(row["code_dirty"] for row in material.run["attempt_list"]),
        "environment": flat(environment),
        "steers": list(last.get("steers") or ()),
        "cost_per_hour": last.get("cost_per_hour"),
        "policies": [
            {"name": told.body.get("name"), "policy_hash": told.body.get("policy_hash"), "at": told.at}
            for told in policies
        ],
        "recipe_changes": [_said(told) for told in material.of("recipe_changed")],
    }


def _config_changes(starts: dict[str, Row]) -> list[Row]:
    """What later attempts have otherwise than the one before."""
    found = []
    before: Row | None = None
    for start in starts.values():
        now = flat(start.get("config") or {})
        if before is not None and now:
            names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
            found += [
                {"attempt": start.get("attempt"), "name": name, "was": before.get(name), "now": now.get(name)}
                for name in names
            ]
        before = now or before
    return found


def _attempts(material: Material, starts: dict[str, Row]) -> list[Row]:
    spans = {row["attempt_id"]: row for row in material.spans}
    undone = {row["undone_attempt_id"]: row["steps"] for row in material.undone}
    ended = {told.attempt_id: told.body.get("outcome") for told in material.of("run_ended")}
    return [
        {
            "attempt": row["attempt"],
            "attempt_id": row["attempt_id"],
            "reason": row["reason"],
            "first_step": row["first_step"],
            "last_step": spans.get(row["attempt_id"], {}).get("last_step"),
            "world_size": row["world_size"],
            "code_version": row["code_version"],
            "started_at": row["started_at"],
            "last_at": spans.get(row["attempt_id"], {}).get("last_at"),
            "steps_undone": undone.get(row["attempt_id"], 0),
            "outcome": ended.get(row["attempt_id"]),
            "world_size_told": bool(starts.get(row["attempt_id"])),
        }
        for row in material.run["attempt_list"]
    ]


def _effort(material: Material, effort: Effort) -> Row:
    tokens = material.means.get(material.names.get("tokens", ""), {}).get("total")
    return {
        "has_gpus": effort.has_gpus,
        "wall_s": effort.wall_s,
        "attempts_s": effort.attempts_s,
        "between_attempts_s": effort.between_attempts_s,
        "device_hours": effort.device_hours,
        "wasted_device_hours": effort.wasted_device_hours,
        "wasted_share": effort.wasted_share,
        "wasted_s": effort.wasted_s,
        "wasted_by": effort.wasted_by,
        "steps_undone": effort.steps_undone,
        "cost": effort.cost,
        "wasted_cost": effort.wasted_cost,
        "energy_kwh": material.resource_totals.get("energy_kwh"),
        "gpu_count": material.resource_totals.get("gpu_count"),
        "tokens": tokens,
        "tokens_per_s": tokens / effort.attempts_s if tokens and effort.attempts_s else None,
    }


def _stability(material: Material) -> Row:
    return {
        "stability_score": material.run["stability_score"],
        "phase": material.run["phase"],
        "margin": material.run["margin"],
        "time_in_phase": [dict(row) for row in material.phase_shares],
        "regimes": [dict(row) for row in material.regimes],
        "course": [dict(row) for row in material.course],
        "phases": [dict(row) for row in material.phases],
        "conditions": [dict(row) for row in material.run["conditions"]],
        "condition_changes": [_said(told) for told in material.of("condition_changed")],
    }


def _curves(material: Material) -> Row:
    """By metric, its intervals; under `names` what the known ones are."""
    metrics: dict[str, list[Row]] = {}
    for row in material.curves:
        metrics.setdefault(row["metric"], []).append({name: row[name] for name in row if name != "metric"})
    return {"names": material.names, "all_metrics": list(material.metrics), "metrics": metrics}


def _evaluations(material: Material) -> Row:
    judged = judged_by(material.evals)
    return {
        "judged_by": judged._asdict() if judged else None,
        "values": [
            {name: row[name] for name in ("attempt", "step", "at", "split", "metric", "value")}
            for row in material.evals
        ],
    }


def _step_time(material: Material) -> Row:
    """Mean seconds of the parts of a step; `step_s` where it was logged, else their sum."""
    parts = {
        name: material.means[metric]["mean"]
        for name, metric in material.names.items()
        if name in PARTS_OF_A_STEP and metric in material.means
    }
    logged = material.means.get(material.names.get("step_s", ""), {}).get("mean")
    throughput = material.means.get(material.names.get("throughput", ""), {}).get("mean")
    return {"parts": parts, "step_s": logged or sum(parts.values()) or None, "throughput": throughput}


def _notes(material: Material) -> list[Row]:
    samples = {told.event_id for told in material.of("sample_recorded")}
    return [_said(told) for told in material.of("annotated") if told.body.get("about") not in samples]


def _said(told: Told) -> Row:
    """An event for a reader, without what only programs need."""
    hidden = (
        "kind",
        "run_id",
        "writer_id",
        "seq",
        "attempt_id",
        "attempt",
        "decision_id",
        "basis",
        "policy_hash",
        "at",
    )
    rest = {name: value for name, value in told.body.items() if name not in (*hidden, "rank", "step")}
    return {"at": told.at, "step": told.step, "rank": told.rank, **rest}


def _dropped(material: Material) -> dict[str, int]:
    counts: dict[str, int] = {}
    for told in material.of("telemetry_gap"):
        for reason, count in (told.body.get("dropped") or {}).items():
            counts[reason] = counts.get(reason, 0) + int(count)
    return counts


def _missing(whole: Row, material: Material) -> Iterator[tuple[str, str]]:
    """What a reader may look for and not find, and what would tell it."""
    names: dict[str, Any] = material.names
    told: dict[str, tuple[bool, str]] = {
        "Configuration": (bool(whole["configuration"]["config"]), "give start_run(config=...)"),
        "Code version": (bool(whole["configuration"]["code_version"]), "run from a git checkout, or give code_version"),
        "Data version": (bool(material.run["dataset_version"]), "give start_run(dataset=..., dataset_version=...)"),
        "Training loss": ("loss" in names, "log it: run.log(step, loss=...)"),
        "Learning rate": ("lr" in names, "log it: run.log(step, lr=...)"),
        "Gradient norm": ("grad_norm" in names, "log it: run.log(step, grad_norm=...)"),
        "Evaluations": (bool(material.evals), "report them: run.evaluated(step, loss=...)"),
        "Checkpoints": (bool(material.checkpoints), "save them with pilothouse.Checkpoints"),
        "Where the time of a step goes": (bool(whole["step_time"]["parts"]), "iterate over run.timed(loader)"),
        "GPU utilisation and energy": (
            "energy_kwh" in material.resource_totals,
            "install pilothouse[nvidia] where the GPUs are; without GPUs there is none",
        ),
        "Machines": (bool(material.resources), "set PILOTHOUSE_RESOURCES_SECONDS above 0"),
        "Cost": (whole["effort"]["cost"] is not None, "give start_run(cost_per_hour=...)"),
        "Data profiles": (bool(material.profiles), "call run.profile(...) on the inputs that matter"),
        "Sample outputs": (
            bool(whole["samples"]),
            "record them: run.tell(SampleRecorded, step=..., name=..., prompt=..., output=...)",
        ),
        "Stability": (material.run["stability_score"] is not None, "the run was never judged: was a governor running?"),
    }
    for what, (known, remedy) in told.items():
        if not known:
            yield what, remedy
