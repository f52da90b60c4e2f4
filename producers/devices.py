"""Scalars on an accelerator, copied without waiting for it and read when the copy is done; bounded in number.

Made by `producers.values` on the training thread: from there a copy is only enqueued. `producers.arrivals` asks, on the
outbox's thread, whether it is done, and reads it.
"""

import sys
from collections import deque
from itertools import repeat
from typing import Any, Protocol

MAX_IN_FLIGHT = 4_096
"""Numbers of one run on their way at once. Each holds pinned memory and an event of the device."""


class Deferred(Protocol):
    """A number that is still on its way from a device."""

    def ready(self) -> bool:
        """Whether `value` will answer at once."""

    def value(self) -> float:
        """The number."""


class Slot:
    """The right to one copy, given back when whoever holds it is gone, be it read, dropped or forgotten."""

    __slots__ = ("_free",)

    def __init__(self, free: "deque[None]") -> None:
        self._free = free

    def __del__(self) -> None:
        self._free.append(None)


class InFlight:
    """How many numbers may be on their way. From any thread, without a lock: a deque's ends are atomic."""

    def __init__(self, limit: int = MAX_IN_FLIGHT) -> None:
        self.limit = limit
        self._free: deque[None] = deque(repeat(None, limit))

    def slot(self) -> Slot | None:
        """A free one; None where all are taken."""
        try:
            self._free.pop()
        except IndexError:
            return None
        return Slot(self._free)


def copied(tensor: Any, slot: Slot) -> Deferred:
    """A copy of a tensor with one element, on its way; `tensor.device` is neither a CPU nor meta."""
    return OnCuda(tensor, slot) if tensor.device.type == "cuda" else OnDevice(tensor, slot)


class OnCuda:
    """A scalar on a CUDA device, copied into pinned memory behind the work that makes it: nobody waits for the GPU."""

    def __init__(self, tensor: Any, slot: Slot) -> None:
        torch = sys.modules["torch"]
        self._slot = slot
        scalar = tensor.detach().reshape(())
        self._host = torch.empty((), dtype=scalar.dtype, pin_memory=True)
        with torch.cuda.device(scalar.device):
            self._host.copy_(scalar, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def ready(self) -> bool:
        return bool(self._copied.query())

    def value(self) -> float:
        return float(self._host.item())


class OnDevice:
    """A scalar on another kind of device: kept as a copy there, read by the background thread, which may wait for
    it.
    """

    def __init__(self, tensor: Any, slot: Slot) -> None:
        self._slot = slot
        self._copy = tensor.detach().clone()

    def ready(self) -> bool:
        return True

    def value(self) -> float:
        return float(self._copy.item())
