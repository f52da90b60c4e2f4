"""The outbox: what the training thread appended goes to the log, in order; what cannot go is counted.

`producers.run` appends rows and told facts from any thread. `pump`, one round of work, belongs to one background thread
(`delivery.publisher`): it drains what was appended into records (`delivery.batching`), numbers them, keeps them until
they are confirmed (`delivery.backlog`) and gives them to the sender (`delivery.kafka`). It also tells the heartbeat
and, where something was lost, the `TelemetryGap`. A number (`seq`) is given only to a record that exists, and numbers
are sent in their order.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol

from ...events.envelope import TrainerFact
from ...events.errors import BrokerUnavailable
from ...events.telemetry import Heartbeat, RunEnded, Stage, TelemetryGap
from ..bad_calls import BadCalls
from ..metrics.values import Admission
from ..ranks.context import Identity
from ..voice import logger
from ..wake import Wake
from .accounts import Counts, Ledger
from .arrivals import has_arrived, with_numbers
from .backlog import Backlog
from .batching import (
    MAX_ROWS,
    Draft,
    Entry,
    Outgoing,
    Raw,
    Row,
    Rows,
    Told,
    TooLarge,
    drafts,
    encoded,
    entry_of,
    rows_of,
    weight,
)
from .heartbeat import Pulse, heartbeat_fields
from .kafka import Outcome, State
from .spool import Lost, Spool
from .telling import fault

CAPACITY = 20_000
"""Rows that wait unread; beyond it new ones are dropped. Told facts are few, and get through for longer."""

TOLD_CAPACITY = 25_000
QUEUE_BYTES = 32 * 1024 * 1024
"""Of wide rows fewer may wait: so many that they take no more memory than this, and never fewer than `MAX_ROWS`."""

TOLD_BYTES = 16 * 1024 * 1024
"""Told facts that wait unread."""

COUNT_SECONDS = 0.1
"""How long who asks for the accounts waits for a round that is at work, be it at a disk that hangs."""

CONFIRM_SECONDS = 0.05
"""A record that is not confirmed so soon is put on disk, and at once where none can be sent: a kill loses what was not
flushed, and what is this young. A broker that answers is not outrun by the disk, and nothing is written.
"""

WINDOW_RECORDS = 64
"""So many are given to the broker at once; a quarter after each that it did not confirm in time, one more after each
that it did, so that a narrow way to it is not stuffed again and again with what cannot pass.
"""

ALONE_BYTES = 65_536
"""A longer record, which a broker with limits of its own might refuse, is sent alone: nothing overtakes its
stand-in.
"""


class Sender(Protocol):
    """Where records go: `delivery.kafka.KafkaSender`, or a log in a test's memory."""

    @property
    def state(self) -> State: ...
    @property
    def failures(self) -> int: ...
    def hurry(self) -> None: ...
    def poll(self) -> Sequence[Outcome]: ...
    def send(self, record: Outgoing) -> None: ...
    def close(self) -> None: ...
    def forget(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How often what waits is flushed and the heart beats, in seconds; and the clocks (monotonic seconds, UTC
    microseconds).
    """

    flush: float
    heartbeat: float
    seconds: Callable[[], float] = time.monotonic
    micros: Callable[[], int] = field(default=lambda: time.time_ns() // 1_000)


class Outbox:
    """One writer of one run. `identity` is who speaks where the outbox speaks for itself, until an entry shows
    another.

    `run.log` appends the usual row to `queue` by itself, as a bare tuple (`batching.Raw`), while that is short.
    Everything else goes through `append`. `stage` is what the training thread last said it was doing, `step` the last
    one that was drained.
    """

    def __init__(self, identity: Identity, writer_id: str, sender: Sender, spool: Spool, pace: Pace) -> None:
        self.writer_id = writer_id
        self.bad_calls = BadCalls()
        self.wake = Wake()
        self.queue: deque[Entry | Raw] = deque()
        self.stage: Stage = "prepare"
        self.step = 0
        self.admission = Admission(self.bad_calls)
        self.sender = sender
        self.backlog = Backlog(spool, self._lost_on_disk)
        self._identity = identity
        self._pace = pace
        self._pulse = Pulse(pace.heartbeat, pace.seconds() + pace.heartbeat)
        self._ledger = Ledger()
        self._counted = Counts()
        self._lock = threading.Lock()
        self._overflow_lock = threading.RLock()  # a signal handler may log while it is held
        self._overflowed = 0
        self._room = CAPACITY
        self._told_bytes = 0
        self._window = WINDOW_RECORDS
        self._seq = 0
        self._urgent = False
        self._flush_at = 0.0
        self._begun = pace.seconds()
        self.on_rows: Callable[[Rows], None] = lambda _: None

    def append(self, entry: Entry | Raw) -> None:
        """Take one entry; from any thread, and at once. Told facts are sent without waiting for the next flush."""
        told = isinstance(entry, Told)
        if not (self._has_room_for_fact(entry) if isinstance(entry, Told) else self._has_room_for_row(entry)):
            self._overflow()
            return
        self.queue.append(entry)
        if told or len(self.queue) >= MAX_ROWS:
            self.hurry()

    def hurry(self) -> None:
        """Tell what waits now, not at the next flush."""
        self._urgent = True
        self.wake.set()

    def counts(self) -> Counts:
        """The accounts, now; while a round is at work for long, those of its beginning."""
        if not self._lock.acquire(timeout=COUNT_SECONDS):
            return self._counted
        try:
            return self._counts()
        finally:
            self._lock.release()

    def empty(self) -> bool:
        """Whether everything that was accepted is sent or dropped."""
        return not self.queue and not self.backlog

    def rest_seconds(self) -> float:
        """How long nothing needs doing, if nobody wakes us: until the next flush, or until a record is due on disk."""
        now = self._pace.seconds()
        due = self._flush_at
        waits = self.backlog.waits_since()
        if waits is not None and waits + CONFIRM_SECONDS > now:  # a disk that took nothing is asked at the next flush
            due = min(due, waits + CONFIRM_SECONDS)
        return max(0.0, due - now)

    def pump(self, *, flush: bool = False) -> None:
        """One round: settle what the broker answered, drain what waits if it is time (or `flush`), beat, spill,
        send.
        """
        now = self._pace.seconds()
        if flush := flush or self._urgent or now >= self._flush_at:
            self._flush_at = now + self._pace.flush
            self._urgent = False
        with self._lock:
            self._counted = self._counts()
            self._settle()
            if flush:
                self._drain(now)
            if self._pulse.due(now):
                self._tell_losses(now)
                self._beat(now)
            self._spill(now)
        self._send()

    def put_away(self) -> int:
        """At the end, where the broker did not take all: the rest to disk. How many calls even that could not save."""
        with self._lock:
            self.backlog.rewind()
            while self.queue or self.backlog.in_memory:
                self._drain(self._pace.seconds(), last=True)
                if not self.backlog.spill():
                    break
            unsaved = self.backlog.discard_memory() + len(self.queue)
            self._ledger.taken += len(self.queue)
            self.queue.clear()
            self._ledger.drop("closed", unsaved)
            self.backlog.spool.close()
        return unsaved

    def _counts(self) -> Counts:
        waiting, overflowed, ledger = len(self.queue), self._overflowed, self._ledger
        return Counts(
            accepted=ledger.taken + waiting + overflowed,
            sent=ledger.sent,
            queued=waiting + self.backlog.in_memory,
            spooled=self.backlog.on_disk,
            dropped=ledger.dropped.total() + overflowed,
        )

    def _has_room_for_row(self, row: Row | Raw) -> bool:
        """Whether it may wait: the n-th in the queue may take an n-th of the bytes. Where one was too wide, no narrower
        one passes it, so that what is kept has no holes.
        """
        waiting = len(self.queue)
        room = min(self._room, CAPACITY, max(MAX_ROWS, QUEUE_BYTES // weight(row)))
        if waiting >= room:
            self._room = min(self._room, waiting)
        return waiting < room

    def _has_room_for_fact(self, told: Told) -> bool:
        taken = weight(told)
        if len(self.queue) >= TOLD_CAPACITY or self._told_bytes + taken > TOLD_BYTES:
            return False
        with self._overflow_lock:
            self._told_bytes += taken
        return True

    def _overflow(self) -> None:
        with self._overflow_lock:
            self._overflowed += 1
        self.bad_calls.add("queue_full", "the log and the spool take nothing more: new telemetry is dropped", "outbox")

    def _settle(self) -> None:
        try:
            outcomes = self.sender.poll()
        except BrokerUnavailable:
            self._window = max(1, self._window // 4)
            self.backlog.rewind()
            return
        for outcome in outcomes:
            self._window = min(WINDOW_RECORDS, self._window + 1)
            if outcome is Outcome.REFUSED and not self.backlog.first_is_stand_in():
                self._refused()
                continue
            settled = self.backlog.confirm()
            if settled.lost or outcome is Outcome.REFUSED:
                self._ledger.drop("unsendable", settled.entries, told=True)
            else:
                self._ledger.sent += settled.entries

    def _drain(self, now: float, *, last: bool = False) -> None:
        while not self.backlog.full and (entries := self._next_entries(last)):
            self._ledger.taken += len(entries)
            for draft in drafts(self._told(entries)):
                self._record(draft, now)

    def _next_entries(self, last: bool) -> list[Entry | Raw]:
        """The head of the queue, up to the first entry that waits for a device."""
        entries: list[Entry | Raw] = []
        now = self._pace.micros()
        while self.queue and len(entries) < MAX_ROWS:
            first = self.queue[0]
            if isinstance(first, Row | Told) and not last and not has_arrived(first, now):
                break
            entries.append(self.queue.popleft())
        if entries:
            self._room = CAPACITY
        if told := [entry for entry in entries if isinstance(entry, Told)]:
            with self._overflow_lock:
                self._told_bytes -= sum(map(weight, told))
        return entries

    def _told(self, entries: list[Entry | Raw]) -> Iterator[Entry | Rows]:
        """What is told of them: the usual rows many at once, everything else one by one."""
        for kind, group in groupby(entries, type):
            waiting: list[Any] = list(group)
            rows = rows_of(waiting) if kind is tuple else None
            if rows is not None and self.admission.usual(rows.metrics):
                yield rows
            else:
                yield from (whole for entry in waiting if (whole := self._arrived(entry_of(entry))) is not None)

    def _arrived(self, entry: Entry) -> Entry | None:
        """The entry as it is told: its numbers there, its names good, thinned by the run's rule; None if nothing is."""
        whole = with_numbers(entry, self.bad_calls)
        if whole is None:
            self._ledger.drop("device", 1)
            return None
        if isinstance(whole, Told):
            return whole
        kept, left_out = self.admission.told(whole.step, whole.metrics)
        self._ledger.thinned += whole.thinned + left_out
        if not kept:
            self._ledger.drop("metric_name", 1, told=True)
            return None
        return whole if kept is whole.metrics else whole._replace(metrics=kept)

    def _record(self, draft: Draft, now: float) -> None:
        self._identity = draft.identity
        if draft.rows is not None:
            self.step = draft.rows.steps[-1]
            self.on_rows(draft.rows)
        if draft.told is not None and draft.told.fact is RunEnded:
            self._tell_losses(now, last=True)
        try:
            records = encoded(draft, self.writer_id, self._seq + 1)
        except Exception as error:  # noqa: BLE001  # one entry that cannot be told must not keep the others
            self._unencodable(draft, error)
            return
        for record in records:
            self.backlog.push(record, now)
        self._seq = records[-1].seq

    def _unencodable(self, draft: Draft, error: Exception) -> None:
        reason = "too_large" if isinstance(error, TooLarge) else "invalid"
        what = draft.told.fact.__name__ if draft.told is not None else "StepBatch"
        self._ledger.drop(reason, draft.entries)
        if self.bad_calls.first(f"{reason} {what}"):
            logger.warning("a %s cannot be published and is dropped: %s", what, fault(error))

    def _own(self, seq: int, fact: type[TrainerFact], fields: Mapping[str, Any], entries: int = 0) -> Outgoing:
        """A record in which the outbox speaks for itself."""
        told = Told(self._identity, self._pace.micros(), fact, fields)
        return encoded(Draft(told=told), self.writer_id, seq)[0]._replace(entries=entries)

    def _tell(self, fact: type[TrainerFact], fields: Mapping[str, Any], now: float) -> None:
        self.backlog.push(self._own(self._seq + 1, fact, fields), now)
        self._seq += 1

    def _tell_losses(self, now: float, *, last: bool = False) -> None:
        self._ledger.note(self.bad_calls.take())
        if not self.backlog.full and (gap := self._ledger.take_untold(last=last)):
            self._tell(TelemetryGap, gap, now)

    def _beat(self, now: float) -> None:
        # An old pulse is worth nothing: while the broker is away, or its past is still being sent, there is none.
        if self.sender.state == "ready" and not self.backlog.spool and not self.backlog.full:
            self._tell(Heartbeat, heartbeat_fields(self.stage, self.step, self._counts()), now)

    def _refused(self) -> None:
        """The broker will never take the first of the window: a gap with its number goes instead."""
        record = self.backlog.first()
        logger.warning("Kafka refuses record %d (%d bytes); it is dropped and counted", record.seq, len(record.body))
        gap = {"dropped": {"refused": record.entries}}
        self.backlog.refuse(self._own(record.seq, TelemetryGap, gap, record.entries))

    def _lost_on_disk(self, lost: Lost) -> Outgoing:
        logger.warning("records %d to %d in %s are damaged", lost.seq, lost.last, self.backlog.spool.folder)
        missing = ((lost.seq, lost.last - 1),) if lost.last > lost.seq else ()
        gap = {"dropped": {"spool_damaged": lost.entries}, "missing": missing}
        return self._own(lost.last, TelemetryGap, gap, lost.entries)

    def _spill(self, now: float) -> None:
        waits = self.backlog.waits_since()
        if waits is None:
            return
        young = now - self._begun < self._pace.flush  # all that was said is within the first flush interval
        patience = {"ready": CONFIRM_SECONDS, "connecting": math.inf if young else 0.0, "away": 0.0}
        if self.backlog.spool or now - waits >= patience[self.sender.state]:
            self.backlog.spill()

    def _send(self) -> None:
        if self.sender.state != "ready":
            return
        try:
            while (record := self.backlog.peek()) is not None and self._may_go(record):
                self.sender.send(self.backlog.take())
        except BrokerUnavailable:
            self.backlog.rewind()

    def _may_go(self, record: Outgoing) -> bool:
        count, largest = self.backlog.window
        return not count or (count < self._window and max(largest, record.size) <= ALONE_BYTES)
