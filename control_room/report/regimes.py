"""Under which conditions of training one run is less well than another. Pure.

A regime is phase × learning-rate band × batch size × data mix × world size, as the view `stress_regimes` has it by the
archive's stored bounds. Called by `comparison`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Row = Mapping[str, Any]
WELL = ("Normal", "Warmup", "Unknown", "Ended")
LEAST_SHARE = 0.01
LEAST_SECONDS = 1.0
FACTOR = 1.5
"""So many times longer one run must be unwell to be named."""


class Regime(NamedTuple):
    """Under what a run trained; what is not known is empty."""

    learning_rate: str
    batch_size: str
    data_mix: str

    def __str__(self) -> str:
        words = (("learning rate", self.learning_rate), ("batch size", self.batch_size), ("data", self.data_mix))
        return ", ".join(f"{name} {value}" for name, value in words if value) or "conditions that are not known"


Stays = dict[Regime, dict[str, float]]
"""By regime and phase, the seconds."""


def stays_of(rows: Sequence[Row]) -> Stays:
    """How long one run was under which regime in which phase. Runs of other sizes are compared, too."""
    found: Stays = {}
    for row in rows:
        phases = found.setdefault(Regime(row["lr_band"], row["batch_band"], row["data_mix"]), {})
        phases[row["phase"]] = phases.get(row["phase"], 0.0) + row["seconds"]
    return found


def contrasts(runs: Sequence[tuple[str, Stays]]) -> list[str]:
    """Where one run spends much more of its time unwell than another under the same regime, the greatest first."""
    found: list[tuple[float, str]] = []
    for index, (ours, left) in enumerate(runs):
        for theirs, right in runs[index + 1 :]:
            for regime in left:
                if regime in right:
                    found += _between((ours, left[regime]), (theirs, right[regime]), regime)
    return [words for _, words in sorted(found, key=lambda one: (-one[0], one[1]))]


def _between(
    ours: tuple[str, dict[str, float]], theirs: tuple[str, dict[str, float]], regime: Regime
) -> Iterator[tuple[float, str]]:
    """The phases that differ, with by how much of the time."""
    totals = [sum(phases.values()) for _, phases in (ours, theirs)]
    if min(totals) < LEAST_SECONDS:
        return
    for phase in sorted({*ours[1], *theirs[1]} - set(WELL)):
        shares = [
            (phases.get(phase, 0.0) / total, name) for (name, phases), total in zip((ours, theirs), totals, strict=True)
        ]
        (less, calmer), (more, rougher) = sorted(shares)
        if more < LEAST_SHARE or more < FACTOR * less:
            continue
        times = f"{more / less:.1f}x longer {phase} than {calmer}" if less else f"time {phase}, and {calmer} none"
        yield more - less, f"{rougher} spends {times} ({100 * more:.0f}% against {100 * less:.0f}%) under {regime}"
