"""Between a worker's agent and its shell: what was fetched and not taken yet, bounded, in the order in which it came.

`app` puts in what each fetch brought and takes out what the shell is to be given at once. Without a linger that is
whatever is there, at once; with one, whatever came within that time of the first record.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

from .log import Delivered


class Intake:
    """One agent puts, one task takes. `most` records are given at once; while twice as many wait, nothing is fetched.

    `generation` counts assignments: what was fetched before a rebalance is fetched again after it, by its owner.
    """

    def __init__(self, most: int, linger: float) -> None:
        self._most = most
        self._linger = linger
        self._held: deque[tuple[int, Delivered]] = deque()
        self._some, self._enough, self._room = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._room.set()

    async def room(self) -> None:
        """Wait until more may be fetched."""
        await self._room.wait()

    def put(self, generation: int, records: Sequence[Delivered]) -> None:
        """Hold these; they are fetched already."""
        self._held.extend((generation, record) for record in records)
        self._signal()

    async def ready(self) -> None:
        """Wait until there is something to be given."""
        await self._some.wait()
        if self._linger:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._enough.wait(), self._linger)

    def take(self, generation: int) -> list[Delivered]:
        """The next of this generation; those of another that stand before them are forgotten."""
        count = min(self._most, len(self._held))
        taken = [record for fetched, record in islice(self._held, count) if fetched == generation]
        for _ in range(count):
            self._held.popleft()
        self._signal()
        return taken

    def _signal(self) -> None:
        held = len(self._held)
        for event, holds in (
            (self._some, held > 0),
            (self._enough, held >= self._most),
            (self._room, held < 2 * self._most),
        ):
            event.set() if holds else event.clear()
