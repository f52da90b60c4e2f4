"""What reports ask of the archive beside `storage.queries`: curves, spans, machines; several runs and all of them.

The same shape: dicts in the columns' order, times int microseconds UTC, absent values None. The SQL is in
`queries/report.sql`. Called by `control_room.report`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..events.errors import QueryRefused
from .connect import UNKNOWN_TABLE
from .curves import curves
from .named import Row, ask

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

RUNS_TO_COMPARE = 5_000
"""Of the latest so many runs the likest are looked for, and a fleet's week is told of so many at most."""


def curves_of(client: "Client", run_id: str, metrics: Sequence[str], points: int = 400) -> list[Row]:
    """Metrics over steps in about `points` intervals for each attempt: mean, least and greatest of the finite values of
    all ranks, and when each interval began."""
    return curves(client, run_id, metrics, points) if metrics else []


def attempt_spans(client: "Client", run_id: str) -> list[Row]:
    """From when to when each attempt was heard of."""
    return ask(client, "attempt_spans", run=run_id)


def undone_steps(client: "Client", run_id: str, metric: str) -> list[Row]:
    """What each attempt did that the next one did again."""
    return ask(client, "undone_steps", run=run_id, metric=metric)


def margin_course(client: "Client", run_id: str, points: int = 400) -> list[Row]:
    """How the run stood over time, by the least margin of each interval."""
    return ask(client, "margin_course", run=run_id, points=max(1, points))


def resource_summary(client: "Client", run_id: str) -> list[Row]:
    """Each number that was sampled of the machines: mean, least, greatest."""
    return ask(client, "resource_summary", run=run_id)


def resource_totals(client: "Client", run_id: str) -> dict[str, float]:
    """`energy_kwh` and `gpu_count` of all processes together, where they were told."""
    return {row["name"]: row["total"] for row in ask(client, "resource_totals", run=run_id)}


def resource_course(client: "Client", run_id: str, names: Sequence[str], points: int = 200) -> list[Row]:
    """Those numbers over time."""
    return ask(client, "resource_course", run=run_id, names=list(names), points=max(1, points)) if names else []


def metric_means(client: "Client", run_id: str, metrics: Sequence[str]) -> dict[str, Row]:
    """By metric: the mean and the sum of its finite values, over ranks and steps, undone ones too."""
    rows = ask(client, "metric_means", run=run_id, metrics=list(metrics)) if metrics else []
    return {row["metric"]: row for row in rows}


def profile_ends(client: "Client", run_id: str) -> list[Row]:
    """Each profiled input: its first and its last profile."""
    return ask(client, "profile_ends", run=run_id)


def run_descriptions(client: "Client", *, run: str = "", limit: int = RUNS_TO_COMPARE) -> list[Row]:
    """The latest runs, or this one, with their configuration as JSON, last heard of first."""
    return ask(client, "run_descriptions", run=run, limit=limit)


def incidents_of_runs(client: "Client", runs: Sequence[str] = (), *, since: int = 0, limit: int = 10_000) -> list[Row]:
    """Incidents of these runs, or of all, the latest first. `tried` lists (place, rule, action, state, verification) of
    what was done in each."""
    return ask(client, "incidents_of_runs", runs=list(runs), since=since, limit=limit)


def phase_shares(client: "Client", run_id: str) -> list[Row]:
    """How long the run was in each phase, the longest first."""
    return ask(client, "phase_shares", run=run_id)


def regimes_of(client: "Client", run_id: str) -> list[Row]:
    """How long the run was in each phase under each regime of training, by the archive's stored bounds."""
    return ask(client, "regimes", run=run_id)


def fleet_runs(client: "Client", since: int, until: int, limit: int = RUNS_TO_COMPARE) -> list[Row]:
    """Whole runs (view `run_overview`) that were last heard of in this time, the latest first."""
    return ask(client, "fleet_runs", since=since, until=until, limit=limit)


def service_levels(client: "Client") -> list[Row]:
    """How the service levels of the archive's `slo.yaml` stand now, with burn rates over a day and a week; empty where
    none are in force."""
    try:
        return ask(client, "service_levels")
    except QueryRefused as refusal:
        if refusal.code == UNKNOWN_TABLE:
            return []
        raise
