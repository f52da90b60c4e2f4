"""What every event has: identity, time, and its place in the log.

The leaves of this tree (`telemetry`, `commands`, `decisions`) form the closed union in `union.py`. A *fact* is told
by somebody (a trainer, a person, an advisor) and is unique by `(run_id, writer_id, seq)`. A *decision* is concluded
by the governor from facts; its id is derived from what it was concluded from, so that concluding it twice gives the
same event.
"""

from typing import Annotated, ClassVar, NamedTuple
from uuid import NAMESPACE_URL, UUID, uuid5

from pydantic import BaseModel, ConfigDict, Field

Micros = Annotated[int, Field(ge=0, lt=2**62)]
"""Microseconds since the Unix epoch, UTC: event time, as told by whoever wrote the event. Data, never a clock."""

Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=16_384)]
Step = Annotated[int, Field(ge=0, lt=2**62)]
Count = Annotated[int, Field(ge=0, lt=2**62)]
Numbers = Annotated[dict[str, float], Field(max_length=1_000)]
"""Named values. NaN and both infinities are values like any other."""

DECISION_NAMESPACE = uuid5(NAMESPACE_URL, "https://pilothouse.dev/decision")


class LogPlace(NamedTuple):
    """Where a record stands in the totally ordered log of its partition.

    `epoch` grows when the log itself was lost (a broker that kept nothing was restarted); places of one partition
    compare in the order in which they were judged.
    """

    epoch: int
    partition: int
    offset: int

    def precedes(self, other: "LogPlace") -> bool:
        """Whether this place was written before `other`, a place of the same partition."""
        return (self.epoch, self.offset) < (other.epoch, other.offset)


class Event(BaseModel):
    """Something that happened. Frozen; unknown fields are an error (a newer writer raises the schema version)."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings", allow_inf_nan=True)

    schema_version: ClassVar[int] = 1

    kind: str
    at: Micros

    @property
    def event_id(self) -> str:
        """Unique for ever; equal for copies of the same event."""
        raise NotImplementedError(type(self))  # every leaf inherits one of the identities below


class Fact(Event):
    """Told by a writer. `writer_id` is random per process, `seq` counts from 1 without gaps within it."""

    run_id: Name
    writer_id: Name
    seq: Annotated[int, Field(ge=1, lt=2**62)]

    @property
    def event_id(self) -> str:
        return f"{self.writer_id}:{self.seq}"


class TrainerFact(Fact):
    """Told by one rank of one attempt. `attempt_id` is the identity; `attempt` is its ordinal, for people."""

    attempt_id: Name
    attempt: Annotated[int, Field(ge=1, lt=2**31)]
    rank: Annotated[int, Field(ge=0, lt=2**31)]


class Decision(Event):
    """Concluded by the governor. `basis` is the last record it was decided on; `step` the last step judged."""

    run_id: Name
    attempt_id: str
    attempt: int
    decision_id: Name
    basis: LogPlace
    step: int
    policy_hash: str

    @property
    def event_id(self) -> str:
        return self.decision_id


def derived_id(run_id: str, attempt_id: str, subject: str, trigger: str, ordinal: int) -> str:
    """The identity of a decision: UUIDv5 of what it is about and what caused it.

    `subject` is the rule or condition, `trigger` what set it off (a step, an event id), `ordinal` counts decisions of
    one kind over the life of the run. The policy's hash is a field of the decision and deliberately no part of the id.
    """
    return str(uuid5(DECISION_NAMESPACE, "\x1f".join((run_id, attempt_id, subject, trigger, str(ordinal)))))


def derived_attempt_id(parent_attempt_id: str, intervention_id: str) -> str:
    """The attempt that a rollback starts. Every rank derives the same id without asking another."""
    return UUID(bytes=uuid5(DECISION_NAMESPACE, f"{parent_attempt_id}\x1f{intervention_id}").bytes).hex
