"""A person's order on its way: written into the log, answered by the governor, carried out by the ranks.

Used by the commands of `operator`. The governor answers every order (`OrderAnswered`); what became an intervention is
then followed until every rank has told its receipt, or the time to wait is over.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from ..events.commands import OperatorCommand
from ..events.errors import UserMistake
from ..producers.person import person

if TYPE_CHECKING:
    from .reading import Archive

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
        told = [_body(row) for row in self.rows if row["kind"] == "intervention_receipt"]
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
        issued = [_body(row) for row in self.rows if row["kind"] == "intervention_issued"]
        return any(body["action"]["action"] == "stop" for body in issued)


def order_of(
    run_id: str, verb: str, *, why: str, who: str = "", needs_why: bool = True, **about: Any
) -> OperatorCommand:
    """The command itself. Its writer is this one order.

    Raises:
        UserMistake: it does not say why, or what it is about is wrong.
    """
    from pydantic import ValidationError

    from ..events.codec import first_fault
    from ..events.redaction import redacted_text

    if (needs_why and not why.strip()) or len(why) > LONGEST_WHY:
        raise UserMistake(f"--why must say why, in at most {LONGEST_WHY:,} characters")
    name = f"{who} via {person()}" if who else person()
    told = {"verb": verb, "who": name[:200], "why": redacted_text(why), **about}
    identity = {"at": time.time_ns() // 1_000, "run_id": run_id, "writer_id": f"operator-{uuid4().hex}", "seq": 1}
    try:
        return OperatorCommand.model_validate({**identity, **told})
    except ValidationError as error:
        raise UserMistake(first_fault(error)) from error


def refuse_ended(archive: "Archive", run_id: str) -> int:
    """How many ranks the run has.

    Raises:
        UserMistake: it is over: nobody is there to obey.
    """
    from ..storage.queries import show_run

    row = show_run(archive.client, run_id)
    if row["outcome"]:
        raise UserMistake(f"run {run_id} has ended already ({row['outcome']})")
    return int(row["world_size"] or 1)


def send(archive: "Archive", order: OperatorCommand, wait: float) -> Sent:
    """Put the order into the log, and look for so many seconds what becomes of it.

    Raises:
        BrokerUnavailable: it could not be delivered.
    """
    from ..producers.kafka import send_fact
    from ..storage.queries import events_of, last_places

    world_size = refuse_ended(archive, order.run_id)
    cursor = last_places(archive.client, order.run_id)
    send_fact(archive.settings, order)
    deadline = time.monotonic() + wait
    while True:
        rows = events_of(archive.client, order.run_id, kinds=SHOWN, limit=1_000, after=cursor)
        sent = seen_of(order, rows, world_size)
        if sent.is_over or time.monotonic() >= deadline:
            return sent
        time.sleep(LOOK_EVERY)


def seen_of(order: OperatorCommand, rows: Sequence[Mapping[str, Any]], world_size: int) -> Sent:
    """What of these rows is about the order."""
    answers = (_body(row) for row in rows if row["kind"] == "order_answered")
    answer = next((body for body in answers if body["order_id"] == order.event_id), None)
    if answer is None:
        return Sent(order, None, (), world_size)
    named = answer["intervention_id"]
    mine = [
        row for row in rows if named and _body(row).get("intervention_id") == named and row["kind"] != "order_answered"
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


def account(sent: Sent) -> str:
    """What happened, for a person, and what to do where nothing did."""
    from .event_text import line_of

    return "\n".join([*(line_of(row) for row in sent.rows), _last_word(sent)])


def _last_word(sent: Sent) -> str:
    order, reason = sent.order, (sent.answer or {}).get("reason", "")
    run, follow = f"run {order.run_id}", f"`pilothouse tail {order.run_id}`"
    words = {
        "sent": f"the order is in the log of {run}, and nothing came of it yet: {follow}",
        "refused": f"{order.verb}: refused by the governor of {run}: {reason}",
        "stands": f"{order.verb}: {reason}",
        "issued": f"the governor told {run}; its ranks have not answered yet: {follow}",
        "ended": f"{run} has ended",
    }
    if sent.outcome in words:
        return words[sent.outcome]
    if sent.outcome == "applied":
        return "; ".join(filter(None, [f"applied by {_ranks(sent)}", *_changes(sent)]))
    return f"{sent.outcome} by {run}: {next(_reasons(sent), 'no receipt came in time')}"


def _ranks(sent: Sent) -> str:
    steps = {row["step"] for row in sent.rows if row["kind"] == "intervention_receipt"}
    ranks = {row["rank"] for row in sent.rows if row["kind"] == "intervention_receipt"}
    where = f"at step {', '.join(map(str, sorted(steps)))}"
    return f"{len(ranks)} of {sent.world_size} ranks of run {sent.order.run_id} {where}"


def _changes(sent: Sent) -> Iterator[str]:
    """What rank 0 says that it changed."""
    from .rendering import text_of

    for row in sent.rows:
        body = _body(row)
        if row["kind"] == "intervention_receipt" and row["rank"] == 0:
            before = body.get("before", {})
            yield from (f"{name} {text_of(before.get(name))} → {text_of(now)}" for name, now in body["after"].items())
            if body.get("reason"):
                yield str(body["reason"])


def _reasons(sent: Sent) -> Iterator[str]:
    for row in sent.rows:
        body = _body(row)
        if row["kind"] == "intervention_receipt" and body["outcome"] != "applied":
            yield str(body["reason"])


def _body(row: Mapping[str, Any]) -> dict[str, Any]:
    loaded = json.loads(row["body"])
    return loaded if isinstance(loaded, dict) else {}
