"""The learning rate's multiplier: applied after the user's scheduler, only while the optimizer steps, and taken off
again.

A learning rate that is merely set lasts until the scheduler's next step. So `steering.actuators` steers a factor: a
hook multiplies every group's `lr` when `optimizer.step()` begins, another puts the very value back when it ends;
schedulers, loggers and checkpoints never see it. At a multiplier of 1 nothing is touched.

What a rollback cuts may come back by a ramp: a second factor, a function of the step alone, so that all ranks step with
the same rate without another word.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MULTIPLIER_MIN = 1e-4
MULTIPLIER_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Ramp:
    """Back from a cut in equal parts: `factor` at the safe point after step `first`, 1 after `steps` more."""

    factor: float
    first: int
    steps: int

    def at(self, step: int) -> float:
        return self.factor + (1.0 - self.factor) * min(max(step - self.first, 0) / self.steps, 1.0)


class LrMultiplier:
    """One factor over the learning rates of some optimizers: what commands `steered`, times what a ramp holds back."""

    def __init__(self, optimizers: Sequence[Any], steered: float = 1.0) -> None:
        self.steered = steered
        self.ramp: Ramp | None = None
        self._eased = 1.0
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

    @property
    def numbers(self) -> dict[str, float]:
        """What a receipt says of it."""
        rate = self.learning_rate
        return {"lr_multiplier": self.value} | ({"lr": rate} if rate is not None else {})

    @property
    def value(self) -> float:
        """What is in force now."""
        return self.steered * self._eased

    @value.setter
    def value(self, value: float) -> None:
        self.steered = value / self._eased

    def beyond(self, factor: float) -> bool:
        """Whether a change by `factor` would leave the bounds, now or at the end of a ramp."""
        return any(not MULTIPLIER_MIN <= known * factor <= MULTIPLIER_MAX for known in (self.value, self.steered))

    def cut(self, factor: float, ramp_steps: int, step: int) -> None:
        """Multiply what is in force by `factor`; over `ramp_steps` steps from `step` on it comes back, where any."""
        if not ramp_steps:
            self.value *= factor
            return
        self.go_on(Ramp(self._eased * factor, step, ramp_steps), step)

    def go_on(self, ramp: Ramp | None, step: int) -> None:
        """Be where this ramp is at `step`."""
        self.ramp = ramp
        self._eased = 1.0 if ramp is None else ramp.at(step)

    def reached(self, step: int) -> bool:
        """The safe point after `step`; whether a ramp ended here."""
        if self.ramp is None:
            return False
        over = step >= self.ramp.first + self.ramp.steps
        self.go_on(None if over else self.ramp, step)
        return over

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
