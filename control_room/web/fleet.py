"""The runs in the order in which they need a person. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
PHASES = ("Diverged", "Unstable", "Stalled", "Stressed", "Recovering", "Unknown", "Warmup", "Normal", "Ended")
"""The worst first."""


def as_they_need_attention(
    runs: Sequence[Row], waiting: Sequence[Row], effort: Sequence[Row] = (), failing: Sequence[Row] = ()
) -> list[dict[str, Any]]:
    """What waits for an answer first, then by phase, the least margin, and the latest; what has ended is last. Each
    with how many answers it `waits` for, its `cost` and `steps_per_second`, and, while it goes on, the conditions that
    are `failing`.
    """
    asked = Counter(row["run_id"] for row in waiting)
    spent = {row["run_id"]: row for row in effort}
    lost: dict[str, list[dict[str, Any]]] = {}
    for row in failing:
        lost.setdefault(row["run_id"], []).append({"condition": row["condition"], "reason": row["reason"]})
    told = [_told(run, spent.get(run["run_id"], {}), lost) | {"waits": asked[run["run_id"]]} for run in runs]
    return sorted(told, key=_urgency)


def _told(run: Row, spent: Row, lost: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    figures = {name: spent.get(name) for name in ("cost", "steps_per_second")}
    return dict(run) | figures | {"failing": [] if run["phase"] == "Ended" else lost.get(run["run_id"], [])}


def _urgency(run: Row) -> tuple[bool, bool, int, float, int]:
    phase = run["phase"] if run["phase"] in PHASES else "Unknown"
    margin = run["margin"] if run["margin"] is not None else 1.0
    return phase == "Ended", not run["waits"], PHASES.index(phase), margin, -run["last_at"]
