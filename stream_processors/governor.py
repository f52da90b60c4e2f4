"""The governor's shell: records in, folded by run, decisions out; nothing lost, nothing decided twice.

The order is the whole of it: a batch's decisions are delivered, then the states are written (behind, every
`state_flush_seconds`), then the records are acknowledged, in offset order. `app` composes it with Faust through the
`Log` port and calls `assign` when partitions were assigned, `take` for every batch, `flush` by the clock and `finish`
at an orderly stop. The judging is `fold`'s, reached through `live_runs`; what the log has lost comes back through
`rebuilding`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass

from ..events.codec import Encoded, Malformed, decode
from ..events.commands import Tick
from ..events.envelope import LogPlace
from ..events.errors import BrokerUnavailable, SettingsInvalid, StateBehindLog
from ..events.telemetry import RunStarted
from ..events.topics import CONTROL, TELEMETRY, partition_key, partition_of
from ..events.union import AnyCommand, AnyDecision, AnyEvent, AnyTelemetry, Record
from .acknowledgements import Delivery, Position
from .dead_letter_office import DeadLetterOffice
from .history import History
from .kept import Restored, encode, trouble_key
from .live_runs import Core, Judged, LivePartition
from .log import NO_GUARD, Delivered, Guard, Layout, Log, Outgoing, Source, outgoing
from .policy_text import Policies
from .process_log import tell_decision
from .rebuilding import rebuild
from .troubles import Troubles

DELIVERY_SECONDS = 12.0
"""The broker that has not taken a record by then is gone; the supervisor starts both again."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Judge:
    """What the governor decides with, and what it knows of the past. `history` is absent where there is no archive."""

    core: Core
    policy: Policies
    layout: Layout
    troubles: Troubles
    office: DeadLetterOffice
    history: History | None = None
    guard: Guard = NO_GUARD


