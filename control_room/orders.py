"""A person's order on its way: written into the log, answered by the governor, carried out by the ranks.

Used by the command line and by the control room's page. The governor answers every order (`OrderAnswered`); what became
an intervention is then followed until every rank has told its receipt, or the time to wait is over.
"""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from ..events.commands import OperatorCommand
from ..events.errors import UserMistake
from ..events.plain_json import body_of
from ..settings import Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

LOOK_EVERY = 0.3
LONGEST_WHY = 16_000
SHOWN = (
    "order_answered",
    "intervention_proposed",
    "intervention_approved",
    "intervention_declined",
    "intervention_issued",
    "intervention_expired",
    "intervention_receipt",
    "run_ended",
)
REFUSALS = ("refused", "rejected", "failed", "expired")
"""Outcomes at which a command ends with status 1."""


class Sent(NamedTuple):
    """An order, and what was seen of it so far: the governor's answer, and rows of the query `events` that follow."""

    order: OperatorCommand
    answer: Mapping[str, Any] | None
    rows: Sequence[Mapping[str, Any]]
    world_size: int

    @property
    def outcome(self) -> str:
        """How far it came: `sent`, `refused`, `stands` (nothing must follow), `issued`, what ranks said, `ended`."""
        if self.answer is None:
            return "sent"
        if not self.answer["accepted"]:
            return "refused"
        kinds = {row["kind"] for row in self.rows}
        told = [body_of(row) for row in self.rows if row["kind"] == "intervention_receipt"]
        said = next((each["outcome"] for each in told if each["outcome"] != "applied"), "")
        if "run_ended" in kinds:
            return "ended"
        if said or "intervention_expired" in kinds:
            return said or "expired"
        if told:
            return "applied"
        return "issued" if "intervention_issued" in kinds else "stands"

    @property
    def is_over(self) -> bool:
        """Whether nothing more can follow that a person waits for."""
        outcome = self.outcome
        if outcome == "applied":
            ranks = {row["rank"] for row in self.rows if row["kind"] == "intervention_receipt"}
            return len(ranks) >= self.world_size and not self._stops
        return outcome in (*REFUSALS, "ended") or (outcome == "stands" and self.order.verb in ("decline", "silence"))

    @property
    def _stops(self) -> bool:
        issued = [body_of(row) for row in self.rows if row["kind"] == "intervention_issued"]
        return any(body["action"]["action"] == "stop" for body in issued)


def order_of(run_id: str, verb: str, *, why: str, who: str, needs_why: bool = True, **about: Any) -> OperatorCommand:
    """The command itself, in somebody's name. Its writer is this one order.

    Raises:
        UserMistake: it does not say why, or what it is about is wrong.
    """
    from pydantic import ValidationError

    from ..events.codec import first_fault
    from ..events.redaction import redacted_text

    if (needs_why and not why.strip()) or len(why) > LONGEST_WHY:
        raise UserMistake(f"say why, in at most {LONGEST_WHY:,} characters")
    told = {"verb": verb, "who": who[:200], "why": redacted_text(why), **about}
    identity = {"at": time.time_ns() // 1_000, "run_id": run_id, "writer_id": f"operator-{uuid4().hex}", "seq": 1}
    try:
        return OperatorCommand.model_validate({**identity, **told})
    except ValidationError as error:
        raise UserMistake(first_fault(error)) from error


def refuse_ended(client: "Client", run_id: str) -> int:
    """How many ranks the run has.

    Raises:
        UserMistake: it is over: nobody is there to obey.
    """
    from ..storage.queries import show_run

    row = show_run(client, run_id)
    if row["outcome"]:
        raise UserMistake(f"run {run_id} has ended already ({row['outcome']})")
    return int(row["world_size"] or 1)


def send(client: "Client", settings: Settings, order: OperatorCommand, wait: float) -> Sent:
    """Put the order into the log, and look for so many seconds what becomes of it.

    Raises:
        BrokerUnavailable: it could not be delivered.
    """
    from ..producers.delivery.kafka import send_fact
    from ..storage.queries import events_of, last_places

    world_size = refuse_ended(client, order.run_id)
    cursor = last_places(client, order.run_id)
    send_fact(settings, order)
    deadline = time.monotonic() + wait
    while True:
        rows = events_of(client, order.run_id, kinds=SHOWN, limit=1_000, after=cursor)
        sent = seen_of(order, rows, world_size)
        if sent.is_over or time.monotonic() >= deadline:
            return sent
        time.sleep(LOOK_EVERY)


def seen_of(order: OperatorCommand, rows: Sequence[Mapping[str, Any]], world_size: int) -> Sent:
    """What of these rows is about the order."""
    answers = (body_of(row) for row in rows if row["kind"] == "order_answered")
    answer = next((body for body in answers if body["order_id"] == order.event_id), None)
    if answer is None:
        return Sent(order, None, (), world_size)
    named = answer["intervention_id"]
    mine = [
        row
        for row in rows
        if named and body_of(row).get("intervention_id") == named and row["kind"] != "order_answered"
    ]
    ends = [row for row in rows if row["kind"] == "run_ended"]
    return Sent(order, answer, (*mine, *ends), world_size)


def as_fields(sent: Sent) -> dict[str, Any]:
    """For programs."""
    answer = sent.answer or {}
    return {
        "run_id": sent.order.run_id,
        "verb": sent.order.verb,
        "who": sent.order.who,
        "sent": True,
        "outcome": sent.outcome,
        "reason": answer.get("reason", ""),
        "intervention_id": answer.get("intervention_id") or None,
        "events": [row["kind"] for row in sent.rows],
    }
