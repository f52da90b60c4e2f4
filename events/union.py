"""The closed union of all events, told apart by `kind`.

Code that treats events by kind matches on this union and ends with `assert_never`: adding an event makes the type
checker list every place that must know it.
"""

from typing import Annotated, NamedTuple, get_args

from pydantic import Field, TypeAdapter

from .commands import AdviceGiven, OperatorCommand, PipelineReported, PolicyActivated, RunAnnotated, Tick
from .decisions import (
    AdviceJudged,
    AdviceRequested,
    CheckpointRejected,
    ConditionChanged,
    IncidentOpened,
    IncidentResolved,
    InterventionApproved,
    InterventionDeclined,
    InterventionExpired,
    InterventionIssued,
    InterventionProposed,
    InterventionVerified,
    OrderAnswered,
    PhaseChanged,
    RunAssessed,
)
from .envelope import Event, LogPlace
from .telemetry import (
    CheckpointRestored,
    CheckpointSaved,
    CheckpointUnavailable,
    DataProfiled,
    DataWindowSkipped,
    EvalCompleted,
    Heartbeat,
    InterventionReceipt,
    LogLines,
    RecipeChanged,
    ResourcesSampled,
    RunEnded,
    RunStarted,
    SampleRecorded,
    StageChanged,
    StepBatch,
    TelemetryGap,
)

AnyTelemetry = (
    RunStarted
    | StepBatch
    | EvalCompleted
    | SampleRecorded
    | ResourcesSampled
    | CheckpointSaved
    | CheckpointRestored
    | CheckpointUnavailable
    | DataWindowSkipped
    | TelemetryGap
    | StageChanged
    | Heartbeat
    | RecipeChanged
    | DataProfiled
    | LogLines
    | InterventionReceipt
    | RunEnded
)
AnyCommand = OperatorCommand | PolicyActivated | AdviceGiven | RunAnnotated | PipelineReported | Tick
AnyDecision = (
    ConditionChanged
    | PhaseChanged
    | RunAssessed
    | InterventionProposed
    | InterventionApproved
    | InterventionDeclined
    | InterventionIssued
    | InterventionExpired
    | InterventionVerified
    | OrderAnswered
    | CheckpointRejected
    | IncidentOpened
    | IncidentResolved
    | AdviceRequested
    | AdviceJudged
)
AnyInput = AnyTelemetry | AnyCommand
"""All that the governor reads: the telemetry topic."""
AnyEvent = AnyTelemetry | AnyCommand | AnyDecision

EVENT: TypeAdapter[AnyEvent] = TypeAdapter(Annotated[AnyEvent, Field(discriminator="kind")])

KINDS: dict[str, type[Event]] = {leaf.model_fields["kind"].default: leaf for leaf in get_args(AnyEvent)}
"""Every event class by its `kind`."""


class Record(NamedTuple):
    """An event and its place in the log: what the fold consumes."""

    place: LogPlace
    event: AnyInput
