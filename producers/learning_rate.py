"""The learning rate's multiplier: applied after the user's scheduler, only while the optimizer steps, and taken off
again.

A learning rate that is merely set lasts until the scheduler's next step. So `producers.actuators` steers a factor: a
hook multiplies every group's `lr` when `optimizer.step()` begins, another puts the very value back when it ends;
schedulers, loggers and checkpoints never see it. At a multiplier of 1 nothing is touched.
"""

from collections.abc import Sequence
from typing import Any

MULTIPLIER_MIN = 1e-4
MULTIPLIER_MAX = 10.0


class LrMultiplier:
    """One factor over the learning rates of some optimizers."""

    def __init__(self, optimizers: Sequence[Any], value: float = 1.0) -> None:
        self.value = value
        self._optimizers: list[Any] = []
        self._lent: dict[int, list[tuple[dict[str, Any], Any, Any]]] = {}
        self._hooks: list[Any] = []
        for optimizer in optimizers:
            self.add(optimizer)

    def add(self, optimizer: Any) -> None:
        """Multiply this one's rate as well, from its next step on."""
        self._optimizers.append(optimizer)
        self._hooks += [
            optimizer.register_step_pre_hook(self._begin_step),
            optimizer.register_step_post_hook(self._end_step),
        ]

    @property
    def learning_rate(self) -> float | None:
        """What the first group of the first optimizer steps with; None without optimizers."""
        for optimizer in self._optimizers:
            self._give_back(optimizer)
            return float(optimizer.param_groups[0]["lr"]) * self.value
        return None

    def settle(self) -> None:
        """Put back what a step that raised left multiplied; before anybody reads or saves the optimizers."""
        for optimizer in self._optimizers:
            self._give_back(optimizer)

    def detach(self) -> None:
        """Take the hooks off: the optimizers are as if we had never been there."""
        self.settle()
        for hook in self._hooks:
            hook.remove()

    def _begin_step(self, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        self._give_back(optimizer)
        if self.value == 1.0:
            return
        lent = self._lent[id(optimizer)] = []
        tensors: set[int] = set()
        for group in optimizer.param_groups:
            own = group["lr"]
            if id(own) in tensors:
                continue  # one tensor may serve several groups
            if hasattr(own, "mul_"):
                tensors.add(id(own))
                # In place: compiled and captured optimizers hold on to this very tensor.
                kept = own.clone()
                own.mul_(self.value)
                lent.append((group, kept, own.clone()))
            else:
                group["lr"] = own * self.value
                lent.append((group, own, group["lr"]))

    def _end_step(self, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        self._give_back(optimizer)

    def _give_back(self, optimizer: Any) -> None:
        for group, own, multiplied in self._lent.pop(id(optimizer), ()):
            current = group["lr"]
            if bool(current != multiplied):
                continue  # the step raised, and somebody has set another rate since: theirs counts
            if hasattr(current, "copy_"):
                current.copy_(own)
            else:
                group["lr"] = own
