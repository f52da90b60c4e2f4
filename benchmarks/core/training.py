"""A healthy training as its ranks would tell it, in columnar batches: what the core is fed with.

Half a second is one batch of each rank, a second one Tick. Losses fall, in noise; every rank logs all of its metrics at
every step. Nothing in it alarms, so that what is measured is what a healthy run costs.
"""

import math
import random
from collections.abc import Collection, Iterator
from typing import Any

from pilothouse.events.commands import PolicyActivated, Tick
from pilothouse.events.envelope import LogPlace
from pilothouse.events.telemetry import RunStarted, StepBatch
from pilothouse.events.union import AnyInput, Record
from pilothouse.governance.policy import default_policy_text, policy_hash

RUN = "core"
ROWS = 32
"""Steps in a batch."""
SECOND = 1_000_000
STEPS_A_SECOND = 64
WARM_STEPS = 704
"""Until every window of the detectors is full."""
BEGAN = 1_790_000_000 * SECOND
BESIDE = {
    "lr": 3e-4, "step_s": 0.0156, "tokens_per_s": 1e6, "data_wait_s": 0.0004, "compute_s": 0.0124, "comm_s": 0.0028,
    "accuracy": 0.7, "weight_norm": 31.0, "tokens": 16_384.0, "gpu_util": 0.97,
}  # fmt: skip
"""What is logged beside loss and gradient norm, the first of it first."""
NOISES = 1_009
"""Values of noise, used over and over: making them is no part of what is measured, and takes longer."""

Column = tuple[float, ...]


class Training:
    """The log of one run. `metrics` are logged by each of `ranks` ranks, loss and gradient norm among them; `without`
    leaves some of them out.
    """

    def __init__(self, ranks: int, metrics: int, without: Collection[str] = ()) -> None:
        self.ranks = ranks
        self.step = 0
        beside = BESIDE | {f"layer.{index}.norm": 0.5 for index in range(metrics)}
        self._beside = {
            name: (value,) * ROWS for name, value in list(beside.items())[: metrics - 2] if name not in without
        }
        generator = random.Random(0)
        self._noise = [generator.gauss(0.0, 1.0) for _ in range(NOISES)]
        self._numbers: dict[str, int] = {}
        self._offset = 0

    def opening(self, *, governed: bool) -> Iterator[Record]:
        """What comes before the first step; `governed` by the policy that is shipped."""
        if governed:
            text = default_policy_text()
            yield self._record(
                PolicyActivated(
                    name="default", text=text, policy_hash=policy_hash(text), who="bench", **self._told("policy")
                )
            )
        started = {"reason": "start", "first_step": 0, "world_size": self.ranks}
        yield self._record(RunStarted.model_validate(self._of_rank(0) | started))

    def batches(self) -> list[Record]:
        """The next steps of all ranks, `ROWS` of them."""
        steps = tuple(range(self.step, self.step + ROWS))
        times = tuple(self._at(step) for step in steps)
        self.step += ROWS
        return [self._batch(rank, steps, times) for rank in range(self.ranks)]

    def ticks(self) -> list[Record]:
        """The seconds that are full with the last steps."""
        if self.step % STEPS_A_SECOND:
            return []
        return [self._record(Tick(at=self._at(self.step), partition=0, writer_id="ticker", seq=self._next("ticker")))]

    def _batch(self, rank: int, steps: tuple[int, ...], times: tuple[int, ...]) -> Record:
        columns = self._beside | {"loss": self._loss(rank, steps), "grad_norm": self._grad_norm(steps)}
        # Checking a thousand columns would take longer than the measurement: they are what they should be.
        return self._record(StepBatch.model_construct(steps=steps, times=times, metrics=columns, **self._of_rank(rank)))

    def _loss(self, rank: int, steps: tuple[int, ...]) -> Column:
        return tuple(2.0 + 2.0 * math.exp(-step / 2_000) + 0.03 * self._gauss(rank, step) for step in steps)

    def _grad_norm(self, steps: tuple[int, ...]) -> Column:
        """Of the gradient that all ranks have after its reduction."""
        return tuple(math.exp(0.2 * self._gauss(500, step)) for step in steps)

    def _gauss(self, rank: int, step: int) -> float:
        return self._noise[(step + 31 * rank) % NOISES]

    def _of_rank(self, rank: int) -> dict[str, Any]:
        return {**self._told(f"rank-{rank}"), "attempt_id": "attempt-1", "attempt": 1, "rank": rank}

    def _told(self, writer: str) -> dict[str, Any]:
        return {"run_id": RUN, "writer_id": writer, "seq": self._next(writer), "at": self._at(self.step)}

    def _next(self, writer: str) -> int:
        self._numbers[writer] = self._numbers.get(writer, 0) + 1
        return self._numbers[writer]

    def _at(self, step: int) -> int:
        return BEGAN + step * SECOND // STEPS_A_SECOND

    def _record(self, event: AnyInput) -> Record:
        self._offset += 1
        return Record(LogPlace(0, 0, self._offset), event)
