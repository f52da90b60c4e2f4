"""All that the archive holds of one run for its report: read once, here; what is made of it is pure.

Called by the commands `report`, `compare` and `similar`; it calls `storage`. A run of a million steps gives some
thousand rows.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...events.metric_names import GRAD_NAMES, LOSS_NAMES, LR_NAMES, TOLD
from ...storage import queries, report_queries

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

Row = dict[str, Any]
Seen = Callable[[str, float, float | None], None]
"""Told what is being read, how far, and how far it goes."""

TOLD_KINDS = (
    "run_started",
    "run_ended",
    "sample_recorded",
    "annotated",
    "operator_command",
    "policy_activated",
    "telemetry_gap",
    "checkpoint_restored",
    "data_window_skipped",
    "recipe_changed",
    "pipeline_reported",
    "condition_changed",
    "stage_changed",
    "intervention_approved",
    "intervention_declined",
)
MOST_EVENTS = 5_000
LOG_LINES = 40
WARNING = 30
COURSE_NAMES = (
    "gpu_util",
    "gpu_memory_bytes",
    "gpu_power_w",
    "host_cpu_util",
    "host_memory_bytes",
    "process_memory_bytes",
)
TOKENS = ("tokens", "num_tokens", "n_tokens", "train/tokens")
"""Tokens of this row."""
TOKENS_SEEN = ("tokens_seen", "num_input_tokens_seen", "total_tokens", "train/tokens_seen", "consumed_tokens")
"""Tokens since the run began."""
OTHER_CURVES = 8


@dataclass(frozen=True)
class Told:
    """An event, with its body as plain data."""

    kind: str
    event_id: str
    attempt_id: str
    attempt: int
    rank: int | None
    step: int | None
    at: int
    body: Row


@dataclass(frozen=True)
class Material:
    """What was read. `names` says under which names the loss and the like were logged; absent: they were not."""

    run: Row
    told: tuple[Told, ...] = ()
    spans: tuple[Row, ...] = ()
    phases: tuple[Row, ...] = ()
    course: tuple[Row, ...] = ()
    names: dict[str, str] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    curves: tuple[Row, ...] = ()
    evals: tuple[Row, ...] = ()
    checkpoints: tuple[Row, ...] = ()
    incidents: tuple[Row, ...] = ()
    interventions: tuple[Row, ...] = ()
    undone: tuple[Row, ...] = ()
    phase_shares: tuple[Row, ...] = ()
    regimes: tuple[Row, ...] = ()
    means: dict[str, Row] = field(default_factory=dict)
    resources: tuple[Row, ...] = ()
    resource_totals: dict[str, float] = field(default_factory=dict)
    resource_course: tuple[Row, ...] = ()
    profiles: tuple[Row, ...] = ()
    log_lines: tuple[Row, ...] = ()
    dropped_lines: dict[str, int] = field(default_factory=dict)

    @property
    def run_id(self) -> str:
        return str(self.run["run_id"])

    def of(self, *kinds: str) -> list[Told]:
        """The events of these kinds, oldest first."""
        return [told for told in self.told if told.kind in kinds]


def read_material(client: "Client", run_id: str, seen: Seen) -> Material:
    """
    Raises:
        UnknownRun: there is no such run.
        QueryRefused: the archive cannot answer.
    """
    reading = f"reading {run_id}"
    seen(reading, 0, 4)
    run = queries.show_run(client, run_id)
    metrics = tuple(row["metric"] for row in queries.metrics_of(client, run_id))
    names = names_in(metrics)
    incidents = tuple(report_queries.incidents_of_runs(client, [run_id]))[::-1]
    seen(reading, 1, 4)
    curves = report_queries.curves_of(client, run_id, drawn(metrics, names))
    seen(reading, 2, 4)
    told = tuple(map(told_of, queries.events_of(client, run_id, kinds=TOLD_KINDS, limit=MOST_EVENTS)))
    resources = tuple(report_queries.resource_summary(client, run_id))
    sampled = [row["name"] for row in resources]
    seen(reading, 3, 4)
    return Material(
        run=run,
        told=told,
        spans=tuple(report_queries.attempt_spans(client, run_id)),
        phases=tuple(queries.phases_of(client, run_id)),
        course=tuple(report_queries.margin_course(client, run_id)),
        names=names,
        metrics=metrics,
        curves=tuple(curves),
        evals=tuple(queries.evals_of(client, run_id)),
        checkpoints=tuple(queries.checkpoints_of(client, run_id)),
        incidents=incidents,
        interventions=tuple(queries.interventions_of(client, run_id)),
        undone=tuple(report_queries.undone_steps(client, run_id, names["loss"])) if "loss" in names else (),
        phase_shares=tuple(report_queries.phase_shares(client, run_id)),
        regimes=tuple(report_queries.regimes_of(client, run_id)),
        means=report_queries.metric_means(client, run_id, list(names.values())),
        resources=resources,
        resource_totals=report_queries.resource_totals(client, run_id),
        resource_course=tuple(
            report_queries.resource_course(client, run_id, [name for name in COURSE_NAMES if name in sampled])
        ),
        profiles=tuple(report_queries.profile_ends(client, run_id)),
        log_lines=tuple(queries.log_lines_of(client, run_id, least_severity=WARNING, limit=LOG_LINES)),
        dropped_lines=queries.dropped_log_lines_of(client, run_id),
    )


def told_of(row: Row) -> Told:
    """An event's row, its body read."""
    body = json.loads(row["body"])
    heads = ("kind", "event_id", "attempt_id", "attempt", "rank", "step", "at")
    return Told(**{name: row[name] for name in heads}, body=body if isinstance(body, dict) else {})


def names_in(metrics: Sequence[str]) -> dict[str, str]:
    """Under which of its possible names each number was logged."""
    wanted = {"loss": LOSS_NAMES, "grad_norm": GRAD_NAMES, **TOLD, "lr": LR_NAMES}
    wanted |= {"tokens": TOKENS, "tokens_seen": TOKENS_SEEN}
    found = {name: next((each for each in possible if each in metrics), "") for name, possible in wanted.items()}
    if not found["loss"]:
        found["loss"] = next((each for each in metrics if each.rpartition("/")[2].endswith("loss")), "")
    return {name: metric for name, metric in found.items() if metric}


def drawn(metrics: Sequence[str], names: dict[str, str]) -> list[str]:
    """The metrics that a report draws: the known ones, and a few others."""
    known = list(dict.fromkeys(names.values()))
    return known + [metric for metric in metrics if metric not in known][:OTHER_CURVES]
