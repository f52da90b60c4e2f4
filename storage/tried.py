"""What was tried before in incidents like this one, and in this one: the rows that advisors draw on.

The SQL is in `queries/advice.sql`; `stream_processors.advisor_memory` makes a record of them.
"""

from typing import TYPE_CHECKING, NamedTuple

from .named import Row, ask

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

MOST_BEFORE = 5_000
MOST_IN_INCIDENT = 50


class Signature(NamedTuple):
    """An incident: the condition that failed, and why; `incident_id` is the one that is open now."""

    run_id: str
    incident_id: str
    condition: str
    reason: str


def tried_before(client: "Client", signature: Signature) -> list[Row]:
    """Every verified intervention in other incidents of this signature, the latest first."""
    run, incident, condition, reason = signature
    return ask(
        client, "tried_before", run=run, incident=incident, condition=condition, reason=reason, limit=MOST_BEFORE
    )


def tried_in_incident(client: "Client", signature: Signature) -> list[Row]:
    """What was proposed and done in this incident so far."""
    return ask(
        client, "tried_in_incident", run=signature.run_id, incident=signature.incident_id, limit=MOST_IN_INCIDENT
    )
