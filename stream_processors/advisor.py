"""The advisor's shell: questions from the control topic, answers to the telemetry topic, where the governor takes them.

`app` composes it with Faust and calls `assign`, `take` and, at an orderly stop, `finish`; `run` beside them asks the
advisors, several at a time, so that one that hangs holds nobody up. A question is acknowledged when its answer is
delivered, in offset order: killed in between, it is asked again. The answer's identity is derived from the question, so
that a second one changes nothing. Questions that nobody waits for any more are passed over.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ..events.codec import KIND_HEADER, Malformed, decode
from ..events.commands import AdviceGiven
from ..events.decisions import AdviceRequested
from ..events.errors import BrokerUnavailable
from ..events.topics import TELEMETRY, partition_of
from .acknowledgements import Delivery, Position
from .advisor_opinion import Advise, Opinion, bounded
from .log import NO_GUARD, Delivered, Guard, Layout, Log, Source, outgoing

DELIVERY_SECONDS = 12.0
AT_ONCE = 8
"""Questions that are with an advisor at the same time."""
SHARE = 0.9
"""Of the time that the governor waits: an advisor is given up before, so that the reason arrives in time."""

log = logging.getLogger(__name__)


class _Open(NamedTuple):
    """A question that has no answer yet. `due` is when it will be of no use any more, by `clock`."""

    source: Source
    offset: int
    request: AdviceRequested
    due: float


class Advisor:
    """All partitions of this worker. `clock` gives seconds since the epoch, as the broker stamps its records."""

    def __init__(
        self,
        log: Log,
        advisors: Mapping[str, Advise],
        layout: Layout,
        clock: Callable[[], float] = time.time,
        guard: Guard = NO_GUARD,
    ) -> None:
        self._guard = guard
        self.records = 0
        self.last_error = ""
        self._log = log
        self._advisors = advisors
        self._layout = layout
        self._clock = clock
        self._positions: dict[Source, Position] = {}
        self._open: dict[Source, list[int]] = {}
        self._questions: asyncio.Queue[_Open] = asyncio.Queue()
        self._delivering = asyncio.Lock()
        self._finished = False

    @property
    def positions(self) -> dict[Source, int]:
        """The next offset of each partition; 0 where nothing was ever asked."""
        return {source: at.next_offset or 0 for source, at in self._positions.items()}

    def revoke(self) -> None:
        """Forget where we were: what was not acknowledged is delivered again, to whom it belongs now."""
        self._positions, self._open = {}, {}

    async def assign(self, committed: Mapping[Source, int | None]) -> None:
        """Begin with these partitions where they were left."""
        self.revoke()
        self._positions = {source: Position(offset) for source, offset in committed.items()}
        self._open = {source: [] for source in committed}

    async def take(self, batch: Sequence[Delivered]) -> None:
        """Note the questions among these records. Nothing is waited for."""
        for record in batch:
            source = Source(record.topic, record.partition)
            if source in self._positions and self._is_new(record, self._positions[source]):
                self.records += 1
                self._note(record, source)
        self._acknowledge()

    async def run(self) -> None:
        """Ask the advisors, until cancelled.

        Raises:
            BrokerUnavailable: the broker does not take an answer.
        """
        slots = asyncio.Semaphore(AT_ONCE)

        async def answered(question: _Open) -> None:
            try:
                await self._answer(question)
            finally:
                slots.release()

        try:
            async with asyncio.TaskGroup() as answering:
                while True:
                    await slots.acquire()
                    answering.create_task(answered(await self._questions.get()))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed

    async def finish(self) -> None:
        """An answer that is on its way arrives, and its question is acknowledged. What an advisor still thinks about is
        asked again by the next one.
        """
        self._finished = True
        async with self._delivering:
            pass

    def _is_new(self, record: Delivered, position: Position) -> bool:
        delivery = position.deliver(record.offset)
        if delivery is Delivery.HOLE:  # of what is gone nobody waits for an answer
            position.accept_hole(record.offset)
            position.deliver(record.offset)
        return delivery is not Delivery.REPEATED

    def _note(self, record: Delivered, source: Source) -> None:
        if dict(record.headers).get(KIND_HEADER) != b"advice_requested":
            return
        request = decode(record.headers, record.body)
        if isinstance(request, Malformed):
            log.error("%s/%d@%d: %s", record.topic, record.partition, record.offset, request.detail)  # the archiver's
        elif (objection := self._guard.objection(request, record)) is not None:  # the archiver's to report as well
            log.error("%s/%d@%d: %s", record.topic, record.partition, record.offset, objection.detail)
        elif isinstance(request, AdviceRequested):
            began = record.sent_at or self._clock()
            self._open[source].append(record.offset)
            self._questions.put_nowait(_Open(source, record.offset, request, began + SHARE * request.within_seconds))

    async def _answer(self, question: _Open) -> None:
        request = question.request
        began = self._clock()
        if question.due <= began:
            log.warning("question %s of run %s came too late to be asked", request.request_id, request.run_id)
        else:
            opinion = await self._opinion(request, question.due - began)
            given = _given(request, opinion, began, self._clock())
            async with self._delivering:
                if self._finished:
                    return
                await self._publish(given)
        self._close(question)

    def _close(self, question: _Open) -> None:
        if question.offset in self._open.get(question.source, ()):
            self._open[question.source].remove(question.offset)
            self._acknowledge()

    async def _opinion(self, request: AdviceRequested, seconds: float) -> Opinion:
        advise = self._advisors.get(request.advisor)
        if advise is None:
            return Opinion(error=f"there is no advisor {request.advisor!r} here; there are {', '.join(self._advisors)}")
        try:
            async with asyncio.timeout(seconds):
                return await advise(request)
        except TimeoutError:
            return Opinion(error=f"it gave no answer within {seconds:.1f} s")
        except Exception as error:  # noqa: BLE001  # whatever goes wrong in an advisor is no action, and nothing else
            log.error("advisor %s: %s: %s", request.advisor, type(error).__name__, error)
            return Opinion(error=f"{type(error).__name__}: {error}")

    def _acknowledge(self) -> None:
        done = {}
        for source, position in self._positions.items():
            reached = min(self._open[source], default=position.next_offset)
            offset = None if reached is None else position.done(reached)
            if offset is not None:
                done[source] = offset
        if done:
            self._log.acknowledge(done)

    async def _publish(self, given: AdviceGiven) -> None:
        record = outgoing(given, TELEMETRY.name, partition_of(given.run_id, self._layout.telemetry), self._guard)
        try:
            await asyncio.wait_for(self._log.publish([record]), DELIVERY_SECONDS)
        except TimeoutError as error:
            raise BrokerUnavailable(
                f"an answer was not delivered within {DELIVERY_SECONDS:.0f} s: the broker is gone"
            ) from error


def _given(request: AdviceRequested, opinion: Opinion, began: float, ended: float) -> AdviceGiven:
    """The record: its writer is the question, so that it cannot be answered twice."""
    return AdviceGiven(
        at=int(ended * 1_000_000),
        run_id=request.run_id,
        writer_id=f"advisor-{request.request_id}"[:200],
        seq=1,
        request_id=request.request_id,
        advisor=request.advisor,
        latency_s=max(0.0, ended - began),
        action=opinion.action,
        input=bounded(opinion.input),
        answer=bounded(opinion.answer),
        why=bounded(opinion.why, 2_000),
        error=bounded(opinion.error, 2_000),
        retried_answer=bounded(opinion.retried_answer),
        retried_error=bounded(opinion.retried_error, 2_000),
        evidence=opinion.evidence,
        runs=opinion.runs,
        model=opinion.model,
        temperature=opinion.temperature,
        prompt_sha256=opinion.prompt_sha256,
        tokens_in=opinion.tokens_in,
        tokens_out=opinion.tokens_out,
        cost_usd=opinion.cost_usd,
    )
