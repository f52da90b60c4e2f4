"""What every contestant logs, and the training step it logs after: the same for all.

An event is twelve scalars, made anew for each step, as a loop would have computed them a moment ago. A step is a fixed
amount of real work: matrix products, and a walk through more memory than the caches hold.
"""

import time
from collections.abc import Callable
from typing import Any

NAMES = (
    "loss", "grad_norm", "lr", "tokens", "tokens_per_s", "data_wait_s",
    "compute_s", "comm_s", "accuracy", "perplexity", "weight_norm", "gpu_util",
)  # fmt: skip
STEP_SECONDS = 0.002
_WIDTH, _MEMORY, _STRIDE = 192, 8 * 1024 * 1024, 65_536
_CALIBRATION = 400


def event(step: int) -> dict[str, float]:
    """The metrics of one step."""
    metrics: dict[str, float] = {name: (step * 31 + index) % 997 / 7.0 for index, name in enumerate(NAMES)}
    metrics["tokens"] = 4_096 + step % 7
    return metrics


def in_keywords(log: Callable[..., object]) -> Callable[[int, dict[str, float]], None]:
    """`log(step, loss=..., ...)` as a script writes it. `log(step, **metrics)` would make a second dictionary first."""

    def call(step: int, of: dict[str, float]) -> None:
        log(
            step, loss=of["loss"], grad_norm=of["grad_norm"], lr=of["lr"], tokens=of["tokens"],
            tokens_per_s=of["tokens_per_s"], data_wait_s=of["data_wait_s"], compute_s=of["compute_s"],
            comm_s=of["comm_s"], accuracy=of["accuracy"], perplexity=of["perplexity"], weight_norm=of["weight_norm"],
            gpu_util=of["gpu_util"],
        )  # fmt: skip

    return call


class Work:
    """One step's work, `turns` matrix products long."""

    def __init__(self, turns: int) -> None:
        import numpy

        self.turns = turns
        generator = numpy.random.default_rng(0)
        self._matrix: Any = generator.random((_WIDTH, _WIDTH), dtype=numpy.float32)
        self._memory: Any = numpy.zeros(_MEMORY, dtype=numpy.float32)
        self._at = 0

    def do(self) -> None:
        for _ in range(self.turns):
            self._matrix @ self._matrix
            self._memory[self._at : self._at + _STRIDE] += 1.0
            self._at = (self._at + _STRIDE) % _MEMORY


def calibrated_turns() -> int:
    """How many turns take a step's time on this machine, now."""
    work = Work(1)
    took: list[float] = []
    for _ in range(_CALIBRATION):
        began = time.perf_counter()
        work.do()
        took.append(time.perf_counter() - began)
    return max(1, round(STEP_SECONDS / sorted(took)[_CALIBRATION // 2]))
