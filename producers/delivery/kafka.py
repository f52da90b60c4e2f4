"""Kafka, as a trainer writes to it: records in their order, each confirmed, nothing waited for on the training
thread.

`KafkaSender` serves `delivery.outbox` on its thread; connecting, which may block for long, has a thread of its own.
`send_fact` is for people's commands (`cli`): one fact, delivered or a clear error. Everything goes to the telemetry
topic, to the run's partition, with an acknowledgement of all replicas.

Order: one request in flight (kafka-python then keeps a failed batch before its successors), and no idempotence: its
recovery from a broker that forgot it fails what is in flight, and readers know duplicates by their number anyway.
"""

import contextlib
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from enum import Enum
from queue import SimpleQueue
from typing import Any, Literal, NamedTuple

from ...access import Address
from ...events.codec import encode
from ...events.envelope import Fact
from ...events.errors import BrokerUnavailable
from ...events.topics import TELEMETRY, partition_of
from ...keyring import signer_of
from ...settings import Settings
from ..plain import why
from ..voice import logger
from .batching import Outgoing
from .connection import abandon, connected_producer, disarm

BOOTSTRAP_SECONDS = 10.0
STALL_SECONDS = 10.0
"""A record unconfirmed for so long ends the connection; the next one begins with it."""

RETRY_SECONDS = (0.25, 5.0)

State = Literal["connecting", "ready", "away"]


class Outcome(Enum):
    """What became of a record that was sent."""

    CONFIRMED = "confirmed"
    REFUSED = "refused"  # the broker will never take it


class _Ticket(NamedTuple):
    future: Any
    since: float


class _Link(NamedTuple):
    """A live producer and the partition of our run."""

    producer: Any
    partition: int


