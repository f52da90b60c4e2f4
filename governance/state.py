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

Conditions = Mapping[ConditionType, Condition]


def stability_margin(conditions: Conditions) -> float | None:
    """The least of clip((enter - x) / (enter - baseline), 0, 1) over the known conditions; None when nothing is
    known.

    1 is the run's own baseline, 0 the threshold. A False condition has margin 0; one without a statistic counts when
    it is False.
    """
    margins = [margin for condition in conditions.values() if (margin := _margin(condition)) is not None]
    return min(margins, default=None)


def _margin(condition: Condition) -> float | None:
    if condition.status == "Unknown" or condition.type in ASIDE:
        return None
    if condition.status == "False":
        return 0.0
    threshold = THRESHOLDS.get(condition.type)
    if threshold is None or condition.x is None:
        return 1.0
    return min(1.0, max(0.0, (threshold.enter - condition.x) / (threshold.enter - threshold.baseline)))


def phase_of(conditions: Conditions, *, outcome: str, recovering: bool, has_baseline: bool) -> tuple[Phase, str]:
    """The first phase that holds, and the reason for it in one CamelCase word. `outcome` is how the run ended, "" while
    it goes on.
    """
    stable, margin = conditions["Stable"], stability_margin(conditions)
    past_bound = stable.status == "False" and (stable.x or 0.0) >= DIVERGED_FACTOR * THRESHOLDS["Stable"].enter
    watched = (condition for condition in conditions.values() if condition.type not in ASIDE)
    failing = next((condition for condition in watched if condition.status == "False"), None)
    in_order: tuple[tuple[bool, Phase, str], ...] = (
        (outcome != "", "Ended", outcome),
        (conditions["Finite"].status == "False", "Diverged", conditions["Finite"].reason),
        (past_bound, "Diverged", "LossPastBound"),
        (recovering, "Recovering", "Verifying"),
        (conditions["TelemetryFresh"].status != "True", "Unknown", conditions["TelemetryFresh"].reason),
        (stable.status == "False", "Unstable", stable.reason),
        (conditions["Progressing"].is_grave, "Stalled", conditions["Progressing"].reason),
        (failing is not None, "Stressed", failing.reason if failing else ""),
        (margin is not None and margin < STRESSED_MARGIN, "Stressed", "LowMargin"),
        (not has_baseline, "Warmup", "NoBaselineYet"),
        (True, "Normal", "WithinBaseline"),
    )
    return next((phase, reason) for holds, phase, reason in in_order if holds)
