"""Faust's Kafka transport with its worst habits changed: how long it waits, where it begins, what it commits.

`app` gives it to both workers. Each change answers something that was seen (DESIGN, section 6): a fetch that waits 1.5
s on a broker that polls; partitions resumed before they were sought, which delivered out of order; commits past
records that nobody acknowledged.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from .log import Source

PROMPT_FETCH_MS, IDLE_FETCH_MS = 50, 500
"""How long the broker may hold a fetch that finds nothing. Apache Kafka answers as soon as there is something, the
embedded broker only after this time: there it is a part of the latency, and a short one costs both sides a fetch more.
"""


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that owns the aiokafka consumer."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = transport.fetch_wait_ms  # Faust passes 1500, without a setting; read at the start
        return consumer


class Consumer(driver.Consumer):
    """Seeks before it resumes, fetches only what is asked for, and commits exactly what `acknowledge` says.

    `committed` is where the group stood at the last seek; `sought` counts seeks, and `seeks` is set by each.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.committed: dict[Source, int | None] = {}
        self.sought = 0
        self.seeks = asyncio.Event()
        self._acknowledged: dict[TP, int] = {}
        self._held: set[TP] = set()

    def acknowledge(self, positions: Mapping[Source, int]) -> None:
        """Everything before these offsets may be committed."""
        self._acknowledged.update({TP(*source): offset for source, offset in positions.items()})

    def ends(self, sources: Iterable[Source]) -> dict[Source, int]:
        """The high watermarks that fetches brought, where any did; asking for end offsets would be answered wrongly."""
        ends: dict[Source, int | None] = {source: self.highwater(TP(*source)) for source in sources}
        return {source: end for source, end in ends.items() if end is not None}

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        # Faust resumes the stream's partitions and only then seeks them: records from before the seek slip through.
        changelogs = {tp for tp in tps if self._is_changelog_tp(tp)}
        self._held = set(tps) - changelogs
        if changelogs:
            super().resume_partitions(changelogs)

    async def perform_seek(self) -> None:
        await super().perform_seek()
        self._acknowledged.clear()
        assigned = {tp for tp in self.assignment() if not self._is_changelog_tp(tp)}
        self.committed = {Source(tp.topic, tp.partition): self._read_offset[tp] for tp in assigned}
        self.sought += 1
        self.seeks.set()
        held, self._held = self._held, set()
        if held:
            super().resume_partitions(held)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109  # Faust's
        # Faust passes its live set to the consumer's thread, where an empty one means all partitions. Emptied at the
        # end of recovery, it brings the stream's records too early: they are dropped and never come again.
        asked = set(active_partitions) if active_partitions is not None else None
        return {} if asked == set() else await super()._getmany(asked, timeout)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in self._acknowledged if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        return self._acknowledged.get(tp)


class Transport(driver.Transport):
    """What `app` sets as its app's transport, with the time that a fetch may be held."""

    Consumer = Consumer
    fetch_wait_ms = PROMPT_FETCH_MS
