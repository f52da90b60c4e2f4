"""Bounds: between which values an action may leave what it changes, and how far it may go at once.

Part of the vocabulary, for the same question is asked twice: by `governance.decide` of the values that receipts told,
and by `producers.steering.actuators` of those at the moment of applying. They travel with the command
(`InterventionIssued.bounds`). What an action may never do, whatever a policy says, stands in the action itself.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Quantity = Literal[
    "lr_multiplier", "lr", "clip", "weight_decay", "dropout", "loss_weight", "batch_size", "skip_batches"
]
"""What may be bounded: values that actions leave in force, and how many batches one of them may skip."""

SLACK = 1e-9
"""Relative: 0.1 in three parts is not less than 0.1."""


class Bound(BaseModel):
    """The bounds of one quantity. `min`, `max` and `allowed` are absolute; at once it may change by `step`, and to
    `ratio` times as much or as little, at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min: float | None = None
    max: float | None = None
    step: Annotated[float, Field(gt=0.0)] | None = None
    ratio: Annotated[float, Field(gt=1.0)] | None = None
    allowed: Annotated[tuple[float, ...], Field(max_length=64)] = ()

    @model_validator(mode="after")
    def _leaves_something(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is more than max {self.max:g}")
        outside = [value for value in self.allowed if _absolutely(self, value)]
        if outside:
            raise ValueError(f"allowed {outside[0]:g} lies outside min and max")
        return self


Bounds = Mapping[Quantity, Bound]


def beyond(bounds: Mapping[Quantity, Bound], before: Mapping[str, float], after: Mapping[str, float]) -> str | None:
    """Which bound an action would break that leaves these values, in words; None where it breaks none. `before` are the
    values in force, as far as they are known: what is not says nothing about steps and ratios.
    """
    for name, bound in bounds.items():
        if name in after and (said := _broken(bound, before.get(name), after[name])):
            was = f", from {before[name]:g}" if name in before else ""
            return f"{name} would be {after[name]:g}{was}: {said}"
    return None


def _broken(bound: Bound, before: float | None, after: float) -> str:
    if said := _absolutely(bound, after):
        return said
    if bound.allowed and not any(_same(after, value) for value in bound.allowed):
        return f"allowed are {', '.join(f'{value:g}' for value in bound.allowed)}"
    if before is None or not math.isfinite(before):
        return ""
    if bound.step is not None and abs(after - before) > bound.step * (1 + SLACK):
        return f"at most {bound.step:g} more or less at once"
    if bound.ratio is not None and not _within_ratio(bound.ratio, before, after):
        return f"at most {bound.ratio:g} times as much or as little at once"
    return ""


def _absolutely(bound: Bound, value: float) -> str:
    if bound.min is not None and value < bound.min and not _same(value, bound.min):
        return f"at least {bound.min:g}"
    if bound.max is not None and value > bound.max and not _same(value, bound.max):
        return f"at most {bound.max:g}"
    return ""


def _within_ratio(ratio: float, before: float, after: float) -> bool:
    least, most = sorted((abs(before), abs(after)))
    return most <= least * ratio * (1 + SLACK) and before * after >= 0


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=SLACK)
