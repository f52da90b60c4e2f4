"""One run watched while it lives, through the archive as any other reader would: phase, margin, loss, and what happens.

`story` calls `look` about once a second and shows what it returns. Nothing is read from the ranks themselves: what is
seen here has travelled the whole way from a rank to ClickHouse.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...events.errors import UnknownRun
from ...events.event_words import number, summary
from ...events.plain_json import body_of
from ...storage.queries import Cursor, assessments_of, cursor_behind, events_of

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

TOLD = (
    "phase_changed",
    "incident_opened",
    "incident_resolved",
    "intervention_proposed",
    "intervention_declined",
    "intervention_issued",
    "intervention_expired",
    "intervention_receipt",
    "intervention_verified",
    "data_window_skipped",
    "checkpoint_restored",
    "checkpoint_rejected",
    "eval_completed",
)
"""What is worth a line of its own as it happens. Of what every rank tells, rank 0's is shown."""

LEFT_OUT = ("incident_id", "path")
"""Long, and told again by the report."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How the run stands by the governor's last word."""

    step: int
    phase: str
    margin: float | None
    loss: float | None

    def __str__(self) -> str:
        return f"step {self.step:>4}  {self.phase:<10}  margin {number(self.margin, 2):>4}  loss {number(self.loss)}"


class Watch:
    """One run. Before its first record is archived there is nothing to see."""

    def __init__(self, client: "Client", run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._cursor: Cursor = {}

    def look(self) -> tuple[Standing | None, list[str]]:
        """How it stands, and a line for each thing that happened since the last look."""
        try:
            rows = events_of(self._client, self._run_id, kinds=TOLD, limit=1_000, after=self._cursor)
        except UnknownRun:
            return None, []
        self._cursor = cursor_behind(rows, self._cursor)
        return self._standing(), [line_of(row) for row in rows if not row["rank"]]

    def _standing(self) -> Standing | None:
        last = assessments_of(self._client, self._run_id, limit=1)
        if not last:
            return None
        features = last[0]["features"]
        return Standing(last[0]["step"], last[0]["phase"], last[0]["margin"], features.get("loss"))


def line_of(row: dict[str, Any]) -> str:
    """What happened at which step, in one line."""
    body = {name: value for name, value in body_of(row).items() if name not in LEFT_OUT}
    return f"step {row['step']:>4}  {row['kind'].replace('_', ' '):<22} {summary(row['kind'], body)}"
