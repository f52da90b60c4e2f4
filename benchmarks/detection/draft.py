"""A training that is being made: its healthy base, to which `healthy` and `families` do something. Pure.

The base is a language model's: a loss that falls as a power law, noise that is heavy-tailed and correlated from step to
step, a gradient norm that scatters in its logarithm. Their sizes are those of public runs: noise of 0.5 to 3% of the
loss, an autocorrelation up to 0.6, Student's t with 4 degrees of freedom. Everything comes from the seed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .series import Incident

ROWS = 3_000
RANKS = 4
FAULT_BETWEEN = (0.1, 0.8)
"""Where in a training something goes wrong, as a share of its rows."""

Array = NDArray[np.float64]


@dataclass
class Draft:
    """A training that is being made. Arrays have a value a row; `loss`, `norm` and `rate` are those of all ranks."""

    rng: np.random.Generator
    rows: int
    loss: Array
    noise: Array
    norm: Array
    rate: Array
    throughput: Array
    step_seconds: Array
    incidents: list[Incident] = field(default_factory=list)
    changes: list[int] = field(default_factory=list)
    restarts: list[int] = field(default_factory=list)
    pauses: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    own: dict[int, dict[str, Array]] = field(default_factory=dict)
    """What one rank logs otherwise than the rest."""
    ranks: int = 1
    knows_loss: int | None = None
    """The only rank that does, where it is one."""
    gap: Array | None = None
    """By how much the validation loss is above the training loss without noise; None: no evaluations."""
    silence: float = 0.0

    def onset(self) -> int:
        low, high = FAULT_BETWEEN
        return int(self.rng.uniform(low, high) * self.rows)

    def wrong(self, kind: str, first: int, last: int) -> None:
        self.incidents.append(Incident(kind, first, min(last, self.rows - 1)))


Change = Callable[[Draft], None]


def draft(seed: int, rows: int = ROWS) -> Draft:
    """A healthy training without anything particular."""
    rng = np.random.default_rng(seed)
    at = np.arange(rows)
    start, floor = rng.uniform(6.0, 11.0), rng.uniform(1.5, 3.5)
    trend = floor + (start - floor) * (1.0 + at / rng.uniform(5.0, 60.0)) ** -rng.uniform(0.35, 0.8)
    noise = trend * rng.uniform(0.005, 0.03) * correlated(rng, rows, rng.uniform(0.0, 0.6))
    decay = 0.3 + 2.0 * np.exp(-at / rng.uniform(50.0, 400.0))
    norm = decay * np.exp(rng.uniform(0.05, 0.3) * correlated(rng, rows, rng.uniform(0.0, 0.5)))
    rate = 3e-4 * np.minimum(1.0, (at + 1) / 100)
    speed = rng.uniform(1e4, 1e6)
    throughput = speed * (1.0 + 0.02 * rng.standard_normal(rows))
    throughput[0] *= 0.2
    seconds = np.full(rows, 1.0)
    return Draft(rng, rows, trend, noise, norm, rate, throughput, seconds, steps=list(range(rows)))


def correlated(rng: np.random.Generator, rows: int, correlation: float) -> Array:
    """Noise of unit variance: Student's t of 4 degrees of freedom through a first-order recursion."""
    shocks = rng.standard_t(4, rows) / math.sqrt(2.0)
    noise = np.empty(rows)
    value = 0.0
    for row in range(rows):
        value = correlation * value + math.sqrt(1.0 - correlation**2) * shocks[row]
        noise[row] = value
    return noise
