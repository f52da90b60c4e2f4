"""The gradient norm against its own recent past, always in its logarithm: norms scatter by factors."""

import math

import msgspec

from .sample import StepSample
from .usual import Recent

FLOOR = 0.05
"""The least noise: five percent of the norm."""


class GradientState(msgspec.Struct):
    """What is remembered of the norm."""

    log_norm: Recent = msgspec.field(default_factory=Recent)


def observe(state: GradientState, sample: StepSample, *, learning: bool) -> dict[str, float]:
    """`grad_z`, once there is a baseline. A norm that is zero or not finite has no logarithm and says nothing here."""
    if sample.grad_norm is None or not math.isfinite(sample.grad_norm) or sample.grad_norm <= 0.0:
        return {}
    value = math.log(sample.grad_norm)
    usual = state.log_norm.baseline(FLOOR)
    if learning or usual is None:
        state.log_norm.push(sample.step, value, usual)
    return {} if usual is None else {"grad_z": usual.z(value)}


def rewind(state: GradientState, step: int) -> None:
    """The run went back to `step`: keep only what was seen up to there."""
    state.log_norm.rewind(step)
