"""What became of a person's order, in words. Used by the commands of `operator`; `control_room.orders` sends it."""

from collections.abc import Iterator

from ..control_room.orders import Sent
from ..events.plain_json import body_of


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
    from ..events.event_words import text_of

    for row in sent.rows:
        body = body_of(row)
        if row["kind"] == "intervention_receipt" and row["rank"] == 0:
            before = body.get("before", {})
            yield from (f"{name} {text_of(before.get(name))} → {text_of(now)}" for name, now in body["after"].items())
            if body.get("reason"):
                yield str(body["reason"])


def _reasons(sent: Sent) -> Iterator[str]:
    for row in sent.rows:
        body = body_of(row)
        if row["kind"] == "intervention_receipt" and body["outcome"] != "applied":
            yield str(body["reason"])
