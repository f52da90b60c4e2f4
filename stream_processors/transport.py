"""Faust's Kafka transport with its worst habits changed: how long it waits, where it begins, what it commits, and what
a record costs.

`app` gives it to all workers. Each change answers something that was seen (DESIGN, section 6): a fetch that waits 1.5
s on a broker that polls; partitions resumed before they were sought, which delivered out of order; commits past
records that nobody acknowledged; two tasks and a dozen callbacks for each record, where one for a fetch is enough.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from .log import Source

PROMPT_FETCH_MS, IDLE_FETCH_MS = 50, 500
"""How long the broker may hold a fetch that finds nothing. Apache Kafka answers as soon as there is something, the
embedded broker only after this time: there it is a part of the latency, and a short one costs both sides a fetch more.
"""


PROMPT_PAUSE, IDLE_PAUSE = 0.005, 0.05
"""Seconds between two fetches that find something, at least: under load a fetch brings more records then, and costs
less for each. What comes after a quiet moment waits for nothing.
"""


class Fetched(ConsumerMessage):
    """What one fetch brought of a partition, as one message of Faust's; its offset is that of the last record."""

    __slots__ = ("records",)

    def __init__(self, tp: TP, records: Sequence[Any], generation: int) -> None:
        super().__init__(*tp, records[-1].offset, 0.0, 0, None, None, b"", None, tp=tp, generation_id=generation)
        self.records = records


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that owns the aiokafka consumer."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = transport.fetch_wait_ms  # Faust passes 1500, without a setting; read at the start
        return consumer


class Consumer(driver.Consumer):
    """Seeks before it resumes, fetches only what is asked for, hands it on as `Fetched`, and commits exactly what
    `acknowledge` says.

    `committed` is where the group stood at the last seek; `sought` counts seeks, and `seeks` is set by each.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.committed: dict[Source, int | None] = {}
        self.sought = 0
        self.seeks = asyncio.Event()
        self._acknowledged: dict[TP, int] = {}
        self._held: set[TP] = set()
        self._found_at = 0.0

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
        if asked == set():
            return {}
        found = await super()._getmany(asked, timeout)
        return {tp: records if self._is_changelog_tp(tp) else [records] for tp, records in found.items() if records}

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109  # Faust's
        ours = cast("Transport", self.transport)
        await ours.room()
        pause = self._found_at + ours.pause - time.monotonic()
        if pause > 0:
            await asyncio.sleep(pause)
        records, active = await super()._wait_next_records(timeout)
        if records:
            self._found_at = time.monotonic()
        return records, active

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        if isinstance(record, list):
            return Fetched(tp, record, self.app.consumer_generation_id)
        return super()._to_message(tp, record)  # of a changelog: recovery reads them one by one

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Faust remembers what it did not see for its own way of committing: for ever, where that is never asked."""

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in self._acknowledged if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        return self._acknowledged.get(tp)


class Transport(driver.Transport):
    """What `app` sets as its app's transport: the time that a fetch may be held, the pause between two, and what is
    waited for before each, so that what nobody takes stays with the broker (Faust's own queue counts our fetches).
    """

    Consumer = Consumer
    fetch_wait_ms = PROMPT_FETCH_MS
    pause = PROMPT_PAUSE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.room: Callable[[], Awaitable[None]] = _at_once


async def _at_once() -> None:
    """There is room."""
