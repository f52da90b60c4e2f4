"""Scalars on an accelerator, copied without waiting for it and read when the copy is done; bounded in number.

Made by `metrics.values` on the training thread: from there a copy is only enqueued. `delivery.arrivals` asks, on the
outbox's thread, whether it is done, and reads it.
"""

import sys
import threading
from collections import deque
from itertools import count
from typing import Any, Protocol

MAX_IN_FLIGHT = 4_096
"""Numbers of one run on their way at once. Each has a place in pinned memory and an event of its device."""

BYTES = 8
"""Of the largest number."""


class Deferred(Protocol):
    """A number that is still on its way from a device."""

    def ready(self) -> bool:
        """Whether `value` will answer at once."""

    def value(self) -> float:
        """The number."""


class Slot:
    """The right to one copy, given back when whoever holds it is gone, be it read, dropped or forgotten."""

    __slots__ = ("_free", "number", "pinned")

    def __init__(self, free: "deque[int]", number: int, pinned: "Pinned") -> None:
        self._free = free
        self.number = number
        self.pinned = pinned

    def __del__(self) -> None:
        self._free.append(self.number)


class InFlight:
    """How many numbers may be on their way. From any thread, without a lock: a count and a deque's ends are atomic. A
    place that was never used is taken first, then what was given back longest ago.
    """

    def __init__(self, limit: int = MAX_IN_FLIGHT) -> None:
        self.limit = limit
        self._unused = count()
        self._free: deque[int] = deque()
        self._pinned = Pinned(limit)

    def slot(self) -> Slot | None:
        """A free one; None where all are taken."""
        number = next(self._unused)
        if number >= self.limit:
            try:
                number = self._free.popleft()
            except IndexError:
                return None
        return Slot(self._free, number, self._pinned)


class Pinned:
    """Pinned memory for so many numbers of up to eight bytes, allocated in one piece when the first is to be copied,
    and an event for each. Never freed while a run lives: to allocate or free pinned memory may wait for the device.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._memory: Any = None
        self._places: dict[Any, tuple[Any, ...]] = {}
        self._events: dict[int, Any] = {}

    def place(self, number: int, dtype: Any) -> Any:
        """Where to copy a scalar to; None while an earlier copy, whose reader is gone, may still be written there."""
        event = self._events.get(number)
        if event is not None and not event.query():
            return None
        places = self._places.get(dtype)
        return (places if places is not None else self._laid_out(dtype))[number]

    def mark(self, number: int) -> Any:
        """An event behind the copy that was enqueued last, on the current device."""
        event = self._events[number] = sys.modules["torch"].cuda.Event()
        event.record()
        return event

    def _laid_out(self, dtype: Any) -> tuple[Any, ...]:
        torch = sys.modules["torch"]
        with self._lock:
            if self._memory is None:
                self._memory = torch.empty(self._limit * BYTES, dtype=torch.uint8, pin_memory=True)
            self._places[dtype] = self._memory.view(dtype)[:: BYTES // dtype.itemsize].unbind()
            return self._places[dtype]


def copied(tensor: Any, slot: Slot) -> Deferred:
    """A copy of a tensor with one element, on its way; `tensor.device` is neither a CPU nor meta."""
    if tensor.device.type == "cuda" and (place := slot.pinned.place(slot.number, tensor.dtype)) is not None:
        return OnCuda(tensor, slot, place)
    return OnDevice(tensor, slot)


class OnCuda:
    """A scalar on a CUDA device, copied into pinned memory behind the work that makes it: nobody waits for the GPU."""

    def __init__(self, tensor: Any, slot: Slot, place: Any) -> None:
        scalar = tensor.detach()
        if scalar.dim():
            scalar = scalar.reshape(())
        self._slot = slot
        self._place = place
        with sys.modules["torch"].cuda.device(scalar.device):
            place.copy_(scalar, non_blocking=True)
            self._copied = slot.pinned.mark(slot.number)

    def ready(self) -> bool:
        return bool(self._copied.query())

    def value(self) -> float:
        return float(self._place.item())


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