class Governor:
    """All partitions of this worker. Its methods may be called concurrently; folding and delivering are one step."""

    def __init__(self, log: Log, judge: Judge, epoch: int) -> None:
        self.records = 0
        self.last_error = ""
        self._log = log
        self._judge = judge
        self._epoch = epoch
        self._partitions: dict[int, tuple[LivePartition, Position]] = {}
        self._folding = asyncio.Lock()
        self._flushing = asyncio.Lock()
        self._finished = False

    @property
    def assigned(self) -> list[int]:
        return list(self._partitions)

    @property
    def positions(self) -> dict[Source, int]:
        """The next offset of each partition, where known."""
        return {
            Source(TELEMETRY.name, number): position.next_offset
            for number, (_, position) in self._partitions.items()
            if position.next_offset is not None
        }

    def revoke(self) -> None:
        """Forget everything in memory: what was not acknowledged is delivered again, to whom it belongs now."""
        self._partitions = {}

    async def assign(self, committed: Mapping[int, int | None], table: Mapping[int, Restored]) -> None:
        """Begin with these partitions where they were left.

        Raises:
            StateBehindLog: the restored state is older than what was acknowledged.
            SettingsInvalid: the state is of a later epoch than the settings.
        """
        async with self._folding:
            self.revoke()
            self._judge.troubles.learn(kept.trouble for kept in table.values() if kept.trouble is not None)
            partitions = {}
            for number, offset in committed.items():
                partitions[number] = (LivePartition(self._judge.core, number, self._epoch), Position(offset))
                await self._restore(*partitions[number], table[number])
            self._partitions = partitions

    async def take(self, batch: Sequence[Delivered]) -> None:
        """Judge these records in order and deliver what they led to.

        Raises:
            StateBehindLog: records are missing that a restart may find; it is remembered, nothing is acknowledged.
            BrokerUnavailable: the broker does not take the decisions.
            EverythingMalformed: nothing but unreadable records comes; nothing of this batch is acknowledged.
        """
        async with self._folding:
            if self._finished:
                return
            try:
                effects: list[Outgoing] = []
                for record in batch:
                    if record.partition in self._partitions:
                        effects.extend(await self._judged(record, *self._partitions[record.partition]))
                await self._publish(effects)
            except BaseException:
                self.revoke()  # a flush that waits may not write states whose decisions nobody has
                raise

    async def finish(self) -> None:
        """The last flush. What comes after it is passed over, for the next governor: decided here, it would be decided
        again there."""
        self._finished = True
        await self.flush()

    async def flush(self) -> None:
        """Write the states that changed, then acknowledge what they contain."""
        async with self._flushing:
            async with self._folding:  # no state may be taken whose decisions are still on their way
                unwritten = [
                    (partition, position, position.next_offset, self._unwritten(partition, position.next_offset))
                    for partition, position in self._partitions.values()
                    if position.next_offset is not None and position.next_offset != position.acknowledged
                ]
            keeping = [self._log.keep(partition.partition, entries) for partition, _, _, entries in unwritten]
            await _within(DELIVERY_SECONDS, asyncio.gather(*keeping), "a state was not written")
            for partition, position, next_offset, _ in unwritten:
                # Revoked meanwhile: somebody else begins where the last acknowledgement stands.
                if self._partitions.get(partition.partition, (None,))[0] is partition:
                    self._acknowledge(partition.partition, position, next_offset)

    def _unwritten(self, partition: LivePartition, next_offset: int) -> dict[bytes, bytes | None]:
        entries = partition.unwritten(next_offset)
        if self._judge.troubles.forget(_where(partition), next_offset):
            entries[trouble_key(partition.partition)] = None
        return entries

    def _acknowledge(self, partition: int, position: Position, next_offset: int) -> None:
        acknowledged = position.done(next_offset)
        if acknowledged is not None:
            self._log.acknowledge({Source(TELEMETRY.name, partition): acknowledged})

    async def _restore(self, partition: LivePartition, position: Position, kept: Restored) -> None:
        if kept.mark is not None and kept.mark.epoch > self._epoch:
            raise SettingsInvalid(
                f"log_epoch is {self._epoch}, but the state is of epoch {kept.mark.epoch}: set it right"
            )
        is_current = kept.mark is not None and kept.mark.epoch == self._epoch
        for run_id, run in kept.runs.items():
            if run.epoch == self._epoch:
                partition.load(run_id, run)
        if not is_current and self._epoch > 0 and self._judge.history is not None:
            await self._rebuild(partition, self._judge.history)
        elif position.committed:
            marked = kept.mark.next_offset if kept.mark is not None and is_current else 0
            if marked < position.committed:
                what = (
                    f"the restored state ends at {marked}, but everything before {position.committed} was acknowledged"
                )
                await self._trouble(partition, position.committed, what)

    async def _rebuild(self, partition: LivePartition, history: History) -> None:
        log.warning("partition %d: a new epoch of the log; its runs are rebuilt from the archive", partition.partition)
        rebuilt = await rebuild(partition, history, self._judge.layout.telemetry)
        effects = [self._decided(decision, encoded) for decision, encoded in rebuilt.decisions]
        effects += [self._policy(started) for started in rebuilt.ungoverned]
        await self._publish(effects)
        log.warning(
            "partition %d: %d runs rebuilt, %d records made good", partition.partition, len(partition), len(effects)
        )

    async def _judged(self, record: Delivered, partition: LivePartition, position: Position) -> list[Outgoing]:
        delivery = position.deliver(record.offset)
        if delivery is Delivery.REPEATED:
            return []
        if delivery is Delivery.HOLE:
            await self._trouble(partition, record.offset, f"offset {position.next_offset} was never delivered")
            position.accept_hole(record.offset)
            position.deliver(record.offset)
        self.records += 1
        event = decode(record.headers, record.body)
        if isinstance(event, Malformed):
            partition.unreadable += 1
            return [self._unreadable(record, event.reason, event.detail)]
        if not isinstance(event, AnyTelemetry | AnyCommand):
            return [self._unreadable(record, "NotTelemetry", f"{event.kind} belongs to {CONTROL.name}")]
        objection = self._judge.guard.objection(event, record)
        if objection is not None:
            return [self._unreadable(record, objection.reason, objection.detail)]
        if not isinstance(event, Tick):
            self._judge.office.readable()
        place = LogPlace(self._epoch, record.partition, record.offset)
        judged = partition.judge(Record(place, event))
        if judged.gap:
            await self._accept(partition, position, record.offset, judged.gap)
            judged.continued(partition.judge(Record(place, event), accept_gap=True))
        return self._effects(record, event, judged, partition)

    async def _accept(self, partition: LivePartition, position: Position, offset: int, gap: str) -> None:
        """What is missing was unreadable, or every record of this log was read in order, or a restart has changed
        nothing: it will never come. Otherwise a restart may find it, and this process ends.
        """
        where = f"partition {partition.partition}, offset {offset}"
        if position.whole:
            partition.accepts_gaps = True
        elif partition.unreadable:
            partition.unreadable -= 1
            log.error("%s: %s; a record before it is among the dead letters", where, gap)
            return
        else:
            await self._trouble(partition, offset, gap)
        log.error("%s: lost for good: %s", where, gap)

    def _effects(self, record: Delivered, event: AnyEvent, judged: Judged, partition: LivePartition) -> list[Outgoing]:
        effects = [self._decided(decision, partition.chained(decision)) for decision in judged.decisions]
        effects += [self._judge.office.letter(record, "FoldFault", fault) for fault in judged.faults]
        if isinstance(event, RunStarted):
            state = partition.state(event.run_id)
            if state is not None and not state.policy_hash:
                effects.append(self._policy(event))
        return effects

    async def _trouble(self, partition: LivePartition, offset: int, what: str) -> None:
        """Go on if a restart was tried for this already; else remember it and end the process."""
        troubles = self._judge.troubles
        if troubles.is_known(_where(partition), self._epoch, offset):
            log.error("partition %d, offset %d: still so after a restart: %s", partition.partition, offset, what)
            partition.accepts_gaps = True
            return
        note = troubles.note(_where(partition), self._epoch, offset, what)
        keeping = self._log.keep(partition.partition, {trouble_key(partition.partition): encode(note)})
        await _within(DELIVERY_SECONDS, keeping, "a note of trouble was not written")
        raise StateBehindLog(f"partition {partition.partition}, offset {offset}: {what}; a restart may find it")

    async def _publish(self, effects: Sequence[Outgoing]) -> None:
        if effects:
            await _within(DELIVERY_SECONDS, self._log.publish(effects), f"{len(effects)} records were not delivered")

    def _decided(self, decision: AnyDecision, chained: Encoded) -> Outgoing:
        tell_decision(decision)
        sealed = self._judge.guard.seal(chained)
        partition = partition_of(decision.run_id, self._judge.layout.control)
        return Outgoing(CONTROL.name, partition, partition_key(decision), sealed.headers, sealed.body)

    def _policy(self, started: RunStarted) -> Outgoing:
        event = self._judge.policy.for_run(started).activated(started.run_id, started.at)
        partition = partition_of(started.run_id, self._judge.layout.telemetry)
        return outgoing(event, TELEMETRY.name, partition, self._judge.guard)

    def _unreadable(self, record: Delivered, reason: str, detail: str) -> Outgoing:
        self._judge.office.unreadable(record, reason, detail)
        return self._judge.office.letter(record, reason, detail)


def _where(partition: LivePartition) -> str:
    return f"{TELEMETRY.name}/{partition.partition}"


async def _within(seconds: float, delivery: Awaitable[object], failure: str) -> None:
    try:
        await asyncio.wait_for(delivery, seconds)
    except TimeoutError as error:
        raise BrokerUnavailable(f"{failure} within {seconds:.0f} s: the broker is gone") from error
