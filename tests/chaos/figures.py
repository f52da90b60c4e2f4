"""The figures of the last run, as docs/reliability.md shows them: `python -m pilothouse.tests.chaos.figures`, after
`make chaos`, writes them there from build/chaos.json.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pilothouse.benchmarks.detection.table import written_into
from pilothouse.tests.chaos.ledger import CHAOS_JSON

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
COLUMNS = ("injected", "events", "lost", "duplicated", "applied_twice", "out_of_bounds")
HEAD = """\
| scenario | broker | faults injected | events | lost | duplicated | applied twice | out of bounds |
|---|---|---|---|---|---|---|---|
"""


def figures(rows: Sequence[Mapping[str, Any]], day: str) -> str:
    """A sentence and a table; what did not pass is said first."""
    failed = [f"{row['scenario']} ({row['broker']})" for row in rows if not row["passed"]]
    sums = {name: sum(row[name] for row in rows) for name in COLUMNS}
    told = (
        f"{day}: {len(rows)} plays, {sums['injected']:,} faults, {sums['events']:,} events, {sums['lost']:,} lost, "
        f"{sums['duplicated']:,} duplicated, {sums['applied_twice']:,} applied twice, "
        f"{sums['out_of_bounds']:,} out of bounds. "
    )
    told += f"NOT PASSED: {', '.join(failed)}." if failed else "All passed."
    lines = [
        f"| {row['scenario']} | {row['broker']} | " + " | ".join(f"{row[name]:,}" for name in COLUMNS) + " |"
        for row in rows
    ]
    return told + "\n\n" + HEAD + "\n".join(lines)


def main() -> int:
    try:
        rows = json.loads(CHAOS_JSON.read_text())
    except FileNotFoundError:
        print(f"{CHAOS_JSON} is not there: `make chaos` writes it", file=sys.stderr)  # noqa: T201  # a tool's word
        return 2
    day = datetime.fromtimestamp(CHAOS_JSON.stat().st_mtime, UTC).date().isoformat()
    DOCUMENT.write_text(written_into(DOCUMENT.read_text(), [figures(rows, day)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
