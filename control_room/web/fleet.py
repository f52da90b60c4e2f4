"""The runs in the order in which they need a person. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
PHASES = ("Diverged", "Unstable", "Stalled", "Stressed", "Recovering", "Unknown", "Warmup", "Normal", "Ended")
"""The worst first."""


def as_they_need_attention(runs: Sequence[Row], waiting: Sequence[Row]) -> list[dict[str, Any]]:
    """What waits for an answer first, then by phase, the least margin, and the latest; what has ended is last. Each
    with how many answers it `waits` for.
    """
    asked = Counter(row["run_id"] for row in waiting)
    told = [dict(run) | {"waits": asked[run["run_id"]]} for run in runs]
    return sorted(told, key=_urgency)


def _urgency(run: Row) -> tuple[bool, bool, int, float, int]:
    phase = run["phase"] if run["phase"] in PHASES else "Unknown"
    margin = run["margin"] if run["margin"] is not None else 1.0
    return phase == "Ended", not run["waits"], PHASES.index(phase), margin, -run["last_at"]
