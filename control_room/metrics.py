"""What Prometheus is told of the fleet, of the archive, and of the workers on this host. Pure: rows in, families out.

Answered at `/metrics` by `web.exposing`. Runs that have ended are told for a day, so that the series of a year of runs
do not pile up. Names end in their unit; times are seconds.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

Row = Mapping[str, Any]
OF_RUN = ("run", "model", "team", "cluster", "dataset")
TICKETS = ("Efficient", "Generalizing", "InDistribution")
"""Conditions of which nobody is woken, where no rule has said otherwise."""


class Told(NamedTuple):
    """What was read: rows of `run_overview` with `cost` and `phase`, open incidents, proposals that wait, how far the
    archive is behind, service levels, the workers' last words with whether they are `live` and `ready`, and the hosts
    of runs.
    """

    runs: Sequence[Row]
    incidents: Sequence[Row]
    waiting: Sequence[Row]
    ingest: Sequence[Row]
    levels: Sequence[Row]
    workers: Sequence[Row]
    now: int
    """Microseconds UTC."""
    hosts: Sequence[Row] = ()
    budgets: Sequence[Row] = ()
    """What runs may cost by their own tags: `cost` and `rank_hours`, None where a run says nothing."""


def families(told: Told) -> Iterator[Metric]:
    """Everything that is known."""
    yield from _of_runs(told.runs, told.now)
    yield _hosts(told.runs, told.hosts)
    yield from _budgets(told.runs, told.budgets)
    yield _open_incidents(told)
    yield from _of_archive(told)
    yield from _of_levels(told.levels)
    yield from _of_workers(told.workers, told.now)


def _of_runs(runs: Sequence[Row], now: int) -> Iterator[Metric]:
    phase = GaugeMetricFamily("pilothouse_run_phase", "1 for the phase in which the run is", labels=[*OF_RUN, "phase"])
    for run in runs:
        phase.add_metric([*_names(run), run["phase"] or "Unknown"], 1)
    yield phase
    for name, words, key in (
        ("margin_ratio", "Stability margin: 1 at the run's own baseline, 0 at the threshold", "margin"),
        ("score", "Stability of the whole run so far, 0 to 100", "stability_score"),
        ("step", "The last step of the latest attempt", "last_step"),
        ("world_size", "Ranks of the latest attempt", "world_size"),
        ("gpu_utilisation_ratio", "Mean use of its devices, 0 to 1", "gpu_util"),
    ):
        yield _gauge(f"pilothouse_run_{name}", words, runs, key)
    heard = GaugeMetricFamily("pilothouse_run_heard_seconds", "Seconds since the run was last heard of", labels=OF_RUN)
    for run in runs:
        heard.add_metric(_names(run), max(0.0, (now - run["last_at"]) / 1e6))
    yield heard
    for name, words, key in (
        ("attempts", "Attempts begun", "attempts"),
        ("incidents", "Incidents opened", "incidents"),
        ("interventions", "Interventions sent", "interventions_issued"),
        ("interventions_in_vain", "Interventions that were ineffective or reverted", "interventions_in_vain"),
        ("steps_lost", "Steps that were undone", "steps_lost"),
        ("rank_hours", "Ranks times hours", "rank_hours"),
        ("wasted_rank_hours", "Rank-hours of steps undone and of stalls", "wasted_rank_hours"),
        ("cost", "What it cost so far, in the currency of its cost_per_hour", "cost"),
    ):
        yield _counter(f"pilothouse_run_{name}", words, runs, key)


def _hosts(runs: Sequence[Row], hosts: Sequence[Row]) -> Metric:
    """What joins the figures of exporters on a host to the runs that go on there."""
    labels = [*OF_RUN, "host"]
    family = GaugeMetricFamily("pilothouse_run_host_info", "1 for each host on which the run is", labels=labels)
    going_on = {run["run_id"]: run for run in runs if run["phase"] != "Ended"}
    for row in hosts:
        if (run := going_on.get(row["run_id"])) is not None:
            family.add_metric([*_names(run), row["host"]], 1)
    return family


def _budgets(runs: Sequence[Row], budgets: Sequence[Row]) -> Iterator[Metric]:
    """What a run may cost, labelled as its costs are, so that the two are compared."""
    known = {run["run_id"]: run for run in runs}
    for name, words in (("cost", "What it may cost"), ("rank_hours", "How many rank-hours it may take")):
        family = GaugeMetricFamily(f"pilothouse_run_budget_{name}", f"{words}, by its own tag", labels=OF_RUN)
        for row in budgets:
            if row["run_id"] in known and row[name] is not None:
                family.add_metric(_names(known[row["run_id"]]), float(row[name]))
        yield family


def _names(run: Row) -> list[str]:
    return [run["run_id"], run["model"], run["team"], run["cluster"], run["dataset"]]


def _gauge(name: str, words: str, runs: Sequence[Row], key: str) -> Metric:
    family = GaugeMetricFamily(name, words, labels=OF_RUN)
    for run in runs:
        if run[key] is not None:
            family.add_metric(_names(run), float(run[key]))
    return family


def _counter(name: str, words: str, runs: Sequence[Row], key: str) -> Metric:
    family = CounterMetricFamily(name, words, labels=OF_RUN)
    for run in runs:
        if run[key] is not None:
            family.add_metric(_names(run), float(run[key]))
    return family


def _open_incidents(told: Told) -> Metric:
    """One series for each cause of each run: what alerts are made of, and deduplicated by."""
    labels = [*OF_RUN, "condition", "reason", "severity"]
    family = GaugeMetricFamily("pilothouse_incident_open_seconds", "For how long an incident is open", labels=labels)
    known = {run["run_id"]: run for run in told.runs}
    oldest: dict[tuple[str, ...], float] = {}
    for row in told.incidents:
        if (run := known.get(row["run_id"])) is None:
            continue
        key = (*_names(run), row["condition"], row["reason"], severity_of(row))
        oldest[key] = max(oldest.get(key, 0.0), (told.now - row["opened_at"]) / 1e6)
    for key, seconds in oldest.items():
        family.add_metric(list(key), max(0.0, seconds))
    return family


def severity_of(incident: Row) -> str:
    """As the rules said that answered it; where none did, by its condition."""
    if incident["severities"]:
        return "page" if "page" in incident["severities"] else "ticket"
    return "ticket" if incident["condition"] in TICKETS else "page"


def _of_archive(told: Told) -> Iterator[Metric]:
    waits = GaugeMetricFamily("pilothouse_proposals_waiting", "Proposals that nobody has answered", labels=["run"])
    runs = [row["run_id"] for row in told.waiting]
    for run in dict.fromkeys(runs):
        waits.add_metric([run], runs.count(run))
    yield waits
    lag = GaugeMetricFamily(
        "pilothouse_archive_behind_seconds", "How far the archive is behind the log", labels=["topic", "partition"]
    )
    for row in told.ingest:
        if row["behind_s"] is not None:
            lag.add_metric([row["topic"], str(row["log_partition"])], float(row["behind_s"]))
    yield lag


def _of_levels(levels: Sequence[Row]) -> Iterator[Metric]:
    for name, words, key in (
        ("value", "The figure, in the unit of its formula", "value"),
        ("budget_left_ratio", "Share of the error budget that is left", "budget_left"),
        ("burn_day", "How many times as fast as it allows the budget was spent in a day", "burn_day"),
        ("burn_week", "The same in a week", "burn_week"),
    ):
        family = GaugeMetricFamily(f"pilothouse_slo_{name}", words, labels=["id", "name"])
        for row in levels:
            if row[key] is not None:
                family.add_metric([row["id"], row["name"]], float(row[key]))
        yield family


def _of_workers(workers: Sequence[Row], now: int) -> Iterator[Metric]:
    names = ["worker", "slot"]
    live = GaugeMetricFamily("pilothouse_worker_live", "1: it says that it lives", labels=names)
    ready = GaugeMetricFamily("pilothouse_worker_ready", "1: it does its work", labels=names)
    told = GaugeMetricFamily("pilothouse_worker_told_seconds", "Seconds since its last word", labels=names)
    records = CounterMetricFamily("pilothouse_worker_records", "Records it has read", labels=names)
    behind = GaugeMetricFamily("pilothouse_worker_behind_records", "Records it has not read yet", labels=names)
    for row in workers:
        who = [row["role"], row["slot"]]
        live.add_metric(who, float(row["live"]))
        ready.add_metric(who, float(row["ready"]))
        told.add_metric(who, max(0.0, (now - row["at"]) / 1e6))
        records.add_metric(who, float(row["records"]))
        behind.add_metric(who, float(sum(row["lag"].values())))
    yield from (live, ready, told, records, behind)