class KafkaSender:
    """Sends one run's records in order. `clock` counts seconds: of retries, and of what is not confirmed."""

    def __init__(self, bootstrap: Address, run_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._bootstrap = bootstrap
        self._run_id = run_id
        self._clock = clock
        self._notify: Callable[[], None] = lambda: None
        self._key = run_id.encode()
        self._arrivals: SimpleQueue[_Link | BrokerUnavailable] = SimpleQueue()
        self._link: _Link | None = None
        self._tickets: deque[_Ticket | Outcome] = deque()
        self._connecting = False
        self._failures = 0
        self._all_failures = 0
        self._trouble = ""
        self._retry_at = 0.0
        self._away_since: float | None = None
        self._closed = False

    def on_news(self, notify: Callable[[], None]) -> None:
        """`notify` is called, from other threads, when `poll` may have news."""
        self._notify = notify

    @property
    def state(self) -> State:
        """`away` once an attempt to connect has failed, until one succeeds."""
        if self._link is not None:
            return "ready"
        return "away" if self._failures else "connecting"

    @property
    def failures(self) -> int:
        """How many attempts to connect have failed, ever."""
        return self._all_failures

    @property
    def trouble(self) -> str:
        """Why the last attempt failed; empty before the first."""
        return self._trouble

    def hurry(self) -> None:
        """Try again now, and soon after that: the run is ending."""
        self._failures = min(self._failures, 1)
        self._retry_at = 0.0

    def poll(self) -> list[Outcome]:
        """What became of the records sent, oldest first, as far as it is known; begins to connect where there is no
        connection.

        REFUSED is always the last answer: what was sent behind it counts as not sent.

        Raises:
            BrokerUnavailable: the connection was given up: whatever is unconfirmed must be sent again.
        """
        if self._link is None:
            self._connect()
            return []
        outcomes: list[Outcome] = []
        while self._tickets and (outcome := self._outcome(self._tickets[0])) is not None:
            self._tickets.popleft()
            outcomes.append(outcome)
            if outcome is Outcome.REFUSED:
                self._tickets.clear()
        first = self._tickets[0] if self._tickets else None
        if not outcomes and isinstance(first, _Ticket):
            self._give_up_if_hopeless(first)
        return outcomes

    def send(self, record: Outgoing) -> None:
        """Hand one record over; its outcome comes by `poll`.

        Raises:
            BrokerUnavailable: the connection was given up: whatever is unconfirmed must be sent again.
        """
        from kafka.errors import KafkaError, MessageSizeTooLargeError

        if self._link is None:
            raise BrokerUnavailable(f"not connected to Kafka at {self._bootstrap}")
        producer, partition = self._link
        try:
            future = producer.send(
                TELEMETRY.name, record.body, key=self._key, headers=record.headers, partition=partition
            )
        except MessageSizeTooLargeError:
            self._tickets.append(Outcome.REFUSED)
            return
        except (KafkaError, AssertionError, ValueError, RuntimeError) as error:
            raise self._lost(f"{type(error).__name__}: {error}") from error
        future.add_both(self._on_future)
        self._tickets.append(_Ticket(future, self._clock()))

    def close(self) -> None:
        """Let go of the connection at once; what is unconfirmed stays so."""
        self._closed = True
        if self._link is not None:
            abandon(self._link.producer)
            self._link = None

    def forget(self) -> None:
        """In a forked child: the connection is the parent's, its thread is not here; never close or collect it."""
        if self._link is not None:
            disarm(self._link.producer)

    def _on_future(self, _result: object) -> None:
        self._notify()

    def _outcome(self, ticket: _Ticket | Outcome) -> Outcome | None:
        if isinstance(ticket, Outcome):
            return ticket
        if not ticket.future.is_done:
            return None
        if ticket.future.succeeded():
            return Outcome.CONFIRMED
        return Outcome.REFUSED if isinstance(ticket.future.exception, _refusals()) else None

    def _give_up_if_hopeless(self, first: _Ticket) -> None:
        if first.future.is_done:
            raise self._lost(f"{type(first.future.exception).__name__}: {first.future.exception}")
        if self._clock() - first.since > STALL_SECONDS:
            raise self._lost(f"nothing was confirmed for {STALL_SECONDS:.0f} s")

    def _lost(self, why: str) -> BrokerUnavailable:
        if self._link is not None:
            abandon(self._link.producer)
        self._link = None
        self._tickets.clear()
        self._failed(why)
        return BrokerUnavailable(f"Kafka at {self._bootstrap}: {why}")

    def _failed(self, why: str) -> None:
        self._failures += 1
        self._all_failures += 1
        self._trouble = why
        first, most = RETRY_SECONDS
        pause = min(most, first * 2 ** min(self._failures - 1, 10)) * random.uniform(0.8, 1.2)
        self._retry_at = self._clock() + pause
        if self._away_since is None:
            self._away_since = self._clock()
            logger.warning("Kafka at %s cannot be reached (%s); telemetry is kept and sent later", self._bootstrap, why)

    def _connect(self) -> None:
        if not self._arrivals.empty():
            self._connecting = False
            arrival = self._arrivals.get()
            if isinstance(arrival, BrokerUnavailable):
                self._failed(str(arrival))
            else:
                self._arrived(arrival)
        elif not self._connecting and not self._closed and self._clock() >= self._retry_at:
            self._connecting = True
            with contextlib.suppress(RuntimeError):  # the interpreter is shutting down: no new threads, no connection
                threading.Thread(target=self._fetch_link, name="pilothouse-connect", daemon=True).start()

    def _arrived(self, link: _Link) -> None:
        self._link = link
        self._failures = 0
        if self._away_since is not None:
            logger.warning("Kafka at %s answers again after %.0f s", self._bootstrap, self._clock() - self._away_since)
            self._away_since = None

    def _fetch_link(self) -> None:
        """On a thread of its own: connecting blocks."""
        try:
            producer, partitions = connected_producer(self._bootstrap, BOOTSTRAP_SECONDS)
        except BrokerUnavailable as error:
            self._arrivals.put(error)
        except Exception as error:  # noqa: BLE001  # of an address that can be none; it ends this attempt and no more
            self._arrivals.put(BrokerUnavailable(why(error)))
        else:
            if self._closed:
                abandon(producer)
            self._arrivals.put(_Link(producer, partition_of(self._run_id, partitions)))
        self._notify()


def send_fact(settings: Settings, event: Fact, timeout: float = 10.0) -> None:
    """Deliver one fact, whose `writer_id` is this one-shot writer's own, and return when the broker has it.

    Raises:
        BrokerUnavailable: it could not be delivered within `timeout` seconds; it may or may not be in the log.
    """
    from kafka.errors import KafkaError

    deadline = time.monotonic() + timeout
    producer, partitions = connected_producer(settings.log_access, timeout)
    wire = signer_of(settings)(encode(event))  # type: ignore[arg-type]  # every concrete Fact is a leaf of AnyEvent
    try:
        producer.send(
            TELEMETRY.name,
            wire.body,
            key=event.run_id.encode(),
            headers=wire.headers,
            partition=partition_of(event.run_id, partitions),
        ).get(max(0.1, deadline - time.monotonic()))
    except KafkaError as error:
        why = f"{type(error).__name__}: {error}"
        raise BrokerUnavailable(f"Kafka at {settings.kafka} did not take the {event.kind}: {why}") from error
    finally:
        abandon(producer)


def _refusals() -> tuple[type[BaseException], ...]:
    from kafka.errors import InvalidRecordError, MessageSizeTooLargeError, PolicyViolationError, RecordListTooLargeError

    return (MessageSizeTooLargeError, RecordListTooLargeError, InvalidRecordError, PolicyViolationError)
