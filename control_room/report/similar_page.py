"""What is most like a run, laid out: what `pilothouse similar RUN` shows. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from .document import Block, Document, Section, Words, table
from .figures import moment, number, share, span, value_of

Row = Mapping[str, Any]
MOST_DIFFERENCES = 5


def similar_page(found: Row, made_at: int) -> Document:
    """The nearest runs, then, for each incident, what was done the last times."""
    sections = [Section("Nearest runs", tuple(_runs(found)))]
    sections += [
        Section(f"{row['signature']} at step {number(row['onset_step'])}", tuple(past_incidents(row)))
        for row in found["incidents"]
    ]
    if not found["incidents"]:
        sections.append(Section("Incidents", (Words("The run had none.", "good"),)))
    lead = f"The nearest of {number(found['looked_at'])} other runs, by what they were told and what happened to them."
    return Document(f"Like {found['run_id']}", lead, tuple(sections), made_at)


def _runs(found: Row) -> Iterator[Block]:
    if not found["runs"]:
        yield Words("Other runs: the archive holds none.", "missing")
        return
    rows = [
        (
            row["run_id"], share(row["likeness"]), row["outcome"] or "running", number(row["stability_score"], 3),
            ", ".join(row["signatures"]) or "–", _differs(row), moment(row["started_at"]),
        )
        for row in found["runs"]
    ]  # fmt: skip
    yield table(("run", "alike", "outcome", "stability", "incidents", "differs in", "started"), rows)


def _differs(row: Row) -> str:
    told = [
        f"{one['name']} {value_of(one['ours'])} → {value_of(one['theirs'])}"
        for one in row["differs_in"][:MOST_DIFFERENCES]
    ]
    more = len(row["differs_in"]) - MOST_DIFFERENCES
    return ", ".join(told + ([f"and {more} more"] if more > 0 else [])) or "nothing"


def past_incidents(row: Row) -> Iterator[Block]:
    """What was done in incidents like this one, and whether it helped."""
    yield Words(f"Here: {_tried(row)}; {row['outcome']}. Seen {_times(row['seen_before'])} in other runs.")
    for one in row["worked"]:
        told = f"{one['action']} was applied {_times(one['applied'])} and helped {_times(one['helped'])}."
        yield Words(told, "good" if one["helped"] else "warn")
    rows = [
        (
            near["run_id"], share(near["run_likeness"]), near["signature"], number(near["onset_step"]), _tried(near),
            near["outcome"], span(near["recovery_s"]), number(near["steps_lost"]), moment(near["opened_at"]),
        )
        for near in row["nearest"]
    ]  # fmt: skip
    if rows:
        headings = (
            "run",
            "run alike",
            "incident",
            "onset",
            "what was done",
            "outcome",
            "recovery",
            "steps lost",
            "seen",
        )
        yield table(headings, rows)


def _tried(row: Row) -> str:
    told = [f"{one['action']} ({one['verification'] or one['state']})" for one in row["tried"]]
    return ", ".join(told) or "nothing was done"


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{number(count)} times")
