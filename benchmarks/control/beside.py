"""The governor beside a training in the same process: the pure fold is called between its steps, and the step waits.

`Blocking` is what the pilot takes for a run and for its commands. What is told goes through the codec and the fold, and
what is decided through the codec and the trainer's own inbox, as on the wire; time is counted in steps, so that the
same training is judged the same on every machine.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pilothouse.events.actions import ActionKind
from pilothouse.events.codec import Malformed, decode, encode
from pilothouse.events.commands import PolicyActivated, Tick
from pilothouse.events.decisions import InterventionIssued
from pilothouse.events.envelope import LogPlace, TrainerFact
from pilothouse.events.telemetry import (
    AttemptReason,
    EvalCompleted,
    InterventionReceipt,
    Outcome,
    RunEnded,
    RunStarted,
    Stage,
    StageChanged,
    StepBatch,
)
from pilothouse.events.topics import partition_key
from pilothouse.events.union import AnyDecision, AnyEvent, AnyInput, Record
from pilothouse.governance.policy import policy_hash
from pilothouse.producers.checkpoints.retention import Judgement
from pilothouse.producers.ranks.context import Identity
from pilothouse.producers.steering.control import CLOSE_SECONDS, Distrusted, Inbox
from pilothouse.stream_processors.fold import fold
from pilothouse.stream_processors.replay import prove
from pilothouse.stream_processors.run_state import new_state

SECOND = 1_000_000
BEGAN = 1_790_000_000 * SECOND
STEPS_A_SECOND = 20
LOG = "in-process"


class _OnTheWire(NamedTuple):
    """A record of the control topic."""

    offset: int
    key: bytes | None
    headers: Sequence[tuple[str, bytes]]
    value: bytes | None


class Blocking:
    """One run of `ranks` ranks that share a process, governed by the fold in that process."""

    def __init__(self, run_id: str, policy: str, ranks: int) -> None:
        self.identity = Identity(run_id, f"{run_id}-1", 1, 0, ranks)
        self.decisions: list[AnyDecision] = []
        self.applied: set[str] = set()
        self._records: list[Record] = []
        self._state = new_state(run_id)
        self._inbox = Inbox(run_id)
        self._numbers: dict[str, int] = {}
        self._steers: tuple[ActionKind, ...] = ()
        self._values: Callable[[], Mapping[str, float]] = dict
        self._started: dict[str, Any] = {}
        self._logged = 0
        hashed = policy_hash(policy)
        self._fold(PolicyActivated(name="control", text=policy, policy_hash=hashed, who="bench", **self._who("policy")))
        self._start("start", 0, None)

    # ------------------------------------------------------------------------------------------------ what a loop says

    def log(self, step: int, metrics: Sequence[dict[str, float]]) -> None:
        """The metrics of each rank."""
        for rank, told in enumerate(metrics):
            columns = {name: (value,) for name, value in told.items()}
            self._fold(self._fact(StepBatch, rank, steps=(step,), times=(self._now,), metrics=columns))
        self._logged += 1
        if self._logged % STEPS_A_SECOND == 0:
            self._fold(Tick(at=self._now, partition=0, writer_id="ticker", seq=self._number("ticker")))

    def evaluated(self, step: int, loss: float) -> None:
        self.tell(EvalCompleted, step=step, metrics={"loss": loss})

    def ended(self, step: int) -> None:
        for rank in range(self.identity.world_size):
            self._fold(self._fact(RunEnded, rank, outcome="completed", step=step))

    def replays(self) -> bool:
        """Whether the log leads to the same decisions once more."""
        proof = prove(self.identity.run_id, self._records, self.decisions)
        return proof.difference is None and proof.same == len(self.decisions) and not proof.account.faults

    # ------------------------------------------------------------------------------------------------- a pilot's run

    def tell(self, fact: type[TrainerFact], **fields: Any) -> None:
        if fact is InterventionReceipt and fields["outcome"] == "applied":
            self.applied.add(fields["intervention_id"])
        self._fold(self._fact(fact, 0, **fields))

    def begin_attempt(
        self, reason: AttemptReason, first_step: int, parent: str | None = None, attempt_id: str | None = None
    ) -> Identity:
        assert attempt_id is not None  # a pilot derives it
        self.identity = self.identity._replace(attempt_id=attempt_id, attempt=self.identity.attempt + 1)
        self._start(reason, first_step, parent)
        return self.identity

    def stage(self, stage: Stage, step: int | None = None) -> None:
        self.tell(StageChanged, stage=stage, step=step or 0)

    def steers(self, actions: tuple[ActionKind, ...], values: Callable[[], Mapping[str, float]] = dict) -> None:
        self._steers, self._values = actions, values
        self._announce()

    def ending(self, outcome: Outcome) -> None: ...

    def timed(self, loader: Any) -> Any:
        return loader

    # ---------------------------------------------------------------------------------------------- its commands

    def take(self) -> InterventionIssued | Distrusted | None:
        return self._inbox.take()

    def judged(self) -> Judgement:
        return self._inbox.judged

    def close(self, within: float = CLOSE_SECONDS) -> None: ...

    # ------------------------------------------------------------------------------------------------------- the log

    @property
    def _now(self) -> int:
        return BEGAN + self._logged * SECOND // STEPS_A_SECOND

    def _start(self, reason: AttemptReason, first_step: int, parent: str | None) -> None:
        self._started = {"reason": reason, "first_step": first_step, "parent_attempt_id": parent}
        self._announce()

    def _announce(self) -> None:
        about = {"steers": self._steers, "values": self._values(), **self._started}
        self.tell(RunStarted, world_size=self.identity.world_size, **about)

    def _fact(self, fact: Any, rank: int, **fields: Any) -> AnyInput:
        _, attempt_id, attempt, _, _ = self.identity
        who = {"attempt_id": attempt_id, "attempt": attempt, "rank": rank, **self._who(f"rank-{rank}")}
        made: AnyInput = fact(**who, **fields)
        return made

    def _who(self, writer_id: str) -> dict[str, Any]:
        return {
            "run_id": self.identity.run_id, "writer_id": writer_id, "seq": self._number(writer_id), "at": self._now,
        }  # fmt: skip

    def _number(self, writer_id: str) -> int:
        number = self._numbers[writer_id] = self._numbers.get(writer_id, 0) + 1
        return number

    def _fold(self, event: AnyInput) -> None:
        record = Record(LogPlace(0, 0, len(self._records)), _as_read(event))
        self._records.append(record)
        folded = fold(self._state, record)
        if folded.fault:
            raise RuntimeError(folded.fault)
        self._state = folded.state
        for decision in folded.decisions:
            wire, offset = encode(decision), len(self.decisions)
            self.decisions.append(decision)
            self._inbox.offer(LOG, _OnTheWire(offset, partition_key(decision), wire.headers, wire.body))


def _as_read(event: AnyInput) -> Any:
    """The event as a reader of the log gets it."""
    wire = encode(event)
    read: AnyEvent | Malformed = decode(wire.headers, wire.body)
    if isinstance(read, Malformed):
        raise RuntimeError(f"{event.kind}: {read.reason}, {read.detail}")
    return read
