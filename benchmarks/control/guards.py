"""What others do about a gradient, step by step as they do it: clipping, ZClip, skip-step at six deviations.

The rules are those of `benchmarks.detection.peers`, which name their sources and judge whole series; a test holds these
to them. What a peer does about an alarm is added here: ZClip clips to what it counts, OLMo-core skips the update.
"""

from collections import deque
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Protocol

import torch
from torch import Tensor

from .recipe import Peer

ZCLIP_MAX = 1.0
"""ZClip clips at 1 besides, by its default."""


class Guard(Protocol):
    """Stands between the gradients and the update."""

    def admit(self, loss: float, norm: float, gradients: Sequence[Tensor]) -> bool:
        """May change the gradients; whether the update may be made."""

    @property
    def alarmed(self) -> bool:
        """Whether the last step looked wrong to it."""


class Plain:
    """Every update as it comes; clipped, where there is a bound."""

    alarmed = False

    def __init__(self, clip: float = 0.0) -> None:
        self._clip = clip

    def admit(self, _loss: float, norm: float, gradients: Sequence[Tensor]) -> bool:
        if self._clip:
            scale_to(gradients, norm, self._clip)
        return True


class ZClip:
    """ZClip with its defaults (arXiv 2504.02507); a NaN blinds it for good, as it does theirs."""

    def __init__(self) -> None:
        self.alarmed = False
        self._first: list[float] = []
        self._mean = self._variance = 0.0

    def admit(self, _loss: float, norm: float, gradients: Sequence[Tensor]) -> bool:
        scale_to(gradients, norm, min(ZCLIP_MAX, self.bound(norm)))
        return True

    def bound(self, norm: float) -> float:
        """The norm that it clips to, having learnt this one."""
        self.alarmed = False
        if len(self._first) < 25:
            self._first.append(norm)
            if len(self._first) == 25:
                self._mean = sum(self._first) / 25
                self._variance = sum((known - self._mean) * (known - self._mean) for known in self._first) / 25
            return norm
        deviation = self._variance**0.5
        z = (norm - self._mean) / (deviation + 1e-6)
        self.alarmed = z > 2.5
        counted = self._mean + 2.5 * deviation * 2.5 / z if self.alarmed else norm
        self._mean = 0.97 * self._mean + 0.03 * counted
        self._variance = 0.97 * self._variance + 0.03 * (counted - self._mean) * (counted - self._mean)
        return counted


class SkipStep:
    """OLMo-core's SkipStepOptimizer: no update whose loss or gradient norm stands out by six deviations of 128."""

    def __init__(self) -> None:
        self.alarmed = False
        self._losses: deque[float] = deque(maxlen=128)
        self._norms: deque[float] = deque(maxlen=128)

    def admit(self, loss: float, norm: float, _gradients: Sequence[Tensor]) -> bool:
        self.alarmed = len(self._losses) >= 63 and (_stands_out(loss, self._losses) or _stands_out(norm, self._norms))
        self._losses.append(loss)
        self._norms.append(norm)
        return not self.alarmed


def _stands_out(value: float, window: Sequence[float]) -> bool:
    if not all(abs(known) < float("inf") for known in window):
        return True  # their comparison with a NaN is false, and false is a skip
    return not value - fmean(window) <= 6.0 * stdev(window)


def guard_of(peer: Peer, clip: float) -> Guard:
    match peer:
        case "zclip":
            return ZClip()
        case "skip":
            return SkipStep()
        case "clip":
            return Plain(1.0)
        case "":
            return Plain(clip)


def scale_to(gradients: Sequence[Tensor], norm: float, bound: float) -> None:
    """As torch's `clip_grad_norm_`: a norm that is not finite spoils every gradient."""
    factor = bound / (norm + 1e-6)
    if not factor >= 1.0:
        torch._foreach_mul_(list(gradients), factor)
