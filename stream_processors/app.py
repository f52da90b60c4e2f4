"""The composition of a worker: a Faust app whose one agent feeds the governor, the archiver or the advisor.

`process` runs what `build_app` makes. Nothing else in the house composes Faust. Names are explicit, because Faust
derives its own from module paths.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import faust

from ..access import KafkaAccess
from ..events.topics import CONTROL, DEADLETTER, TELEMETRY
from ..settings import Settings
from .advisor import Advisor
from .archiver import Archiver
from .dead_letter_office import DeadLetterOffice
from .faust_log import FaustLog, NewestTable
from .foreign_batches import read_foreign_batches
from .governor import Governor, Judge
from .intake import Intake
from .kept import restore
from .log import Delivered, Layout, Source
from .parts import Parts, Role
from .policy_text import read_policies
from .ticker import Ticker
from .transport import IDLE_FETCH_MS, IDLE_PAUSE, PROMPT_FETCH_MS, PROMPT_PAUSE, Consumer, Transport
from .troubles import Troubles

TAKE_RECORDS = 500
"""What is judged at once, and what a fetch may bring: what is decided of the first goes out with the last."""
SESSION_SECONDS = 6.0
"""The least that Apache Kafka accepts; a dead worker's partitions are free after it. A shorter one does not shorten the
six seconds that the embedded broker lets a static member wait at every join."""
A_DAY = 86_400.0
"""How long a worker may wait for the archive before its group gives its partitions away."""
EMBEDDED_BATCH = 1
"""The embedded broker reports the end of a batch wrongly, and recovery trusts it: one record a batch."""
KAFKA_BATCH = 64 * 1024
"""Bytes."""


@dataclass(slots=True)
class Worker:
    """A composed worker. `failed` is done, with the reason, when the process must end."""

    app: faust.App
    shell: Governor | Archiver | Advisor
    failed: asyncio.Future[None]
    finish: Callable[[], Coroutine[Any, Any, None]]
    background: list[Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=list)

    def fail(self, reason: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(reason)

    @property
    def ends(self) -> dict[Source, int]:
        """The high watermarks that fetches brought, where any did."""
        return self.consumer.ends(self.shell.positions)

    @property
    def consumer(self) -> Consumer:
        return cast(Consumer, self.app.consumer)


@dataclass(frozen=True, slots=True)
class _Feed:
    """What an agent takes: so many records at once, or what came within `linger` seconds of the first; `assign` comes
    before the first of an assignment.
    """

    topics: tuple[str, ...]
    most: int
    linger: float
    assign: Callable[[dict[Source, int | None]], Awaitable[None]]


def build_app(settings: Settings, role: Role, layout: Layout, parts: Parts) -> Worker:
    """Compose the worker. Must be called in the event loop that will run it.

    Raises:
        PolicyInvalid: the policies that runs are to be given cannot be used.
    """
    app = _faust_app(settings, role, layout)
    match role:
        case "governor":
            return _governor(app, settings, layout, parts)
        case "archiver":
            return _archiver(app, settings, layout, parts)
        case "advisor":
            return _advisor(app, layout, parts)


def _faust_app(settings: Settings, role: Role, layout: Layout) -> faust.App:
    datadir = settings.data_dir / "faust" / f"{role}-{settings.slot}"  # Faust insists on one, and puts nothing into it
    datadir.mkdir(parents=True, exist_ok=True)
    read_foreign_batches()
    app = faust.App(
        f"pilothouse-{role}",
        broker=";".join(f"kafka://{server.strip()}" for server in settings.kafka.split(",")),
        broker_credentials=_credentials(settings.log_access),
        datadir=datadir,
        # A record that Faust cannot decode is acknowledged in silence: it decodes nothing, the codec does.
        key_serializer="raw",
        value_serializer="raw",
        store="memory://",
        Table=NewestTable,
        web_enabled=False,
        consumer_group_instance_id=f"pilothouse-{role}-{settings.slot}",
        broker_session_timeout=SESSION_SECONDS,
        broker_heartbeat_interval=SESSION_SECONDS / 6,
        broker_request_timeout=15.0,
        broker_commit_interval=0.5,
        broker_max_poll_interval=A_DAY,
        broker_max_poll_records=TAKE_RECORDS,
        producer_request_timeout=10.0,
        producer_max_batch_size=EMBEDDED_BATCH if settings.embedded_broker else KAFKA_BATCH,
        producer_max_request_size=DEADLETTER.max_record_bytes,
        topic_partitions=layout.telemetry,
        topic_replication_factor=settings.replication,
        topic_disable_leader=True,
        # Else a rebalance waits for acknowledgements; ours come with the next flush, and what is not written is redone.
        stream_wait_empty=False,
    )
    transport = Transport(app.conf.broker_consumer, app)
    is_prompt = role == "governor" and settings.embedded_broker  # an archiver gathers, an advisor takes its time
    transport.fetch_wait_ms = PROMPT_FETCH_MS if is_prompt else IDLE_FETCH_MS
    transport.pause = PROMPT_PAUSE if role == "governor" else IDLE_PAUSE
    app.transport = transport
    return app


def _credentials(access: KafkaAccess) -> faust.SASLCredentials | faust.SSLCredentials | None:
    if access.wants_login:
        return faust.SASLCredentials(
            username=access.user, password=access.password, ssl_context=access.tls(), mechanism=access.mechanism
        )
    return faust.SSLCredentials(access.tls()) if access.encrypted else None


def _governor(app: faust.App, settings: Settings, layout: Layout, parts: Parts) -> Worker:
    if parts.core is None:
        raise ValueError("a governor needs a core")
    table = app.Table("run-states", key_type=bytes, value_type=bytes, partitions=layout.telemetry, use_partitioner=True)
    log = parts.around(FaustLog(app, table))
    troubles = Troubles(settings.data_dir / "troubles" / f"governor-{settings.slot}.json")
    office = _office(settings, role="governor", layout=layout)
    policies = read_policies(settings.policy_file)
    judge = Judge(parts.core, policies, layout, troubles, office, parts.history, parts.guard)
    governor = Governor(log, judge, settings.log_epoch)
    ticker = Ticker(log, lambda: governor.assigned, settings.tick_seconds, parts.guard)

    async def assign(committed: dict[Source, int | None]) -> None:
        numbers = {source.partition: offset for source, offset in committed.items()}
        await governor.assign(numbers, restore(table.data, numbers))

    worker = Worker(app, governor, asyncio.get_running_loop().create_future(), finish=governor.finish)
    worker.background = [ticker.run, lambda: _flush(governor, settings.state_flush_seconds)]
    _attach(worker, _Feed((TELEMETRY.name,), TAKE_RECORDS, 0.0, assign))
    return worker


def _archiver(app: faust.App, settings: Settings, layout: Layout, parts: Parts) -> Worker:
    if parts.insert is None:
        raise ValueError("an archiver needs an archive")
    troubles = Troubles(settings.data_dir / "troubles" / f"archiver-{settings.slot}.json")
    log = parts.around(FaustLog(app))
    office = _office(settings, role="archiver", layout=layout)
    archiver = Archiver(log, parts.insert, office, settings.log_epoch, troubles, parts.guard)
    worker = Worker(app, archiver, asyncio.get_running_loop().create_future(), finish=archiver.finish)
    topics = (TELEMETRY.name, CONTROL.name)
    _attach(worker, _Feed(topics, settings.archive_batch, settings.archive_linger_seconds, archiver.assign))
    return worker


def _office(settings: Settings, role: Role, layout: Layout) -> DeadLetterOffice:
    note = settings.data_dir / "troubles" / f"{role}-{settings.slot}-unreadable.json"
    return DeadLetterOffice(layout.deadletter, settings.dead_letter_limit, note)


def _advisor(app: faust.App, layout: Layout, parts: Parts) -> Worker:
    log = parts.around(FaustLog(app))
    advisor = Advisor(log, parts.advisors, layout, guard=parts.guard)
    worker = Worker(app, advisor, asyncio.get_running_loop().create_future(), finish=advisor.finish)
    worker.background = [advisor.run]
    _attach(worker, _Feed((CONTROL.name,), TAKE_RECORDS, 0.0, advisor.assign))
    return worker


class _Agent:
    """What stands between Faust and a shell: an agent that only holds what comes, and a task that gives it to the
    shell. Where that fails, the process ends: an agent that raised would be started again in silence, and Faust commit
    past its batch.
    """

    def __init__(self, worker: Worker, feed: _Feed) -> None:
        self._worker = worker
        self._feed = feed
        self._intake = Intake(feed.most, feed.linger)
        cast(Transport, worker.app.transport).room = self._intake.room
        self._assigning = asyncio.Lock()
        self._sought = 0

    async def receive(self, stream: Any) -> None:
        stream.enable_acks = False  # what is done, the shell says
        async for event in stream.events():
            fetched = event.message
            self._intake.put(fetched.generation_id, _delivered(fetched.records))

    async def give(self) -> None:
        while True:
            await self._intake.ready()
            await self._assigned()
            await self._worker.shell.take(self._intake.take(self._worker.app.consumer_generation_id))

    async def follow_seeks(self) -> None:
        """An idle log brings no record, and its clock must start all the same."""
        while True:
            await self._worker.consumer.seeks.wait()
            self._worker.consumer.seeks.clear()
            await self._assigned()

    async def _assigned(self) -> None:
        """Take over what the last seek gave us, before its first record."""
        async with self._assigning:
            if self._sought != self._worker.consumer.sought:
                self._sought = self._worker.consumer.sought
                await self._feed.assign(dict(self._worker.consumer.committed))


def _attach(worker: Worker, feed: _Feed) -> None:
    """One agent over these topics."""
    app, agent = worker.app, _Agent(worker, feed)

    async def receive(stream: Any) -> None:  # Faust wants a function
        await agent.receive(stream)

    async def on_revoked(*_: Any, **__: Any) -> None:
        worker.shell.revoke()

    worker.background += [agent.follow_seeks, agent.give]
    app.on_partitions_revoked.connect(on_revoked, weak=False)
    topic = app.topic(*feed.topics, key_type=bytes, value_type=bytes)
    app.agent(topic, name=f"{app.conf.id}.agent")(receive)


async def _flush(governor: Governor, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        await governor.flush()


def _delivered(records: Sequence[Any]) -> list[Delivered]:
    return [
        Delivered(
            one.topic,
            one.partition,
            one.offset,
            one.key,
            tuple(one.headers or ()),
            one.value,
            (one.timestamp or 0) / 1_000,
        )
        for one in records
    ]
