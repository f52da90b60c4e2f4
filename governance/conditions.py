"""Conditions: typed statements about a run, each True, False or Unknown, with the evidence they were judged by.

`hysteresis` is a small machine: a condition becomes False when its statistic has reached `enter` for
`for_steps` judgements in a row, and True again when it has stayed under `exit` for `keep_for`. Called by
`stream_processors.verdicts` once per judged step; `state` derives the phase
from the result.
"""

from collections.abc import Iterable, Mapping
from typing import get_args

import msgspec

from ..events.decisions import ConditionType, Status

JUDGED: tuple[ConditionType, ...] = get_args(ConditionType)
"""All conditions, in the order in which they are reported."""
NO_STEP_ENDED = "NoStepEnded"
"""The reason for which `Progressing` is grave: the others are about what a run learns, not about whether it runs."""


class Condition(msgspec.Struct):
    """One condition of one run. `x` is its statistic as last judged, None where it has none or it is not known."""

    type: ConditionType
    status: Status = "Unknown"
    reason: str = "NotJudged"
    message: str = ""
    since_step: int = -1
    x: float | None = None
    above: int = 0
    below: int = 0
    evidence: dict[str, float] = {}

    @property
    def is_grave(self) -> bool:
        """Whether the run itself is in danger, or stands still: an incident, which a person may be woken for."""
        grave = self.type in ("Finite", "Stable") or self.reason == NO_STEP_ENDED
        return self.status == "False" and grave


class Threshold(msgspec.Struct, frozen=True):
    """When a statistic makes a condition False, and when it is True again. `baseline` is its value in health."""

    enter: float
    exit: float
    for_steps: int
    keep_for: int
    baseline: float = 0.0


STABLE = Threshold(enter=1.0, exit=0.5, for_steps=1, keep_for=5)
"""On the feature `instability`, which knows how long something must last and counts in units of this bound."""

LEARNING = Threshold(enter=1.0, exit=0.5, for_steps=1, keep_for=1)
"""On `grad_vanishing`, `plateau` and `overfitting`, which are judged by blocks and know themselves what lasts."""

EFFICIENT = Threshold(enter=1.0, exit=0.5, for_steps=1, keep_for=1)
"""On what makes a run slow, each in units of what it takes to alarm, and judged by blocks."""

DRIFT = Threshold(enter=1.0, exit=0.4, for_steps=1, keep_for=1)
"""On how far an input has drifted (`detectors.inputs`), in units of what it takes to say so."""

ASIDE: frozenset[ConditionType] = frozenset({"InDistribution"})
"""Conditions that only people look at: no phase, no margin and no incident does."""

SYNCHRONIZED = Threshold(enter=1.0, exit=0.5, for_steps=1, keep_for=5)
"""On `ranks_disagree` and `rank_apart`, which know how long something must last."""

THRESHOLDS: dict[ConditionType, Threshold] = {
    "Stable": STABLE,
    "Progressing": Threshold(enter=1.0, exit=1.0, for_steps=1, keep_for=1),
}
"""What the stability margin measures its distance to. `Progressing` is time without a step over the time allowed."""


class Verdict(msgspec.Struct, frozen=True):
    """What a judgement concluded about a condition, before it is compared with what was known."""

    status: Status
    reason: str
    message: str
    evidence: dict[str, float] = {}


def hysteresis(condition: Condition, threshold: Threshold, x: float) -> Status:
    """The status after one more value of the statistic; counts the run-length in `condition`."""
    condition.x = x
    condition.above = condition.above + 1 if x >= threshold.enter else 0
    condition.below = condition.below + 1 if x < threshold.exit else 0
    if condition.above >= threshold.for_steps:
        return "False"
    if condition.status == "False" and condition.below < threshold.keep_for:
        return "False"
    return "True"


def unchanged(condition: Condition) -> Verdict:
    """What is known already."""
    return Verdict(condition.status, condition.reason, condition.message, condition.evidence)


def evidence(
    seen: Mapping[str, float], names: Iterable[str], threshold: Threshold, window_steps: int, onset_step: float
) -> dict[str, float]:
    """Those of the features that are known, the bound that they were held against, over how many steps (rows, where not
    every step has one) they were looked at, and since when it has been so, estimated backwards (-1: not known).
    """
    told = {name: seen[name] for name in names if name in seen} | {"enter": threshold.enter}
    told["window_steps"] = float(window_steps)
    return told | {"onset_step": float(onset_step)} if onset_step >= 0 else told


def forget(condition: Condition, reason: str) -> None:
    """Start over: what was known does not hold for what comes (a rollback, a restart)."""
    condition.x, condition.above, condition.below = None, 0, 0
    condition.status, condition.reason, condition.message, condition.evidence = "Unknown", reason, "", {}
