"""What people, advisors and the clock tell the governor: they stand in the same log as telemetry.

Every decision depends on nothing but that log, so whatever may change a decision is a record of it: a command with
who and why, the whole text of a policy, an advisor's answer, and time itself.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from .actions import Action
from .decisions import ConditionType
from .envelope import Count, Event, Fact, Name, Numbers, Text

CommandVerb = Literal["approve", "decline", "pause", "resume", "stop", "intervene", "silence"]
PipelineFact = Literal[
    "artifacts",
    "bias_test",
    "data_freshness",
    "drift_alert",
    "held_out_evaluation",
    "latency",
    "promotion",
    "reproduction",
    "retrain_trigger",
]


class FactShape(NamedTuple):
    """The numbers that a fact of the pipeline must have and those that it may have. None is negative, but for
    `anything`.
    """

    needs: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    anything: tuple[str, ...] = ()


PIPELINE_FACTS: Mapping[PipelineFact, FactShape] = {
    "artifacts": FactShape(needs=("available", "expected")),
    "bias_test": FactShape(needs=("passed", "failed")),
    "data_freshness": FactShape(needs=("age_hours",)),
    "drift_alert": FactShape(may=("score", "threshold", "acted_upon")),
    "held_out_evaluation": FactShape(
        needs=("value",), may=("baseline", "delta"), anything=("value", "baseline", "delta")
    ),
    "latency": FactShape(needs=("p95_ms",), may=("p50_ms", "p99_ms", "requests")),
    "promotion": FactShape(),
    "reproduction": FactShape(needs=("attempted", "reproduced")),
    "retrain_trigger": FactShape(),
}
"""The closed list. `held_out_evaluation`: `value` of the metric named in `subject`, the `baseline` it is held against
and the `delta` that was declared. `data_freshness`: hours from capture to training. `bias_test`, `artifacts`,
`reproduction`: counts. `acted_upon` is 0 or 1."""


class OperatorCommand(Fact):
    """A person's order, always with who and why. `approve`/`decline` name an intervention, `intervene` brings an
    action, and `pause`/`stop` may bring theirs. `silence` is about a rule, about the rules that name a condition, or
    about all, for so many judged steps or seconds; for 0 it ends what was silenced. `origin` is where it was given: the
    command line of a machine, or the control room and the address it was called from.
    """

    schema_version: ClassVar[int] = 3

    kind: Literal["operator_command"] = "operator_command"
    verb: CommandVerb
    who: Name
    why: Text
    intervention_id: str = ""
    action: Action | None = None
    rule: Annotated[str, Field(max_length=64)] = ""
    condition: ConditionType | None = None
    steps: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    seconds: Annotated[int, Field(ge=0, le=100_000_000)] | None = None
    origin: Annotated[str, Field(max_length=200)] = ""

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
    propose: `action` is absent where it proposes nothing, and then `error` or `why` says the reason.

    `answer` is what it said, as it said it; `retried_answer` and `retried_error` are of a first answer that was sent
    back. `evidence` and `runs` are what the archive knows of the action. `cost_usd` is absent where it is not known.
    """

    schema_version: ClassVar[int] = 2

    kind: Literal["advice_given"] = "advice_given"
    request_id: Name
    advisor: Name
    input: Text = ""
    answer: Text = ""
    action: Action | None = None
    why: Text = ""
    error: Text = ""
    retried_answer: Text = ""
    retried_error: Text = ""
    latency_s: Annotated[float, Field(ge=0.0)] = 0.0
    evidence: Numbers = {}
    runs: Annotated[tuple[Name, ...], Field(max_length=32)] = ()
    model: str = ""
    temperature: float | None = None
    prompt_sha256: str = ""
    tokens_in: Count = 0
    tokens_out: Count = 0
    cost_usd: Annotated[float, Field(ge=0.0)] | None = 0.0


class RunAnnotated(Fact):
    """A person's note on a run or on one of its events, with an optional rating and pinned numbers."""

    kind: Literal["annotated"] = "annotated"
    who: Name
    text: Text
    about: str = ""
    rating: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    numbers: Numbers = {}


class PipelineReported(Fact):
    """A fact from the pipeline around the run, which only its owner knows: what the service levels are computed on.

    `subject` is what it is about (a model version, a data set, a metric, a protected group); `at` when it happened.
    The attempt and the rank are known where the training script itself reports.
    """

    kind: Literal["pipeline_reported"] = "pipeline_reported"
    fact: PipelineFact
    who: Name
    subject: Annotated[str, Field(max_length=200)] = ""
    numbers: Numbers = {}
    note: Text = ""
    attempt_id: Annotated[str, Field(max_length=200)] = ""
    attempt: Annotated[int, Field(ge=0, lt=2**31)] = 0
    rank: Annotated[int, Field(ge=0, lt=2**31)] | None = None

    @model_validator(mode="after")
    def _numbers_fit(self) -> Self:
        if said := wrong_numbers(self.fact, self.numbers):
            raise ValueError(said)
        return self


def wrong_numbers(fact: PipelineFact, numbers: Mapping[str, float]) -> str:
    """What is wrong with a fact's numbers, and what they should be; empty where nothing is."""
    shape = PIPELINE_FACTS[fact]
    known = (*shape.needs, *shape.may)
    takes = f"{fact} takes {_listed(known)}" + (f" and needs {_listed(shape.needs)}" if shape.needs else "")
    for name, value in numbers.items():
        if name not in known:
            return f"{takes}; got {name!r:.100}"
        if not (math.isfinite(value) and (value >= 0 or name in shape.anything)):
            return f"{name} of {fact} must be a number{'' if name in shape.anything else ' from 0'}, got {value}"
    missing = [name for name in shape.needs if name not in numbers]
    return f"{takes}; {_listed(missing)} is missing" if missing else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "no numbers"


class Tick(Event):
    """Time moved on by a second for one partition; written by the governor's ticker, and the only clock of the core."""

    kind: Literal["tick"] = "tick"
    partition: Annotated[int, Field(ge=0)]
    writer_id: Name
    seq: Annotated[int, Field(ge=1)]

    @property
    def event_id(self) -> str:
        return f"{self.writer_id}:{self.seq}"
