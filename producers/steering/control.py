"""What the governor commands this run, heard from the control topic: rank 0's thread, and what it may believe.

`steering.safe_point` takes commands one by one. `Inbox` picks this run's `InterventionIssued` out of the partition,
`Orders` says which of them may still be obeyed (both pure), `Follower` is the thread with the consumer: assigned to the
run's partition, in no group.

Where it starts. A command for an attempt can only have been written after the attempt began, so an hour before that
(clocks differ) misses none and skips a week of log. The embedded broker keeps its log in memory and cannot be asked for
its end: there, and whenever the cluster's identity changed under us (a log that was lost, with offsets that begin
anew), it reads from the beginning. Reading again is harmless: what was heard before is known by its id and its place.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from ...access import Address, access_of
from ...events.actions import Resume
from ...events.codec import KIND_HEADER, Encoded, Malformed, decode
from ...events.decisions import (
    SINCE_GOOD,
    VAL_BEST_STEP,
    IncidentOpened,
    IncidentResolved,
    InterventionIssued,
    RunAssessed,
)
from ...events.envelope import LogPlace
from ...events.signing import OPEN, Trust, Untrusted
from ...events.telemetry import ReceiptOutcome
from ...events.topics import CONTROL, partition_of
from ...events.union import AnyEvent
from ...login import refuse_stranger
from ...quiet import CLIENT_ID, allow_import, quiet_clients
from ..checkpoints.retention import Judgement
from ..ranks.context import Identity
from ..voice import logger

CLOCK_SLACK_SECONDS = 3_600.0
REFRESH_MS = 3_000
FETCH_MS, PROMPT_FETCH_MS = 200, 50
"""How long the broker may hold a fetch that finds nothing. Apache Kafka answers as soon as there is something, the
embedded broker only after this time, half of which a command waits there.
"""
RETRY_SECONDS = 1.0
CLOSE_SECONDS = 2.0
HEARD = (b"intervention_issued", b"incident_opened", b"incident_resolved", b"run_assessed")
MOST_DISTRUSTED = 16
"""So many commands that are not believed are answered with a receipt; more are only counted."""
GOOD_KEPT = 2
"""Good checkpoints that are remembered: one, and the one before it, should the first turn out to be damaged."""


class LogRecord(Protocol):
    """What the Kafka client hands out, as far as it is read here."""

    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...
    @property
    def value(self) -> bytes | None: ...


class Commands(Protocol):
    """Where rank 0 gets its commands from, in the order of the log."""

    def take(self) -> "InterventionIssued | Distrusted | None":
        """The next command, if one has come; never waits."""

    def judged(self) -> Judgement:
        """What the governor thinks of the run, as far as it was heard."""

    def close(self, within: float = CLOSE_SECONDS) -> None:
        """Nothing more will be taken. Takes `within` seconds at most."""


class Distrusted(NamedTuple):
    """A command that bears no signature of a key that was given to this process, and why it is not believed."""

    command: InterventionIssued
    why: Untrusted


class Inbox:
    """This run's commands, picked out of a partition shared by many runs. One thread offers, another takes.

    What is offered is believed where `trust` does; all else of the governor's is passed over, and its commands are kept
    for a receipt that says so.
    """

    def __init__(self, run_id: str, trust: Callable[[], Trust] = lambda: OPEN) -> None:
        self._trust = trust
        self.refused = 0
        self._run_id = run_id
        self._key = run_id.encode()
        self._places: dict[str, tuple[str, int]] = {}
        self._waiting: deque[InterventionIssued | Distrusted] = deque()
        self.malformed = 0
        self.judged = Judgement()

    def offer(self, log_id: str, record: LogRecord) -> None:
        """One record of the partition, out of the log of this identity. Never raises, whatever its bytes are."""
        if record.key != self._key or dict(record.headers).get(KIND_HEADER) not in HEARD:
            return
        event = decode(record.headers, record.value)
        if isinstance(event, Malformed):
            self._complain(event, record.offset)
        elif (objection := self._objection(event, record)) is not None:
            self._distrust(event, objection, record.offset)
        elif isinstance(event, InterventionIssued) and event.run_id == self._run_id:
            self._accept(event, (log_id, record.offset))
        elif isinstance(event, IncidentOpened | IncidentResolved) and event.run_id == self._run_id:
            onset = event.onset_step if isinstance(event, IncidentOpened) else None
            self.judged = self.judged._replace(suspect_since=onset)
        elif isinstance(event, RunAssessed) and event.run_id == self._run_id:
            self._hear_of_checkpoints(event)

    def take(self) -> InterventionIssued | Distrusted | None:
        return self._waiting.popleft() if self._waiting else None

    def _objection(self, event: AnyEvent, record: LogRecord) -> Untrusted | None:
        return self._trust().objection(event, Encoded(record.value or b"", list(record.headers)))

    def _distrust(self, event: AnyEvent, why: Untrusted, offset: int) -> None:
        self.refused += 1
        if isinstance(event, InterventionIssued) and event.run_id == self._run_id and self.refused <= MOST_DISTRUSTED:
            self._waiting.append(Distrusted(event, why))
        if self.refused == 1:
            logger.error(
                "pilothouse: %s at offset %d is not believed (the next are only counted): %s: %s",
                event.kind,
                offset,
                why.reason,
                why.detail,
            )

    def _hear_of_checkpoints(self, event: RunAssessed) -> None:
        """How far back the last good checkpoint lies (one that lies before those that were heard of takes them back),
        and where the validation loss was lowest.
        """
        best = event.features.get(VAL_BEST_STEP, math.nan)
        if math.isfinite(best):
            self.judged = self.judged._replace(best=round(best))
        ago = event.features.get(SINCE_GOOD, math.nan)
        if math.isfinite(ago):
            step = event.step - round(ago)
            good = (*(known for known in self.judged.good if known < step), step)
            self.judged = self.judged._replace(good=good[-GOOD_KEPT:])

    def _accept(self, command: InterventionIssued, place: tuple[str, int]) -> None:
        # The same place again is our own reading again; a copy at another place is `Orders`' to refuse.
        if self._places.get(command.decision_id) != place:
            self._places.setdefault(command.decision_id, place)
            self._waiting.append(command)

    def _complain(self, record: Malformed, offset: int) -> None:
        self.malformed += 1
        if self.malformed == 1:
            logger.error(
                "pilothouse: a command at offset %d cannot be read and is skipped (the next are only counted): %s, %s",
                offset,
                record.reason,
                record.detail,
            )


class Refusal(NamedTuple):
    """Why a command is not obeyed, and the outcome its receipt gives."""

    outcome: ReceiptOutcome
    reason: str


@dataclass
class Orders:
    """What may still be obeyed, as one rank remembers it."""

    attempts: set[str] = field(default_factory=set)
    obeyed: LogPlace | None = None
    dealt_with: dict[str, str] = field(default_factory=dict)
    foreign: int = 0

    def is_foreign(self, command: InterventionIssued, identity: Identity) -> bool:
        """Addressed to an attempt that this process never was: the history of its predecessors, answered long ago."""
        self.attempts.add(identity.attempt_id)
        if command.attempt_id in self.attempts:
            return False
        self.foreign += 1
        return True

    def refusal(self, command: InterventionIssued, identity: Identity, step: int) -> Refusal | None:
        """Why rank 0 does not even propose it; None when it may."""
        if (known := self.dealt_with.get(command.intervention_id)) is not None:
            return Refusal("rejected", f"Duplicate: this intervention was {known}")
        if (overtaken := self.overtaken(command, identity)) is not None:
            return Refusal("rejected", overtaken)
        if step > command.expires_step:
            return Refusal("expired", f"Expired: it was good until step {command.expires_step}, this is step {step}")
        return None

    def overtaken(self, command: InterventionIssued, identity: Identity) -> str | None:
        """What has happened since it was decided on, and takes away its ground; None where nothing has."""
        if command.concerns_the_run:
            return None
        if command.attempt_id != identity.attempt_id:
            return f"Stale: it is for attempt {command.attempt_id}, this is {identity.attempt_id}"
        if self.obeyed is not None and command.basis.precedes(self.obeyed):
            return f"OutOfOrder: decided on {command.basis}, before the last obeyed {self.obeyed}"
        return None

    def remember(self, command: InterventionIssued, outcome: str, step: int) -> None:
        """This rank is done with a command."""
        self.dealt_with[command.intervention_id] = f"{outcome} at step {step}"
        # A resume changes nothing that a decision could rest on, and what waited for it was decided before it.
        if isinstance(command.action, Resume):
            return
        if outcome == "applied" and (self.obeyed is None or self.obeyed.precedes(command.basis)):
            self.obeyed = command.basis


class Follower:
    """Follows the control topic on a thread of its own until closed; a broker that is away is waited for."""

    def __init__(
        self,
        kafka: Address,
        run_id: str,
        *,
        log_in_memory: bool,
        since: float,
        trust: Callable[[], Trust] = lambda: OPEN,
    ) -> None:
        self._kafka = access_of(kafka)
        self._run_id = run_id
        self._log_in_memory = log_in_memory
        self._since_ms = int((since - CLOCK_SLACK_SECONDS) * 1_000)
        self._inbox = Inbox(run_id, trust)
        self._closed = threading.Event()
        self._silent = False
        self._thread = threading.Thread(target=self._run, name="pilothouse-control", daemon=True)

    def start(self) -> "Follower":
        self._thread.start()
        return self

    def take(self) -> InterventionIssued | Distrusted | None:
        return self._inbox.take()

    @property
    def malformed(self) -> int:
        """How many commands could not be read."""
        return self._inbox.malformed

    def judged(self) -> Judgement:
        return self._inbox.judged

    def close(self, within: float = CLOSE_SECONDS) -> None:
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(within)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001  # the client's errors are many, the answer is one: come again
                self._say_once(error)
                self._closed.wait(RETRY_SECONDS)

    def _say_once(self, error: Exception) -> None:
        if not self._silent:
            logger.warning(
                "pilothouse: commands cannot be heard from %s (%s: %s); trying on",
                self._kafka,
                type(error).__name__,
                error,
            )
        self._silent = True

    def _follow(self) -> None:
        allow_import()
        from kafka import KafkaConsumer, TopicPartition

        quiet_clients()
        refuse_stranger(self._kafka)
        consumer = KafkaConsumer(
            **self._kafka.options(),
            client_id=f"{CLIENT_ID}-control",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            metadata_max_age_ms=REFRESH_MS,
            bootstrap_timeout_ms=5_000,
            reconnect_backoff_max_ms=1_000,
            fetch_max_wait_ms=PROMPT_FETCH_MS if self._log_in_memory else FETCH_MS,
        )
        try:
            partitions = self._partitions(consumer)
            if partitions:
                self._read(consumer, TopicPartition(CONTROL.name, partition_of(self._run_id, partitions)))
        finally:
            consumer.close()

    def _partitions(self, consumer: Any) -> int:
        """How many the broker has; waits for the topic to be made."""
        while not self._closed.is_set():
            known = consumer.partitions_for_topic(CONTROL.name)
            if known:
                return len(known)
            self._closed.wait(RETRY_SECONDS)
        return 0

    def _read(self, consumer: Any, partition: Any) -> None:
        consumer.assign([partition])
        cluster: str | None = None
        while not self._closed.is_set():
            if (told := self._cluster_of(consumer)) != cluster:
                self._begin(consumer, partition, again=cluster is not None)
                cluster = told
            for batch in consumer.poll(timeout_ms=200).values():
                for record in batch:
                    self._inbox.offer(str(cluster), record)
                self._silent = False

    def _begin(self, consumer: Any, partition: Any, *, again: bool) -> None:
        if again:
            logger.warning(
                "pilothouse: the log at %s is another one than before; reading its commands from the start", self._kafka
            )
        if self._log_in_memory or again:
            consumer.seek_to_beginning(partition)
            return
        # In this order: what is written between the two questions lies behind `end`.
        end = consumer.end_offsets([partition], timeout_ms=10_000)[partition]
        found = consumer.offsets_for_times({partition: max(0, self._since_ms)}, timeout_ms=10_000)[partition]
        consumer.seek(partition, found.offset if found is not None else end)

    @staticmethod
    def _cluster_of(consumer: Any) -> str | None:
        return getattr(consumer._cluster, "cluster_id", None)


def follow(kafka: Address, run_id: str, *, log_in_memory: bool, trust: Callable[[], Trust] = lambda: OPEN) -> Follower:
    """A started follower for a run whose process begins now."""
    return Follower(kafka, run_id, log_in_memory=log_in_memory, since=time.time(), trust=trust).start()
