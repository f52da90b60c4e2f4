"""What an assistant may ask through `pilothouse mcp`: the archive and the runs that go on, reading only.

Each tool is one query of `storage.queries`, asked as the reader, on a connection of its own: a server lives for as long
as an editor is open, and stacks come and go beneath it. Docstrings are what the assistant reads. Called by
`mcp_command`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from ..events.errors import PilothouseError
from ..events.event_words import STORY, summary
from ..events.plain_json import body_of
from . import mcp_answers as answers

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

SQL_LIMITS = {"max_execution_time": 20, "max_memory_usage": 1_073_741_824, "result_overflow_mode": "break"}

Run = Annotated[str, Field(description="The run's id, or its beginning where that is enough")]
Limit = Annotated[int, Field(ge=1, le=1_000)]
Given = ParamSpec("Given")
Said = dict[str, Any]


def tool(
    answer: "Callable[Concatenate[Tools, Given], Said]",
) -> "Callable[Concatenate[Tools, Given], Said]":
    """What goes wrong is told to the assistant in the words a person would get."""

    @wraps(answer)
    def guarded(self: "Tools", /, *args: Given.args, **kwargs: Given.kwargs) -> Said:
        try:
            return answer(self, *args, **kwargs)
        except PilothouseError as error:
            raise ToolError(str(error)) from error

    return guarded


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools over one data directory's stack, or over the archive of the settings."""

    data_dir: Path | None

    @contextmanager
    def _archive(self) -> Iterator["Client"]:
        from .reading import open_archive

        client = open_archive(self.data_dir).client
        try:
            yield client
        finally:
            client.close()

    @contextmanager
    def _run(self, run: str) -> Iterator[tuple["Client", str]]:
        from .reading import full_name

        with self._archive() as client:
            yield client, full_name(client, run)

    @tool
    def list_runs(self, limit: Limit = 20, going_on_only: bool = False, least_stable_first: bool = False) -> Said:
        """The training runs, last heard of first: phase, stability margin, last step, interventions, open incidents.
        A run without `outcome` goes on."""
        from ..storage.queries import list_runs

        with self._archive() as client:
            rows = list_runs(client, 10_000 if going_on_only else limit, least_stable_first=least_stable_first)
        chosen = [row for row in rows if not (going_on_only and row["outcome"])]
        return answers.listed(chosen[:limit], "runs")

    @tool
    def describe_run(self, run: Run) -> Said:
        """One run in full, as it stands now: what it trains, phase, margin, attempts, ranks, conditions, incidents, and
        the last value of each of its metrics."""
        from ..storage.queries import show_run

        with self._run(run) as (client, run_id):
            row = show_run(client, run_id)
        lists = ("attempt_list", "ranks", "conditions", "incident_list", "metrics")
        said: Said = {"run": answers.told({name: value for name, value in row.items() if name not in lists})}
        for name in lists:
            said |= {name.removesuffix("_list"): answers.listed(row[name])}
        return said

    @tool
    def conditions(self, run: Run) -> Said:
        """The run's conditions in force (Finite, Stable, Progressing, …): status True, False or Unknown, since which
        step, why, and the evidence."""
        from ..storage.named import ask

        with self._run(run) as (client, run_id):
            return answers.listed(ask(client, "conditions_in_force", run=run_id), "conditions")

    @tool
    def incidents(self, run: Run) -> Said:
        """The run's incidents: condition and reason, onset, when opened and resolved, the outcome, steps lost."""
        from ..storage.named import ask

        with self._run(run) as (client, run_id):
            return answers.listed(ask(client, "incidents", run=run_id), "incidents")

    @tool
    def interventions(self, run: Run) -> Said:
        """What was proposed and done in a run: rule, action, evidence, who approved, at which step which ranks applied
        it with which values before and after, and whether it helped."""
        from ..storage.queries import interventions_of

        with self._run(run) as (client, run_id):
            return answers.listed(interventions_of(client, run_id), "interventions")

    @tool
    def timeline(self, run: Run, limit: Limit = 100) -> Said:
        """What happened in a run, oldest first: the latest phase changes, conditions, incidents, interventions,
        restores, orders of people, policies."""
        from ..storage.queries import events_of

        with self._run(run) as (client, run_id):
            rows = events_of(client, run_id, kinds=STORY, limit=limit)
        kept = ("at", "step", "rank", "kind")
        told = [{name: row[name] for name in kept} | {"what": summary(row["kind"], body_of(row))} for row in rows]
        return answers.listed(told, "events")

    @tool
    def metric(
        self,
        run: Run,
        metric: Annotated[str, Field(description="As `describe_run` names it: loss, grad_norm, …")],
        rank: Annotated[int | None, Field(ge=0, description="None: every rank")] = 0,
        points: Annotated[int, Field(ge=1, le=500)] = 50,
    ) -> Said:
        """A metric over steps, in so many intervals for each attempt: mean, least, greatest, last value, and how many
        values were NaN or infinite."""
        from ..storage.queries import series_of

        with self._run(run) as (client, run_id):
            return answers.listed(series_of(client, run_id, metric, rank=rank, points=points), "intervals")

    @tool
    def log_lines(self, run: Run, only_warnings: bool = True, limit: Limit = 50) -> Said:
        """The latest lines of the job's own log, oldest first."""
        from logging import WARNING

        from ..storage.queries import log_lines_of

        with self._run(run) as (client, run_id):
            least = WARNING if only_warnings else 0
            return answers.listed(log_lines_of(client, run_id, least_severity=least, limit=limit), "lines")

    @tool
    def policy_in_force(self, run: Run) -> Said:
        """The policy that governs a run: its mode, who activated it and when, its hash, its whole text in YAML."""
        from ..control_room.activation import in_force

        with self._run(run) as (client, run_id):
            known = in_force(client, run_id)
        about = {"run_id": known.run_id, "policy": known.policy.name, "mode": known.policy.mode}
        who = {"hash": known.policy_hash, "by": known.who, "at": known.at}
        return answers.told(about | who) | {"text": known.text}

    @tool
    def waiting(self, run: Annotated[str, Field(description="Empty: all runs that go on")] = "") -> Said:
        """Interventions that wait for a person to approve or decline them, and what happens if nobody answers."""
        from ..storage.people import waiting
        from .reading import full_name

        with self._archive() as client:
            return answers.listed(waiting(client, full_name(client, run) if run else ""), "waiting")

    @tool
    def views(self) -> Said:
        """The archive's views for `sql`: each one's columns, with their types and what they mean."""
        from ..storage.queries import run_sql

        with self._archive() as client:
            found = run_sql(client, _VIEWS)
        rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
        return {"views": {row["view"]: {"about": row["about"], "columns": list(row["columns"])} for row in rows}}

    @tool
    def sql(self, query: Annotated[str, Field(max_length=20_000)], limit: Limit = 200) -> Said:
        """A SELECT in ClickHouse's SQL over the archive's views (`views` names them): reading only, at most 20 s."""
        from ..storage.queries import run_sql

        with self._archive() as client:
            found = run_sql(client, query, {**SQL_LIMITS, "max_result_rows": limit + 1})
        rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows[:limit]]
        cut = {"cut": f"only the first {limit} rows"} if len(found.rows) > limit else {}
        return {"columns": list(found.columns)} | _cells(rows) | cut


_VIEWS = """
SELECT t.name AS view, any(t.comment) AS about,
    groupArray(concat(c.name, ' ', c.type, if(c.comment = '', '', concat(': ', c.comment)))) AS columns
FROM system.tables AS t
INNER JOIN (SELECT * FROM system.columns WHERE database = currentDatabase() ORDER BY table, position) AS c
    ON c.table = t.name
WHERE t.database = currentDatabase() AND t.engine = 'View'
GROUP BY t.name
ORDER BY t.name
"""


def _cells(rows: list[dict[str, Any]]) -> Said:
    """A person's own columns, as they are: an absent value stays, and a number is no time."""
    shown = answers.listed([{"row": list(row.values())} for row in rows])
    return {**shown, "rows": [row.get("row", []) for row in shown["rows"]]}
