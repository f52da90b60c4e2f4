"""The archiver's shell: telemetry and control, batch by batch, into the archive; acknowledged when they are in it.

`app` composes it with Faust and calls `assign`, `take` and, at an orderly stop, `finish`. It never raises for what can
be waited for: an archive that is away is asked again until it answers, one insert at a time. What a record must be to
be refused is `storage.archive`'s to say; here it goes to the dead letters, and the others go on.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from ..events.codec import Malformed, decode
from ..events.commands import Tick
from ..events.envelope import LogPlace
from ..events.errors import BrokerUnavailable, PilothouseError, StateBehindLog
from ..events.topics import CONTROL
from ..storage.archive import Archived, Poison
from .acknowledgements import Delivery, Position
from .dead_letter_office import DeadLetterOffice
from .log import NO_GUARD, Delivered, Guard, Log, Outgoing, Source
from .troubles import Troubles

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0
DELIVERY_SECONDS = 12.0

log = logging.getLogger(__name__)

Insert = Callable[[Sequence[Archived]], Sequence[Poison]]
"""`storage.archive.Archive.insert`: blocks, idempotent, returns what can never be inserted."""


class Archiver:
    """All partitions of this worker. One call at a time, so that no two inserts ever overlap."""

    def __init__(  # noqa: PLR0913, PLR0917  # its ports, and where it stands in the log
        self,
        log: Log,
        insert: Insert,
        office: DeadLetterOffice,
        epoch: int,
        troubles: Troubles,
        guard: Guard = NO_GUARD,
    ) -> None:
        self.records = 0
        self.last_error = ""
        self._log = log
        self._insert = insert
        self._office = office
        self._epoch = epoch
        self._troubles = troubles
        self._guard = guard
        self._positions: dict[Source, Position] = {}
        self._taking = asyncio.Lock()
        self._finished = asyncio.Event()

    @property
    def positions(self) -> dict[Source, int]:
        """The next offset of each partition, where known."""
        return {source: at.next_offset for source, at in self._positions.items() if at.next_offset is not None}

    def revoke(self) -> None:
        """Forget where we were: what was not acknowledged is delivered again, to whom it belongs now."""
        self._positions = {}

    async def assign(self, committed: Mapping[Source, int | None]) -> None:
        """Begin with these partitions where they were left."""
        async with self._taking:
            self.revoke()
            self._positions = {source: Position(offset) for source, offset in committed.items()}

    async def take(self, batch: Sequence[Delivered]) -> None:
        """Archive these records, then acknowledge them.

        Raises:
            StateBehindLog: records were not delivered; a restart may bring them.
            BrokerUnavailable: the broker does not take a dead letter.
            EverythingMalformed: nothing but unreadable records comes; nothing of this batch is acknowledged.
        """
        async with self._taking:
            positions = self._positions
            letters: list[Outgoing] = []
            records = [archived for record in batch if (archived := self._received(record, letters)) is not None]
            poisons = await self._inserted(records)
            if poisons is None:
                return
            letters += [self._refused(poison, batch) for poison in poisons]
            await self._publish(letters)
            if positions is self._positions:  # else: revoked meanwhile, and delivered again
                self._acknowledge()

    async def finish(self) -> None:
        """Let the insert that runs come to its end, and take nothing more. What waits for an archive that is away is
        left to the next archiver.
        """
        self._finished.set()
        async with self._taking:
            pass

    def _received(self, record: Delivered, letters: list[Outgoing]) -> Archived | None:
        position = self._positions.get(Source(record.topic, record.partition))
        if position is None:
            return None
        delivery = position.deliver(record.offset)
        if delivery is Delivery.REPEATED:
            return None
        if delivery is Delivery.HOLE:
            self._hole(record, position)
        self.records += 1
        event = decode(record.headers, record.body)
        fault = event if isinstance(event, Malformed) else self._guard.objection(event, record)
        if fault is None and not isinstance(event, Malformed):
            if not isinstance(event, Tick):
                self._office.readable()
            place = LogPlace(self._epoch, record.partition, record.offset)
            return Archived(record.topic, place, event, record.encoded)
        if fault is not None:
            self._office.unreadable(record, fault.reason, fault.detail)
            if record.topic == CONTROL.name:  # what is wrong in telemetry is the governor's to report
                letters.append(self._office.letter(record, fault.reason, fault.detail))
        return None

    def _hole(self, record: Delivered, position: Position) -> None:
        where = _where(record.topic, record.partition)
        what = f"{where}: offset {position.next_offset} was never delivered before {record.offset}"
        if not self._troubles.is_known(where, self._epoch, record.offset):
            self._troubles.note(where, self._epoch, record.offset, what)
            raise StateBehindLog(f"{what}; a restart may bring it")
        log.error("%s; still so after a restart: lost", what)
        position.accept_hole(record.offset)
        position.deliver(record.offset)

    def _acknowledge(self) -> None:
        done = {source: self._positions[source].done(offset) for source, offset in self.positions.items()}
        acknowledged = {source: offset for source, offset in done.items() if offset is not None}
        self._log.acknowledge(acknowledged)
        for source, offset in acknowledged.items():
            self._troubles.forget(_where(*source), offset)

    async def _inserted(self, records: Sequence[Archived]) -> Sequence[Poison] | None:
        """What can never be inserted, when all others are; None where the end came first."""
        if not records:
            return ()
        pause = FIRST_PAUSE
        while not self._finished.is_set():
            try:
                poisons = await asyncio.to_thread(self._insert, records)
            except PilothouseError as error:  # every one of them may pass: no archive, no schema yet, wrong password
                self.last_error = f"{len(records)} records wait for the archive: {error}"
                log.error("%s; trying again in %.1f s", self.last_error, pause)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._finished.wait(), pause)
                pause = min(LONGEST_PAUSE, pause * 2)
            else:
                self.last_error = ""
                return poisons
        return None

    def _refused(self, poison: Poison, batch: Sequence[Delivered]) -> Outgoing:
        place = poison.record.place
        origin = (poison.record.topic, place.partition, place.offset)
        record = next(one for one in batch if (one.topic, one.partition, one.offset) == origin)
        return self._office.letter(record, "ArchiveRefused", poison.reason)

    async def _publish(self, letters: Sequence[Outgoing]) -> None:
        if not letters:
            return
        try:
            await asyncio.wait_for(self._log.publish(letters), DELIVERY_SECONDS)
        except TimeoutError as error:
            raise BrokerUnavailable(
                f"{len(letters)} dead letters were not delivered in time: the broker is gone"
            ) from error


def _where(topic: str, partition: int) -> str:
    return f"{topic}/{partition}"
