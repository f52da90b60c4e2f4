"""`pilothouse advice RUN`: what advisors were asked about a run, what they answered, and what came of it.

Three events make one row: the question, the answer, and the governor's word on it. `joined` is pure.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ..events.event_words import action, number, short, text_of
from ..events.plain_json import body_of
from ..events.plain_text import printable
from .query_commands import AsJson, DataDir, Run
from .rendering import Column, Row

KINDS = ("advice_requested", "advice_given", "advice_judged")
MOST = 10_000
OF_ANSWER = (
    *("action", "why", "error", "input", "answer", "retried_answer", "retried_error", "latency_s", "evidence", "runs"),
    *("model", "temperature", "prompt_sha256", "tokens_in", "tokens_out", "cost_usd"),
)


def advice(run: Run, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """What advisors were asked, what they answered, and what came of it. --json has every word."""
    from ..storage.queries import events_of
    from .reading import full_name, open_archive
    from .rendering import show_rows

    client = open_archive(data_dir).client
    rows = joined(events_of(client, full_name(client, run), kinds=KINDS, limit=MOST))
    show_rows(rows, as_json=as_json, columns=COLUMNS, empty="no advisor was asked")


def joined(events: Iterable[Row]) -> list[Row]:
    """One row for each question, in the order in which they were asked; an answer to nothing is a row of its own."""
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        body = body_of(event)
        row = found.setdefault(body["request_id"], {"request_id": body["request_id"], "advisor": body["advisor"]})
        match event["kind"]:
            case "advice_requested":
                row |= {"at": event["at"], "step": event["step"], "question": body}
            case "advice_given":
                row.setdefault("answered", {name: body[name] for name in OF_ANSWER})  # what came later is a copy
            case _:
                row.setdefault("judged", []).append(_judgement(event, body))
    return list(found.values())


def _judgement(event: Row, body: Mapping[str, Any]) -> Row:
    told = {name: body[name] for name in ("outcome", "reason", "intervention_id")}
    return {"at": event["at"], "step": event["step"], **told}


def _answer(row: Row) -> str:
    answered = row.get("answered")
    if answered is None:
        return "–"
    return action(answered["action"]) if answered["action"] else "nothing"


def _outcome(row: Row) -> str:
    return ", then ".join(each["outcome"].replace("_", " ") for each in row.get("judged", [])) or "open"


def _why(row: Row) -> str:
    answered = row.get("answered") or {}
    judged = row.get("judged") or [{}]
    return printable(answered.get("why") or answered.get("error") or judged[0].get("reason") or "")


def _took(row: Row) -> str:
    answered = row.get("answered")
    return "–" if answered is None else f"{answered['latency_s']:.1f} s"


def _cost(row: Row) -> str:
    answered = row.get("answered") or {}
    cost = answered.get("cost_usd", 0.0)
    return "unknown" if cost is None else number(cost, 3) if cost else "–"


COLUMNS: list[Column] = [
    ("question", lambda row: short(row["request_id"])),
    ("step", lambda row: text_of(row.get("step"))),
    ("rule", lambda row: row.get("question", {}).get("rule", "–")),
    ("about", lambda row: " ".join(row.get("question", {}).get(name, "") for name in ("condition", "reason")) or "–"),
    ("advisor", lambda row: row["advisor"]),
    ("proposes", _answer),
    ("came of it", _outcome),
    ("why", _why),
    ("took", _took),
    ("USD", _cost),
]
