"""The review of all runs, laid out: what `pilothouse report --fleet` writes. Pure.

Called by the command line with what `fleet` worked out.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .document import Block, Document, Items, Section, Words, missing, table
from .figures import detection, moment, number, share, span

Row = Mapping[str, Any]
SHARES = ("successful of those that ended", "wasted share", "GPU utilisation")
SPANS = ("mean time to detect", "mean time to recover")
LOWER_IS_BETTER = ("incidents", *SPANS, "wasted share", "wasted cost")
MOST_RUNS = 200


def fleet_page(found: Row, made_at: int) -> Document:
    """The page, for a meeting: figures and trend, what failed, why, what it cost, what to change."""
    sections = (
        Section("The figures", tuple(_figures(found))),
        Section("What to change", tuple(_to_change(found))),
        Section("Service levels", tuple(_levels(found["service_levels"]))),
        Section("Failed runs", tuple(_runs(found["failed"], "None failed."))),
        Section("Degraded runs", tuple(_runs(found["degraded"], "None was degraded."))),
        Section("Incidents", tuple(_signatures(found["signatures"]))),
        Section("Cost", tuple(_costs(found["costs"]))),
        Section("Where most was wasted", tuple(_runs(found["wasteful"], "Nothing was wasted."))),
        Section("All runs", tuple(_all(found["runs"]))),
    )
    title = f"Runs from {moment(found['since'])[:16]} to {moment(found['until'])[:16]}"
    return Document(title, lead(found), sections, made_at)


def lead(found: Row) -> str:
    """The time in one sentence."""
    figures, count = found["figures"], len(found["runs"])
    if not count:
        return "No run was heard of in this time."
    incidents = number(figures["incidents"]["now"] or 0)
    told = f"{count} runs, {len(found['failed'])} failed, {len(found['degraded'])} degraded, {incidents} incidents"
    wasted = figures["wasted share"]["now"]
    return f"{told}, {share(wasted)} of the rank-hours wasted." if wasted is not None else f"{told}."


def _figures(found: Row) -> Iterator[Block]:
    rows = [
        (name, _shown(name, told["now"]), _shown(name, told["before"]), _trend(name, told["now"], told["before"]))
        for name, told in found["figures"].items()
    ]
    yield table(("", "now", "the time before", ""), rows, "Waste is estimated by each run's mean pace.")
    outcomes = [f"{name} {number(count)}" for name, count in found["outcomes"].items()]
    if outcomes:
        yield Words(f"How runs ended: {', '.join(outcomes)}.")


def _shown(name: str, value: float | None) -> str:
    if name in SHARES:
        return share(value)
    if name in SPANS:
        return detection(value) if name == SPANS[0] else span(value)
    return number(value)


def _trend(name: str, now: float | None, before: float | None) -> str:
    if now is None or before is None or now == before:
        return ""
    word = "better" if (now < before) == (name in LOWER_IS_BETTER) else "worse"
    judged = name in (*LOWER_IS_BETTER, "successful of those that ended", "stability score", "GPU utilisation")
    return word if judged else ("more" if now > before else "less")


def _to_change(found: Row) -> Iterator[Block]:
    if found["to_change"]:
        yield Items(tuple(found["to_change"]))
    else:
        yield Words("The record suggests nothing.", "good")


def _levels(rows: Sequence[Row]) -> Iterator[Block]:
    if not rows:
        yield missing("Service levels", "`pilothouse migrate` puts those of slo.yaml in force")
        return
    told = [
        (
            f"{row['id']} {row['name']}", number(row["value"]), row["target"], row["status"], share(row["budget_left"]),
            number(row["burn_day"], 3), number(row["burn_week"], 3), row["needs"] or "–",
        )
        for row in rows
    ]  # fmt: skip
    headings = ("level", "now", "target", "status", "budget left", "burn, a day", "burn, a week", "needs")
    note = "Burn 1 spends the budget exactly within its window. Levels are of their own windows, not of this time."
    yield table(headings, told, note)


def _runs(rows: Sequence[Row], none: str) -> Iterator[Block]:
    if not rows:
        yield Words(none, "good")
        return
    told = [
        (
            row["run_id"], row["team"] or "–", row["model"] or "–", row["outcome"] or f"running, {row['phase']}",
            number(row["stability_score"], 3), _counted(row["signatures"]), number(row["rank_hours"], 3),
            share(row["wasted_share"]), number(row["cost"]), number(row["last_step"]),
        )
        for row in rows[:MOST_RUNS]
    ]  # fmt: skip
    headings = (
        "run",
        "team",
        "model",
        "outcome",
        "stability",
        "incidents",
        "rank-hours",
        "wasted",
        "cost",
        "last step",
    )
    yield table(headings, told)


def _counted(signatures: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ×{count}" if count > 1 else name for name, count in signatures.items()) or "–"


def _signatures(rows: Sequence[Row]) -> Iterator[Block]:
    if not rows:
        yield Words("None.", "good")
        return
    told = [
        (
            row["signature"], number(row["incidents"]), number(row["runs"]), number(row["recovered"]),
            detection(row["mttd_s"]), span(row["mttr_s"]), number(row["steps_lost"]),
            ", ".join(f"{one['action']}: helped {one['helped']} of {one['applied']}" for one in row["tried"]) or "–",
        )
        for row in rows
    ]  # fmt: skip
    headings = ("incident", "times", "runs", "recovered", "time to detect", "time to recover", "steps lost", "tried")
    yield table(headings, told)


def _costs(costs: Mapping[str, Sequence[Row]]) -> Iterator[Block]:
    for by, rows in costs.items():
        told = [
            (row[by], number(row["runs"]), number(row["failed"]), number(row["rank_hours"], 3),
             share(row["wasted_share"]), number(row["cost"]), number(row["stability_score"], 3))
            for row in rows
        ]  # fmt: skip
        if told:
            headings = (by, "runs", "failed", "rank-hours", "wasted", "cost", "stability")
            yield Section(f"By {by}", (table(headings, told),))


def _all(rows: Sequence[Row]) -> Iterator[Block]:
    told = [
        (row["run_id"], row["team"] or "–", row["model"] or "–", row["outcome"] or "running",
         number(row["stability_score"], 3), number(row["incidents"]), number(row["rank_hours"], 3),
         span(row["duration_s"]), moment(row["last_at"]))
        for row in rows[:MOST_RUNS]
    ]  # fmt: skip
    if told:
        note = f"The latest {MOST_RUNS} of {len(rows)}." if len(rows) > MOST_RUNS else ""
        headings = (
            "run",
            "team",
            "model",
            "outcome",
            "stability",
            "incidents",
            "rank-hours",
            "lasted",
            "last heard of",
        )
        yield table(headings, told, note)
