"""How the archive's rows look to an assistant: plain JSON, times in ISO 8601, and never more than it can read.

Pure. Used by `mcp_tools`.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from .rendering import json_line

MOST_CHARACTERS = 40_000
"""Of one list in an answer. An assistant's memory is small, and what does not fit says so and can be asked for."""
LONGEST_TEXT = 2_000
"""Of one text in a row."""

_TIMES = frozenset({"at", "until"})


def plain(value: Any) -> Any:
    """Anything a query returns, as JSON has it: NaN and the infinities by name, as the commands print them."""
    return json.loads(json_line(value))


def told(row: Mapping[str, Any]) -> dict[str, Any]:
    """One row: nothing that is absent or empty, no event inside an event, its times readable, its texts bounded."""
    kept = {name: value for name, value in row.items() if value not in (None, "", [], {}) and name != "body"}
    return {name: plain(_moment(value) if _is_time(name, value) else _short(value)) for name, value in kept.items()}


def listed(rows: Sequence[Mapping[str, Any]], name: str = "rows") -> dict[str, Any]:
    """Rows under a name, as many as fit, with how many were left out."""
    kept: list[dict[str, Any]] = []
    room = MOST_CHARACTERS
    for row in rows:
        shown = told(row)
        room -= len(json.dumps(shown, ensure_ascii=False))
        if room < 0:
            break
        kept.append(shown)
    left_out = len(rows) - len(kept)
    more = {"left_out": left_out, "advice": "ask for fewer rows, or for less of each by `sql`"} if left_out else {}
    return {name: kept, **more}


def _is_time(name: str, value: Any) -> bool:
    return isinstance(value, int) and (name in _TIMES or name.endswith("_at"))


def _moment(micros: int) -> str:
    try:
        return datetime.fromtimestamp(micros / 1e6, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return f"{micros} µs"  # a clock that was far off: Python's times do not go there


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return f"{value[:LONGEST_TEXT]}… ({len(value)} characters)"
    return value
