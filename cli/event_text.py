"""One event as one line of a terminal. Used by `events`, `tail` and `stop`; rows are those of the query `events`: head
columns, and the event in `body`.
"""

from collections.abc import Mapping
from typing import Any

from ..events.event_words import summary
from ..events.plain_json import body_of
from .rendering import clock


def line_of(row: Mapping[str, Any]) -> str:
    """Time, step, rank, kind and what happened."""
    step = "–" if row["step"] is None or row["step"] < 0 else str(row["step"])
    rank = f"rank {row['rank']}" if row["rank"] is not None else ""
    head = f"{clock(row['at']):>8}  step {step:>7}  {rank:<8} {row['kind']:<22}"
    return f"{head} {summary(row['kind'], body_of(row))}".rstrip()
