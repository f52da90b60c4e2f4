"""The log's clock: one `Tick` a second for each partition that this governor reads: replay needs no other clock.

`app` runs it beside the agent; ticks leave through the same port as everything else. A tick that is not delivered in
time, or that lands at an earlier offset than the one before it, means that the broker is gone or that its log was begun
anew: both end the process.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from uuid import uuid4

from ..events.commands import Tick
from ..events.errors import BrokerUnavailable, RestartRequired
from ..events.topics import TELEMETRY
from .log import NO_GUARD, Guard, Log, Outgoing, outgoing

DELIVERY_SECONDS = 12.0


class Ticker:
    """Ticks of one process: a writer of its own, numbered without gaps per partition."""

    def __init__(
        self, log: Log, assigned: Callable[[], Collection[int]], seconds: float, guard: Guard = NO_GUARD
    ) -> None:
        self._log = log
        self._guard = guard
        self._assigned = assigned
        self._seconds = seconds
        self._writer_id = f"ticker-{uuid4().hex}"
        self._seq: dict[int, int] = {}
        self._offset: dict[int, int] = {}

    async def run(self) -> None:
        """Tick until cancelled.

        Raises:
            BrokerUnavailable: a tick was not delivered.
            RestartRequired: the log went back.
        """
        due = time.monotonic()
        while True:
            due = max(due + self._seconds, time.monotonic())  # a pause is not made up for: a tick says that time passed
            await asyncio.sleep(due - time.monotonic())
            await self.tick(time.time_ns() // 1_000)

    async def tick(self, at: int) -> None:
        """One tick for every assigned partition, delivered."""
        partitions = sorted(self._assigned())
        records = [self._next(partition, at) for partition in partitions]
        try:
            offsets = await asyncio.wait_for(self._log.publish(records), DELIVERY_SECONDS)
        except TimeoutError as error:
            raise BrokerUnavailable(
                f"no tick was delivered within {DELIVERY_SECONDS:.0f} s: the broker is gone"
            ) from error
        for partition, offset in zip(partitions, offsets, strict=True):
            if offset < self._offset.get(partition, -1):
                was = self._offset[partition]
                raise RestartRequired(
                    f"{TELEMETRY.name}/{partition} went back from offset {was} to {offset}: its log was begun anew"
                )
            self._offset[partition] = offset

    def _next(self, partition: int, at: int) -> Outgoing:
        self._seq[partition] = self._seq.get(partition, 0) + 1
        event = Tick(at=at, partition=partition, writer_id=self._writer_id, seq=self._seq[partition])
        return outgoing(event, TELEMETRY.name, partition, self._guard)
