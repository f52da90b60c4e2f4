"""From the features of a step to the conditions they speak of: one judge a condition, each of them pure.

`judging` asks them in the order of `OF_A_STEP` and notes what they conclude. A judge that lacks what it needs leaves
its condition as it is: no data is no news.
"""

from collections.abc import Callable, Mapping

from ..events.decisions import ConditionType
from ..governance import conditions as judge
from ..governance.conditions import Condition, Verdict
from .rank_verdicts import synchronized

Features = Mapping[str, float]
Judge = Callable[[Condition, Features, int], Verdict]
"""The condition as it stands (its statistic and its run-lengths are the judge's to keep), the features of one more
step, and the first step of what is wrong now (-1: nothing is).
"""
STABLE_EVIDENCE = ("loss", "loss_z", "loss_baseline", "loss_scale", "loss_drift", "grad_z", "instability")


def unchanged(condition: Condition) -> Verdict:
    """What is known already."""
    return Verdict(condition.status, condition.reason, condition.message, condition.evidence)


def finite(condition: Condition, seen: Features, _: int) -> Verdict:
    count = seen["nonfinite"]
    condition.x = count
    if count:
        message = f"{count:.0f} losses or gradient norms are NaN or infinite"
        return Verdict("False", "NonFinite", message, {"nonfinite": count})
    if "loss" not in seen and "grad_norm" not in seen:
        return unchanged(condition)
    return Verdict("True", "AllFinite", "losses and gradient norms are finite")


def stable(condition: Condition, seen: Features, onset: int) -> Verdict:
    x = seen.get("instability")
    if x is None:
        return unchanged(condition)
    if judge.hysteresis(condition, judge.STABLE, x) == "True":
        return Verdict("True", "WithinBaseline", "the loss is within its recent range")
    evidence = {name: seen[name] for name in STABLE_EVIDENCE if name in seen} | {"enter": judge.STABLE.enter}
    if seen["loss_drift"] >= x:
        message = f"the loss has climbed to {seen['loss']:.4g} since step {onset}"
        return Verdict("False", "LossClimbing", message, evidence)
    message = f"loss {seen['loss']:.4g} is {seen['loss_z']:.1f} scale units above its recent median"
    return Verdict("False", "LossAboveBaseline", f"{message} {seen['loss_baseline']:.4g}", evidence)


OF_A_STEP: tuple[tuple[ConditionType, Judge], ...] = (
    ("Finite", finite), ("Stable", stable), ("Synchronized", synchronized),
)  # fmt: skip
