"""What waits for a person, as the command line and the control room show it. The SQL is in `queries/people.sql`."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .named import Row, ask

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

KEPT = ("intervention_id", "rule", "severity", "action", "reason", "at", "step", "default", "evidence")


def waiting(client: "Client", run_id: str = "") -> list[Row]:
    """The proposals that nobody has answered, of one run or of all that go on; `until` is when their default counts."""
    return [_proposal(row) for row in ask(client, "waiting", run=run_id)]


def _proposal(row: Mapping[str, Any]) -> Row:
    body = json.loads(row["body"])
    until = body["at"] + body.get("timeout_seconds", 0) * 1_000_000
    return {"run_id": row["run_id"], **{name: body.get(name) for name in KEPT}, "until": until}
