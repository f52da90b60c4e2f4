"""What people ask of the archive: the named queries, shaped for the command line and the control room.

Every answer is made of dicts in the columns' order; times are int microseconds UTC, absent values None, evidence a dict
of floats in which NaN and the infinities are themselves. A run that is not there raises `UnknownRun` with the names
that come near; what ClickHouse refuses raises `QueryRefused` with its code. The SQL is in `queries/runs.sql`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ..events.envelope import LogPlace
from ..events.errors import QueryRefused, UnknownRun
from ..events.topics import CONTROL, TELEMETRY
from .connect import refusals
from .curves import EVERY_RANK, curves
from .named import Row, ask

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

NAMES_TO_COMPARE = 5_000
"""Of how many runs, the latest first, the names are compared with one that is not there."""

Cursor = Mapping[str, LogPlace]
"""By topic, the last place seen."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person's own SQL gave."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def list_runs(client: "Client", limit: int = 100, *, least_stable_first: bool = False) -> list[Row]:
    """The runs, last heard of first, or by their stability score: those that have none come last."""
    return ask(client, "list_runs", limit=limit, least_stable_first=least_stable_first)


def show_run(client: "Client", run_id: str) -> Row:
    """One run in full: how it stands, and under their names its `attempts`, `ranks`, `conditions`, `incidents` and, of
    rank 0, the last value of each of its `metrics`.

    Raises:
        UnknownRun: there is no such run.
    """
    known_run(client, run_id)
    [run] = ask(client, "one_run", run=run_id)
    return run | {
        "attempt_list": ask(client, "attempts", run=run_id),
        "ranks": ask(client, "ranks", run=run_id),
        "conditions": ask(client, "conditions_in_force", run=run_id),
        "incident_list": ask(client, "incidents", run=run_id),
        "metrics": ask(client, "last_metrics", run=run_id, rank=0),
    }


def events_of(
    client: "Client", run_id: str, *, kinds: Sequence[str] = (), limit: int = 200, after: Cursor | None = None
) -> list[Row]:
    """The run's latest events, oldest first; with `after`, the first ones behind it. `kinds` empty means every kind.

    Steps are no events here: see `series_of`.
    """
    known_run(client, run_id)
    if after is None:
        return ask(client, "events", run=run_id, kinds=list(kinds), limit=limit)
    facts, control = after.get(TELEMETRY.name), after.get(CONTROL.name)
    return ask(
        client,
        "events_after",
        run=run_id,
        kinds=list(kinds),
        limit=limit,
        control_topic=CONTROL.name,
        facts_epoch=facts.epoch if facts else 0,
        facts_offset=facts.offset if facts else -1,
        control_epoch=control.epoch if control else 0,
        control_offset=control.offset if control else -1,
    )


def last_places(client: "Client", run_id: str) -> dict[str, LogPlace]:
    """Where `events_of` should begin in order to see only what is still to come. Ask before the first rows, not
    after."""
    return cursor_behind(ask(client, "last_places", run=run_id))


def cursor_behind(rows: Sequence[Row], before: Cursor | None = None) -> dict[str, LogPlace]:
    """Where `events_of` should go on after these rows."""
    cursor = dict(before or {})
    for row in rows:
        place = LogPlace(row["log_epoch"], row["log_partition"], row["log_offset"])
        seen = cursor.get(row["topic"])
        if seen is None or seen.precedes(place):
            cursor[row["topic"]] = place
    return cursor


def interventions_of(client: "Client", run_id: str) -> list[Row]:
    """The run's interventions in the order of their proposal, each with its `receipts` and, as proof that ranks moved
    together, `ranks_by_step`: which ranks applied it at which step."""
    known_run(client, run_id)
    receipts = _by_intervention(ask(client, "receipts", run=run_id))
    applied = _by_intervention(ask(client, "applied_steps", run=run_id))
    return [
        row
        | {
            "receipts": receipts.get(row["intervention_id"], []),
            "ranks_by_step": {step["step"]: step["ranks"] for step in applied.get(row["intervention_id"], [])},
        }
        for row in ask(client, "interventions", run=run_id)
    ]


def phases_of(client: "Client", run_id: str) -> list[Row]:
    """The run's phases as intervals, with the evidence for each; the last is open (`until_step` None)."""
    known_run(client, run_id)
    return ask(client, "phases", run=run_id)


def assessments_of(client: "Client", run_id: str, limit: int = 1_000) -> list[Row]:
    """How the run stood, second by second: phase, margin and features; the latest `limit`, oldest first."""
    known_run(client, run_id)
    return ask(client, "assessments", run=run_id, limit=limit)


