"""Records that have a number and are not yet confirmed: the older ones on disk (`delivery.spool`), the newer in
memory.

One sequence in two places, owned by the outbox's thread. Its front is the *window*: what the broker was given and has
not yet confirmed. When a connection is given up the window is rewound, and everything unconfirmed goes again, in order.

A number that cannot be sent (the broker refuses the record, its file is damaged) is not left out: a *stand-in*, a
`TelemetryGap` with that very number, takes its place, so that readers never meet a hole that nothing explains.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from .batching import Outgoing
from .spool import Lost, Spool

MEMORY_BYTES = 8 * 1024 * 1024
"""When this much waits in memory (the disk is full, or there is none), nothing more should be given a number."""


class Settled(NamedTuple):
    """A number is done with: `entries` calls were delivered, or, where a stand-in went in their place, lost."""

    entries: int
    lost: bool


class _Held(NamedTuple):
    record: Outgoing
    since: float


class _Out(NamedTuple):
    record: Outgoing
    on_disk: bool


class Backlog:
    """First in, first out, of numbered records. `stand_in` makes the record that takes the place of `Lost` ones."""

    def __init__(self, spool: Spool, stand_in: Callable[[Lost], Outgoing]) -> None:
        self.spool = spool
        self._stand_in = stand_in
        self._stand_ins: dict[int, Outgoing] = {}
        self._memory: deque[_Held] = deque()
        self._memory_bytes = 0
        self._window: deque[_Out] = deque()
        self._next: _Out | None = None

    def __bool__(self) -> bool:
        return bool(self._memory) or bool(self.spool)

    @property
    def full(self) -> bool:
        """Whether memory holds as much as it may."""
        return self._memory_bytes >= MEMORY_BYTES

    @property
    def in_memory(self) -> int:
        """Calls whose record waits in memory."""
        return sum(held.record.entries for held in self._memory)

    @property
    def on_disk(self) -> int:
        """Calls whose record waits on disk."""
        return self.spool.entries

    @property
    def window(self) -> tuple[int, int]:
        """How many records the broker was given and has not confirmed, and the size of the largest."""
        return len(self._window), max((out.record.size for out in self._window), default=0)

    def waits_since(self) -> float | None:
        """Since when (the caller's clock) the oldest record in memory waits."""
        return self._memory[0].since if self._memory else None

    def push(self, record: Outgoing, now: float) -> None:
        """A new record, behind all others."""
        self._memory.append(_Held(record, now))
        self._memory_bytes += record.size

    def peek(self) -> Outgoing | None:
        """The record behind the window."""
        if self._next is None:
            self._next = self._from_disk() or self._from_memory()
        return self._next.record if self._next is not None else None

    def take(self) -> Outgoing:
        """Move the record of `peek` into the window."""
        if self.peek() is None or self._next is None:
            raise LookupError("nothing is left to take")
        out, self._next = self._next, None
        self._window.append(out)
        return out.record

    def first(self) -> Outgoing:
        """The first of the window."""
        return self._window[0].record

    def first_is_stand_in(self) -> bool:
        """Whether the first of the window stands for a record that cannot be sent."""
        return self._window[0].record.seq in self._stand_ins

    def confirm(self) -> Settled:
        """The first of the window is safe in the log."""
        out = self._window.popleft()
        if out.on_disk:
            self.spool.release()
        else:
            self._memory_bytes -= self._memory.popleft().record.size
        lost = self._stand_ins.pop(out.record.seq, None) is not None
        return Settled(out.record.entries, lost)

    def refuse(self, stand_in: Outgoing) -> None:
        """The first of the window will never be taken: send `stand_in`, of the same number, instead; and all behind
        it again.
        """
        self._stand_ins[stand_in.seq] = stand_in
        self.rewind()

    def rewind(self) -> None:
        """Nothing in the window counts as given any more."""
        self._window.clear()
        self._next = None
        self.spool.rewind()

    def spill(self) -> bool:
        """Move memory to disk, oldest first; False where the disk takes no more."""
        in_window = sum(not out.on_disk for out in self._window)
        if self._next is not None and not self._next.on_disk:
            self._next = None
        while self._memory and self.spool.append(self._memory[0].record):
            self._memory_bytes -= self._memory.popleft().record.size
            if in_window:
                in_window -= 1
                self._now_on_disk()
        return not self._memory

    def discard_memory(self) -> int:
        """Give up what neither broker nor disk would take; how many calls that were."""
        entries = self.in_memory
        self.rewind()
        self._memory.clear()
        self._memory_bytes = 0
        return entries

    def _now_on_disk(self) -> None:
        """The first record of the window that was in memory is on disk now: read past it, the broker has it."""
        self.spool.read()
        index = next(index for index, out in enumerate(self._window) if not out.on_disk)
        self._window[index] = self._window[index]._replace(on_disk=True)

    def _from_disk(self) -> _Out | None:
        found = self.spool.read()
        if found is None:
            return None
        seq = found.last if isinstance(found, Lost) else found.seq
        if isinstance(found, Lost) and seq not in self._stand_ins:
            self._stand_ins[seq] = self._stand_in(found)
        record = self._stand_ins[seq] if isinstance(found, Lost) else self._stand_ins.get(seq, found)
        return _Out(record, on_disk=True)

    def _from_memory(self) -> _Out | None:
        index = sum(not out.on_disk for out in self._window)
        if index >= len(self._memory):
            return None
        record = self._memory[index].record
        return _Out(self._stand_ins.get(record.seq, record), on_disk=False)
