"""What `make bench-pipeline` measured, in tables, and whether what is wanted was reached.

Works on what its JSON holds, so that a file of yesterday can be read again.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .latency import CONTROL

WANTED_PER_CORE = 20_000
"""10,000 rank-steps a second at half of one core."""
KEEPS_UP = 0.95
"""The least of what is sent that is decided meanwhile: who falls behind carries no load, however little CPU that takes.
"""
WANTED_MS = {"kafka": (30.0, 150.0), "embedded": (100.0, float("inf"))}
"""Control, p50 and p99."""
WANTED_WITHOUT_CONTROL_S = 10.0
NAMES = {"kafka": "Apache Kafka", "embedded": "embedded broker"}

Rows = list[dict[str, Any]]


class Finding(NamedTuple):
    """One target: whether it was reached, and the figure."""

    what: str
    held: bool
    figure: str


def text(told: dict[str, Any]) -> str:
    """All of it, in Markdown."""
    machine = told["machine"]
    lines = [
        f"{machine['cores']} cores, {machine['platform']}, CPython {machine['python']}, {machine['at']}.",
        "",
        *_table(
            ("part", "broker", "load average before", "after", "took, s", "failed"),
            [
                (
                    part["part"],
                    NAMES[part["broker"]],
                    f"{part['load_before']:.1f}",
                    f"{part['load_after']:.1f}",
                    f"{part['seconds']:.0f}",
                    part.get("failed", "").replace("\n", " ")[:80],
                )
                for part in told["parts"]
            ],
        ),
    ]
    for name, draw in DRAWN.items():
        rows = _rows(told, name)
        if rows:
            lines += [*draw(rows), ""]
    found = [(one.what, "yes" if one.held else "no", one.figure) for one in findings(told)]
    return "\n".join([*lines, *_table(("wanted", "reached", "measured"), found)])


def findings(told: dict[str, Any]) -> list[Finding]:
    """What is wanted, as far as it was measured."""
    return [*_of_latency(told), *_of_throughput(told), *_of_faults(told)]


def _of_latency(told: dict[str, Any]) -> Iterator[Finding]:
    for row in _rows(told, "latency"):
        p50, p99 = row["stages"][CONTROL]
        wanted = WANTED_MS[row["broker"]]
        where = f"{NAMES[row['broker']]}, {_beside(row)}"
        limit = f"p50 under {wanted[0]:.0f} ms" + (f", p99 under {wanted[1]:.0f} ms" if wanted[1] < 1e9 else "")
        figure = f"{p50:.0f} and {p99:.0f} ms; floor {row['floor'][0]:.0f} and {row['floor'][1]:.0f} ms"
        yield Finding(f"control {limit} ({where})", p50 < wanted[0] and p99 < wanted[1], figure)
        yield Finding(f"every probe answered ({where})", not row["unanswered"], f"{row['unanswered']} not")


def _of_throughput(told: dict[str, Any]) -> Iterator[Finding]:
    wanted = f"{WANTED_PER_CORE:,} rank-steps in a second of one core's time"
    for row in _rows(told, "backlog"):
        if row["broker"] == "kafka" and row["governors"] == 1:
            reached = row["rank_steps"] / row["cpu_seconds"]
            yield Finding(f"{wanted} (a backlog)", reached >= WANTED_PER_CORE, f"{reached:,.0f}")
    for row in _rows(told, "steady"):
        if row["broker"] == "kafka" and row["ranks"] < 1_000:
            share = row["decided_records_per_s"] / row["records_per_s"]
            reached = share * row["rank_steps_per_s"] / row["cores"]["governor"]
            at = f"{share:.0%} of {row['rank_steps_per_s']:,.0f} a second at {row['cores']['governor']:.0%} of a core"
            held = reached >= WANTED_PER_CORE and share >= KEEPS_UP
            yield Finding(f"{wanted} (by the clock)", held, f"{reached:,.0f}: {at}")


def _of_faults(told: dict[str, Any]) -> Iterator[Finding]:
    for row in _rows(told, "killed"):
        name = NAMES[row["broker"]]
        held = row["without_control_s"] <= WANTED_WITHOUT_CONTROL_S
        yield Finding(
            f"a governor killed costs at most 10 s of control ({name})", held, f"{row['without_control_s']:.1f} s"
        )
        wrong = row["unanswered"] + row["doubled"] + len(row["differing"])
        figure = f"{row['unanswered']} of {row['probes']} unanswered, {row['doubled']} told twice"
        yield Finding(f"… and no decision ({name})", not wrong, f"{figure}, {len(row['differing'])} runs differ")
    for part in ("orphaned", "saturated"):
        for row in _rows(told, part):
            figure = f"{len(row['differing'])} of {row['replayed']} runs differ"
            yield Finding(f"decisions as in a replay ({part}, {NAMES[row['broker']]})", not row["differing"], figure)


def _latency_tables(rows: Rows) -> list[str]:
    lines = ["### From `run.log` to the trainer", ""]
    heads = ["ms, p50 / p99", *(f"{NAMES[row['broker']]}, {_beside(row)}" for row in rows)]
    stages = dict.fromkeys(stage for row in rows for stage in row["stages"])
    body = [(stage, *(_pair(row["stages"][stage]) for row in rows)) for stage in stages]
    body.append(("a bare Faust agent, in the same minute", *(_pair(row["floor"]) for row in rows)))
    body.append(("probes, unanswered", *(f"{row['probes']}, {row['unanswered']}" for row in rows)))
    return [*lines, *_table(heads, body)]


def _backlog_tables(rows: Rows) -> list[str]:
    heads = (
        "a backlog",
        "governors",
        "rank-steps a second",
        "records a second",
        "rank-steps a CPU second",
        "µs a record",
    )
    body = [
        (
            NAMES[row["broker"]],
            str(row["governors"]),
            f"{row['rank_steps'] / row['seconds']:,.0f}",
            f"{row['records'] / row['seconds']:,.0f}",
            f"{row['rank_steps'] / row['cpu_seconds']:,.0f}",
            f"{1e6 * row['cpu_seconds'] / row['records']:.0f}",
        )
        for row in rows
    ]
    return ["### As fast as governors can", "", *_table(heads, body)]


def _steady_tables(rows: Rows) -> list[str]:
    lines = ["### By the clock, with all of a stack", ""]
    heads = ["", *(f"{NAMES[row['broker']]}, {row['runs']} runs of {row['ranks']} ranks" for row in rows)]
    body = [
        ("rank-steps a second", *(f"{row['rank_steps_per_s']:,.0f}" for row in rows)),
        (
            "records a second, decided",
            *(f"{row['records_per_s']:,.0f}, {row['decided_records_per_s']:,.0f}" for row in rows),
        ),
        ("governor behind, records (p50 / worst)", *(_pair(row["governor_lag"]) for row in rows)),
        ("archiver behind", *(_pair(row["archiver_lag"]) for row in rows)),
    ]
    parts = dict.fromkeys(part for row in rows for part in row["cores"])
    body += [(f"{part}, of one core", *(f"{row['cores'].get(part, math.nan):.0%}" for row in rows)) for part in parts]
    return [*lines, *_table(heads, body)]


def _saturated_tables(rows: Rows) -> list[str]:
    heads = (
        "more than it can",
        "offered rank-steps a second",
        "worst lag, records",
        "level again after, s",
        "runs that differ",
    )
    body = [
        (
            NAMES[row["broker"]],
            f"{row['offered_rank_steps_per_s']:,.0f}",
            f"{row['worst_lag']:,}",
            f"{row['recovered_s']:.0f}",
            f"{len(row['differing'])} of {row['replayed']}",
        )
        for row in rows
    ]
    return ["### Past saturation", "", *_table(heads, body)]


def _killed_tables(rows: Rows) -> list[str]:
    heads = (
        "a governor killed",
        "without control, s",
        "slowest answer, s",
        "unanswered",
        "told twice",
        "runs that differ",
    )
    body = [
        (
            NAMES[row["broker"]],
            f"{row['without_control_s']:.1f}",
            f"{row['slowest_answer_s']:.1f}",
            f"{row['unanswered']} of {row['probes']}",
            str(row["doubled"]),
            f"{len(row['differing'])} of {row['replayed']}",
        )
        for row in rows
    ]
    return ["### Deaths", "", *_table(heads, body)]


def _orphaned_tables(rows: Rows) -> list[str]:
    heads = (
        "one of two killed",
        "rank-steps a second",
        "taken over, s",
        "behind as before, s",
        "worst lag",
        "runs that differ",
    )
    body = [
        (
            NAMES[row["broker"]],
            f"{row['rank_steps_per_s']:,.0f}",
            f"{row['taken_over_s']:.1f}",
            f"{row['caught_up_s']:.1f}",
            f"{row['worst_lag']:,}",
            f"{len(row['differing'])} of {row['replayed']}",
        )
        for row in rows
    ]
    return _table(heads, body)


def _soak_tables(rows: Rows) -> list[str]:
    heads = ("memory, MiB: at a fifth / at the end / at most; growth an hour", "minutes", "runs", *rows[0]["memory"])
    body = [
        (
            NAMES[row["broker"]],
            f"{row['minutes']:g}",
            str(row["runs_lived"]),
            *(
                " / ".join(f"{value:.0f}" for value in values) + f"; {row['growth'][part]:+.0f}"
                for part, values in row["memory"].items()
            ),
        )
        for row in rows
    ]
    return ["### A soak", "", *_table(heads, body)]


DRAWN = {
    "latency": _latency_tables,
    "backlog": _backlog_tables,
    "steady": _steady_tables,
    "saturated": _saturated_tables,
    "killed": _killed_tables,
    "orphaned": _orphaned_tables,
    "soak": _soak_tables,
}


def _rows(told: dict[str, Any], part: str) -> Rows:
    return [row for one in told["parts"] if one["part"] == part for row in one["rows"]]


def _beside(row: dict[str, Any]) -> str:
    return f"beside {row['rank_steps_per_s']:,.0f} rank-steps a second" if row["rank_steps_per_s"] else "nothing beside"


def _pair(values: Sequence[float]) -> str:
    return " / ".join(f"{value:,.1f}" if value < 10 else f"{value:,.0f}" for value in values)


def _table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in body), ""]
