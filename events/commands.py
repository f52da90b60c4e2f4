"""What people, advisors and the clock tell the governor: they stand in the same log as telemetry.

Every decision depends on nothing but that log, so whatever may change a decision is a record of it: a command with
who and why, the whole text of a policy, an advisor's answer, and time itself.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .actions import Action
from .envelope import Event, Fact, Name, Numbers, Text

CommandVerb = Literal["approve", "decline", "pause", "resume", "stop", "intervene", "silence"]


class OperatorCommand(Fact):
    """A person's order, always with who and why. `approve`/`decline` name an intervention, `intervene` brings an
    action.
    """

    kind: Literal["operator_command"] = "operator_command"
    verb: CommandVerb
    who: Name
    why: Text
    intervention_id: str = ""
    action: Action | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.verb in ("approve", "decline") and not self.intervention_id:
            raise ValueError(f"{self.verb} needs an intervention_id")
        if self.verb == "intervene" and self.action is None:
            raise ValueError("intervene needs an action")
        return self


class PolicyActivated(Fact):
    """From here on this policy governs the run: its whole text, so that replay needs no file."""

    kind: Literal["policy_activated"] = "policy_activated"
    name: Name
    text: Annotated[str, Field(min_length=1, max_length=65_536)]
    policy_hash: Name
    who: Name


class AdviceGiven(Fact):
    """An advisor's answer to an `AdviceRequested`: what it was given, what it said, how long it took. It can only
    propose.
    """

    kind: Literal["advice_given"] = "advice_given"
    request_id: Name
    advisor: Name
    input: Text = ""
    answer: Text = ""
    action: Action | None = None
    error: Text = ""
    latency_s: Annotated[float, Field(ge=0.0)] = 0.0


class RunAnnotated(Fact):
    """A person's note on a run or on one of its events, with an optional rating and pinned numbers."""

    kind: Literal["annotated"] = "annotated"
    who: Name
    text: Text
    about: str = ""
    rating: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    numbers: Numbers = {}


class Tick(Event):
    """Time moved on by a second for one partition; written by the governor's ticker, and the only clock of the core."""

    kind: Literal["tick"] = "tick"
    partition: Annotated[int, Field(ge=0)]
    writer_id: Name
    seq: Annotated[int, Field(ge=1)]

    @property
    def event_id(self) -> str:
        return f"{self.writer_id}:{self.seq}"
