"""The faults of the third experiment, and what of a training each of them touches.

A fault of the data belongs to a position in the data, so that data which is skipped does no harm; one of the machine
happens at an update, whatever step the run counts by then.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pilothouse.producers.faults import corrupted

FAULTS = {
    "corrupted data": "16 batches of random characters",
    "NaN batch": "one batch whose loss is NaN",
    "LR fault": "the learning rate is multiplied by 30, for good, in the optimizer and its scheduler",
    "bad rank": "one of four ranks sends its gradient with the wrong sign and 30 times as large, for 12 updates",
    "optimizer state": "Adam's first moments are 256 times as large, once: a bit of their exponents flipped",
    "checkpoint": "the newest checkpoint is damaged on disk, and the next batch is a NaN batch",
}
DATA_BATCHES, BAD_UPDATES, BAD_RANK, BAD_SCALE = 16, 12, 2, -30.0
RATE_SCALE, MOMENT_SCALE = 30.0, 256.0


class Damage:
    """Strikes one training. `at` is the update, and the position in the data, from which on it does."""

    def __init__(self, fault: str, at: int, checkpoints: Path) -> None:
        self._fault, self._at, self._checkpoints = fault, at, checkpoints
        self._struck = False
        self._replaced = set[int]()

    def batch(self, position: int, batch: Tensor) -> Tensor:
        if self._fault == "corrupted data" and self._at <= position < self._at + DATA_BATCHES:
            spoilt: Tensor = corrupted(batch, seed=position, scale=1.0)
            return spoilt
        return batch

    def loss(self, position: int, loss: Tensor) -> Tensor:
        spoils = self._fault in ("NaN batch", "checkpoint") and position == self._at
        return loss * torch.nan if spoils else loss

    def gradients(self, rank: int, done: int, gradients: Sequence[Tensor]) -> None:
        """What a rank sends to the others."""
        if rank in self._replaced:
            return
        if self._fault == "bad rank" and rank == BAD_RANK and self._at <= done < self._at + BAD_UPDATES:
            torch._foreach_mul_(list(gradients), BAD_SCALE)

    def evict(self, rank: int) -> None:
        """The scheduler has a spare: another machine takes the rank's place, with what this one had."""
        self._replaced.add(rank)

    def before_update(
        self, done: int, optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler
    ) -> None:
        """Once, when so many updates are done."""
        if self._struck or done != self._at:
            return
        self._struck = True
        if self._fault == "LR fault":
            scale_rate(optimizer, scheduler, RATE_SCALE)
        elif self._fault == "optimizer state":
            for state in optimizer.state.values():
                state["exp_avg"].mul_(MOMENT_SCALE)
        elif self._fault == "checkpoint":
            damage_newest(self._checkpoints)


def total_norm(tensors: Sequence[Tensor]) -> float:
    """The norm of all of them as one vector."""
    return float(torch.nn.utils.get_total_norm(list(tensors)))


def scale_rate(optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler, by: float) -> None:
    """In the optimizer, and in the scheduler, which would put its own value back at its next step."""
    for group in optimizer.param_groups:
        group["lr"] *= by
    scheduler.base_lrs = [rate * by for rate in scheduler.base_lrs]


def damage_newest(folder: Path) -> None:
    """A few bytes of the newest checkpoint's weights are others."""
    saved = sorted(folder.glob("step-*/model*"), key=lambda file: file.stat().st_mtime)
    if not saved:
        return
    body = bytearray(saved[-1].read_bytes())
    for place in range(len(body) // 2, len(body) // 2 + 64):
        body[place] ^= 0xFF
    saved[-1].write_bytes(bytes(body))
