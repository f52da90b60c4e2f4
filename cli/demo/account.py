"""What the archive knows of one run, read once at its end: the only source of the demo's report and verdict.

`story` reads it, `verdict` judges it, `report` shows it. The ranks' own files and exit statuses prove nothing here:
what is not in the archive did not happen.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...events.codec import to_json
from ...events.union import AnyDecision
from ...storage.history import read_decisions, read_log
from ...storage.queries import evals_of, interventions_of, phases_of, run_sql, show_run
from ...stream_processors.replay import replay

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

Row = dict[str, Any]

END = """
SELECT uniqExactIf(rank, kind = 'run_ended'),
    countIf(kind = 'phase_changed' AND JSONExtractString(body, 'phase') = 'Ended')
FROM events WHERE run_id = '{run}'
"""
STEPS = "SELECT rank, uniqExact(step) FROM steps WHERE run_id = '{run}' AND metric = 'loss' GROUP BY rank"
"""Text may stand in these: the ids of the demo's runs are its own, of letters, digits and dashes."""


@dataclass(frozen=True, slots=True)
class Account:
    """One run as the archive tells it. `steps_by_rank`: how many different steps each rank logged a loss for.

    `replayed`: whether folding the archived log again gives exactly the archived decisions.
    """

    run: Row
    phases: list[Row]
    interventions: list[Row]
    validation_losses: list[tuple[int, float]]
    steps_by_rank: dict[int, int]
    decisions: list[AnyDecision]
    replayed: bool

    @property
    def run_id(self) -> str:
        return str(self.run["run_id"])

    @property
    def incidents(self) -> list[Row]:
        """The run's incidents, in their order."""
        rows: list[Row] = self.run["incident_list"]
        return rows

    @property
    def validation_loss(self) -> float:
        """The last one, in nats a character; NaN where there is none."""
        return self.validation_losses[-1][1] if self.validation_losses else math.nan

    @property
    def steps_lost(self) -> int:
        """Steps that rollbacks undid."""
        return sum(row["steps_lost"] or 0 for row in self.incidents)


def read_account(client: "Client", run_id: str) -> Account:
    """Everything the demo wants to know of a run."""
    decisions = read_decisions(client, run_id)
    return Account(
        run=show_run(client, run_id),
        phases=phases_of(client, run_id),
        interventions=interventions_of(client, run_id),
        validation_losses=[(row["step"], row["value"]) for row in evals_of(client, run_id) if row["metric"] == "loss"],
        steps_by_rank=_steps_by_rank(client, run_id),
        decisions=decisions,
        replayed=_texts(replay(run_id, read_log(client, run_id))) == _texts(decisions),
    )


def is_complete(client: "Client", run_id: str, ranks: int) -> bool:
    """Whether the archive has heard every rank's end, and the governor's last word."""
    rows = run_sql(client, END.format(run=run_id)).rows
    return bool(rows[0][0] >= ranks and rows[0][1] >= 1)


def _texts(decisions: Iterable[AnyDecision]) -> list[str]:
    """Compared as text: two NaN are not equal, though they say the same."""
    return [to_json(decision) for decision in decisions]


def _steps_by_rank(client: "Client", run_id: str) -> dict[int, int]:
    return {int(rank): int(steps) for rank, steps in run_sql(client, STEPS.format(run=run_id)).rows}
