"""The phase of a run and its stability margin, derived from its conditions.

Pure and without memory: the same conditions always give the same phase. Called by `stream_processors.judging` after
the conditions were judged; `decide` reads the result.
"""

from collections.abc import Mapping

from ..events.decisions import ConditionType, Phase
from .conditions import ASIDE, THRESHOLDS, Condition

STRESSED_MARGIN = 0.25
"""Under this margin a run is stressed even while every condition holds."""

DIVERGED_FACTOR = 10.0
"""`Stable` is past its bound (the run has diverged, not only destabilised) at this multiple of its enter threshold."""

FAILED: tuple[tuple[ConditionType, Phase], ...] = (("Stable", "Unstable"), ("Progressing", "Stalled"))
"""Conditions whose failure has a phase of its own, the graver first."""

_DISTANCES = tuple((name, known.enter, known.enter - known.baseline) for name, known in THRESHOLDS.items())

Conditions = Mapping[ConditionType, Condition]


def stability_margin(conditions: Conditions) -> float | None:
    """The least of clip((enter - x) / (enter - baseline), 0, 1) over the known conditions; None when nothing is
    known.

    1 is the run's own baseline, 0 the threshold. A False condition has margin 0; one without a statistic counts when
    it is False.
    """
    statuses = {condition.status for condition in conditions.values() if condition.type not in ASIDE}
    if "False" in statuses:
        return 0.0
    return least_margin(conditions) if "True" in statuses else None


def least_margin(conditions: Conditions) -> float:
    """The margin of a run of which something is known, and no condition False."""
    least = 1.0
    for name, enter, width in _DISTANCES:
        condition = conditions[name]
        if condition.status == "True" and condition.x is not None:
            least = min(least, max(0.0, (enter - condition.x) / width))
    return least


def phase_of(
    conditions: Conditions, margin: float | None, *, outcome: str, recovering: bool, has_baseline: bool
) -> tuple[Phase, str]:
    """The first phase that holds, and the reason for it in one CamelCase word. `outcome` is how the run ended, "" while
    it goes on.
    """
    if outcome:
        return "Ended", outcome
    finite, stable, fresh = conditions["Finite"], conditions["Stable"], conditions["TelemetryFresh"]
    if finite.status == "False":
        return "Diverged", finite.reason
    if stable.status == "False" and (stable.x or 0.0) >= DIVERGED_FACTOR * THRESHOLDS["Stable"].enter:
        return "Diverged", "LossPastBound"
    if recovering:
        return "Recovering", "Verifying"
    if fresh.status != "True":
        return "Unknown", fresh.reason
    return _phase_of_heard(conditions, margin, has_baseline)


def _phase_of_heard(conditions: Conditions, margin: float | None, has_baseline: bool) -> tuple[Phase, str]:
    for name, phase in FAILED:
        if conditions[name].is_grave:
            return phase, conditions[name].reason
    for condition in conditions.values():
        if condition.status == "False" and condition.type not in ASIDE:
            return "Stressed", condition.reason
    if margin is not None and margin < STRESSED_MARGIN:
        return "Stressed", "LowMargin"
    return ("Normal", "WithinBaseline") if has_baseline else ("Warmup", "NoBaselineYet")