def evals_of(client: "Client", run_id: str) -> list[Row]:
    """Every value of every evaluation, in the order in which they were told."""
    known_run(client, run_id)
    return ask(client, "evals", run=run_id)


def checkpoints_of(client: "Client", run_id: str) -> list[Row]:
    """The run's checkpoints, and what became of them."""
    known_run(client, run_id)
    return ask(client, "checkpoints", run=run_id)


def metrics_of(client: "Client", run_id: str) -> list[Row]:
    """The names of what was logged, with the steps between which it was."""
    known_run(client, run_id)
    return ask(client, "metric_names", run=run_id)


def series_of(client: "Client", run_id: str, metric: str, *, rank: int | None = None, points: int = 500) -> list[Row]:
    """A metric over steps, in about `points` intervals for each attempt and rank (`rank` None: every rank)."""
    known_run(client, run_id)
    return curves(client, run_id, [metric], points, EVERY_RANK if rank is None else rank)


def log_lines_of(
    client: "Client", run_id: str, *, least_severity: int = 0, rank: int | None = None, limit: int = 200
) -> list[Row]:
    """The latest lines of the job's log, oldest first; severities are those of Python's `logging`."""
    known_run(client, run_id)
    asked = {"severity": least_severity, "rank": -1 if rank is None else rank, "limit": limit}
    return ask(client, "log_lines", run=run_id, **asked)


def dropped_log_lines_of(client: "Client", run_id: str, *, rank: int | None = None) -> dict[str, int]:
    """How many lines of the job's log were over their bounds, by reason."""
    rows = ask(client, "log_lines_dropped", run=run_id, rank=-1 if rank is None else rank)
    return {row["reason"]: row["lines"] for row in rows}


def archive_progress(client: "Client") -> list[Row]:
    """The last place the archive holds of each partition, the newest event time there, and when it last took anything
    in."""
    return ask(client, "archive_progress")


def ingest_lag(client: "Client") -> list[Row]:
    """How far behind the archive is in each partition, in seconds (view `ingest`)."""
    return ask(client, "ingest_lag")


def runs_like(client: "Client", prefix: str, limit: int = 20) -> list[str]:
    """The runs whose names begin so, last heard of first."""
    return [row["run_id"] for row in ask(client, "runs_by_prefix", prefix=prefix, limit=limit)]


def known_run(client: "Client", run_id: str) -> None:
    """Nothing, or `UnknownRun` with what the person may have meant."""
    [answer] = ask(client, "is_known", run=run_id)
    if not answer["known"]:
        names = [row["run_id"] for row in ask(client, "run_ids", limit=NAMES_TO_COMPARE)]
        raise UnknownRun(unknown_run_message(run_id, names))


def unknown_run_message(run_id: str, names: Sequence[str]) -> str:
    """`names` are the runs there are, last heard of first."""
    if not names:
        return f"no run {run_id!r}: the archive holds no runs yet"
    near = [name for name in names if run_id and name.startswith(run_id)][:3]
    near += [name for name in get_close_matches(run_id, names, n=3, cutoff=0.5) if name not in near]
    if near:
        return f"no run {run_id!r}; did you mean {', '.join(near[:3])}?"
    return f"no run {run_id!r}; the latest are {', '.join(names[:3])} (all of them: `pilothouse runs`)"


def run_sql(client: "Client", sql: str, settings: Mapping[str, Any] | None = None) -> Answer:
    """A person's own query.

    Raises:
        QueryRefused: why, with ClickHouse's code.
    """
    try:
        with refusals():
            result = client.query(sql, settings=dict(settings or {}))
            return Answer(tuple(result.column_names), [tuple(row) for row in result.result_rows])
    except (
        ValueError,
        OverflowError,
    ) as error:  # a clock that was far off: ClickHouse's times go further than Python's
        raise QueryRefused(f"Python cannot hold the answer: {error}; ask for toString(…) of that column") from error


def sql_as(client: "Client", sql: str, form: str, settings: Mapping[str, Any]) -> Iterator[bytes]:
    """A person's own query, written by ClickHouse in one of its formats, piece by piece.

    Raises:
        QueryRefused: why, with ClickHouse's code.
    """
    with refusals(), client.raw_stream(sql, fmt=form, settings=dict(settings)) as pieces:
        while piece := pieces.read(2**20):
            yield piece


def _by_intervention(rows: list[Row]) -> dict[str, list[Row]]:
    return {name: list(group) for name, group in groupby(rows, key=lambda row: str(row["intervention_id"]))}
