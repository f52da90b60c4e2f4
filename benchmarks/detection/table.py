"""What a benchmark run says: a row of JSON and a table for people, each rate with how sure it is. Pure.

The intervals hold 95 percent: of false episodes per step by Byar's approximation to the exact Poisson limits (Breslow
and Day 1987, *Statistical Methods in Cancer Research* II, eq. 2.10), of shares by Wilson's score (1927). They know of
chance alone: alarms in runs of one repository come together, and more of the world than that is not in them.
"""

import math
from collections.abc import Sequence
from typing import Any

from .score import Score

Z95 = 1.96
BEGIN, END = "<!-- what the benchmark says: begin -->\n", "<!-- what the benchmark says: end -->"
"""Between these a document holds the tables."""
Interval = tuple[float, float]


def row_of(detector: str, data: str, score: Score) -> dict[str, Any]:
    """One row of the JSON."""
    low, high = poisson(score.false)
    per_10k = 10_000 / score.rows if score.rows else 0.0
    incidents = {kind: score.found[kind] + score.missed[kind] for kind in score.recall}
    return {
        "detector": detector,
        "data": data,
        "rows": score.rows,
        "false_episodes": score.false,
        "false_per_10k": round(score.false_per_10k, 3),
        "false_per_10k_interval": [round(low * per_10k, 3), round(high * per_10k, 3)],
        "false_by_alarm": dict(sorted(score.false_by_alarm.items())),
        "incidents": incidents,
        "recall": {kind: round(share, 4) for kind, share in score.recall.items()},
        "recall_interval": {
            kind: [round(limit, 4) for limit in wilson(score.found[kind], count)] for kind, count in incidents.items()
        },
        "delay_p50": score.delay_p50,
        "us_per_step": round(score.us_per_step, 2),
    }


def table(data: str, rows: Sequence[dict[str, Any]]) -> str:
    """The rows of one kind of data: false episodes, time, and for each kind of incident its recall and median delay.
    Intervals stand with the first row, which is ours.
    """
    incidents: dict[str, int] = {}
    for row in rows:
        incidents |= row["incidents"]
    lines = [f"### {data}: {rows[0]['rows']} steps", ""]
    lines += ["| | " + " | ".join(row["detector"] for row in rows) + " |", "|---|" + "---|" * len(rows)]
    lines.append(
        _line("false episodes per 10,000 steps", [_false(row, number == 0) for number, row in enumerate(rows)])
    )
    lines.append(_line("µs a step", [f"{row['us_per_step']:.1f}" for row in rows]))
    for kind in sorted(incidents):
        cells = [_recall(row, kind, number == 0) for number, row in enumerate(rows)]
        lines.append(_line(f"{kind.replace('_', ' ')} ({incidents[kind]})", cells))
    return "\n".join([*lines, ""])


def written_into(document: str, tables: Sequence[str]) -> str:
    """The document with these tables in the place of those that it held.

    Raises:
        ValueError: it has no such place.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"it has no place for tables, which is between {BEGIN.strip()} and {END}")
    return f"{before}{BEGIN}\n{chr(10).join(tables)}\n{END}{after}"


def _line(name: str, cells: list[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def _false(row: dict[str, Any], with_interval: bool) -> str:
    low, high = row["false_per_10k_interval"]
    return f"{row['false_per_10k']:.2f}" + (f" [{low:.2f}, {high:.2f}]" if with_interval else "")


def _recall(row: dict[str, Any], kind: str, with_interval: bool) -> str:
    if kind not in row["recall"]:
        return "–"
    delay = row["delay_p50"].get(kind)
    low, high = row["recall_interval"][kind]
    interval = f" [{100 * low:.0f}, {100 * high:.0f}]" if with_interval else ""
    return f"{100 * row['recall'][kind]:.0f}%{interval}" + (f" ({delay:.0f})" if delay is not None else "")


def poisson(count: int) -> Interval:
    """The limits of the expectation of which `count` was seen."""
    above = count + 1
    high = above * (1.0 - 1.0 / (9.0 * above) + Z95 / (3.0 * math.sqrt(above))) ** 3
    if count == 0:
        return 0.0, high
    return max(0.0, count * (1.0 - 1.0 / (9.0 * count) - Z95 / (3.0 * math.sqrt(count))) ** 3), high


def wilson(found: int, count: int) -> Interval:
    """The limits of the share of which `found` of `count` were seen."""
    share, weight = found / count, Z95**2 / count
    centre = (share + weight / 2.0) / (1.0 + weight)
    half = Z95 / (1.0 + weight) * math.sqrt(share * (1.0 - share) / count + weight / (4.0 * count))
    return max(0.0, centre - half), min(1.0, centre + half)
