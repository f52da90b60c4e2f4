"""What a trainer tells: the facts that ranks publish.

Written by `producers.run`, judged by `stream_processors.fold`, kept by `storage.archive`. Non-finite numbers are
ordinary values here. Sizes are bounded, so that one careless call cannot make a record that no broker takes.
"""

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from .actions import ActionKind
from .envelope import Count, Micros, Name, Numbers, Step, Text, TrainerFact

Stage = Literal["prepare", "compile", "warmup", "train", "evaluate", "checkpoint", "paused", "stop"]
AttemptReason = Literal["start", "restart", "rollback"]
Outcome = Literal["completed", "stopped", "crashed", "out_of_memory", "preempted", "diverged"]
ReceiptOutcome = Literal["applied", "rejected", "expired", "failed"]
LR_RAMP = "lr_ramp"
"""A `RecipeChanged` of the pilot's own: the learning rate that a rollback had cut is back where it was."""
Unavailable = Literal["not_saved", "unusable", "rotated"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
Seconds = Annotated[float, Field(ge=0.0)]
Labels = Annotated[dict[Name, Annotated[str, Field(max_length=2_000)]], Field(max_length=100)]
MAX_CONFIG_DEPTH = 50
"""Deeper than this JSON readers give up (200 levels in ours), and people long before."""


def _plain(value: object, depth: int) -> object:
    match value:
        case dict() | list() | tuple() if depth >= MAX_CONFIG_DEPTH:
            return "(nested deeper than is kept)"
        case float() | int() if not _fits_json(value):
            return str(value)
        case str():
            return _sayable(value)
        case dict():
            return {_sayable(str(name)): _plain(item, depth + 1) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item, depth + 1) for item in value]
        case _:
            return value


def _fits_json(value: float) -> bool:
    return -(2**63) <= value < 2**64 if isinstance(value, int) else math.isfinite(value)


def _sayable(text: str) -> str:
    """Half a surrogate pair (a path of undecodable bytes, say) has no UTF-8."""
    return text.encode(errors="replace").decode()


def _plain_config(value: object) -> object:
    """Configuration is text for people: what JSON cannot say is spelled out."""
    return _plain(value, 0)


Config = Annotated[dict[str, JsonValue], BeforeValidator(_plain_config)]


class RunStarted(TrainerFact):
    """Rank 0 begins an attempt: a first start, a restart, or the continuation after a rollback.

    `steers` lists the actions this trainer can carry out; nothing else is ever asked of it. `cost_per_hour` is for
    the whole run, in the currency of the reader. `world_size` ranks are expected to report. `values` are those in force
    of what may be steered (the learning rate's multiplier, knobs), as far as the trainer knows them. `environment` is
    what the trainer found by itself: command, host, versions, commit, devices, launcher, seeds
    (`producers.surroundings.environment`). An attempt may be announced again when more is known of it; the last
    announcement counts.
    """

    schema_version: ClassVar[int] = 3

    kind: Literal["run_started"] = "run_started"
    reason: AttemptReason
    first_step: Step
    world_size: Annotated[int, Field(ge=1, lt=2**31)]
    parent_attempt_id: str | None = None
    config: Config = {}
    code_version: Text = ""
    dataset: Text = ""
    dataset_version: Text = ""
    model: Text = ""
    model_family: Text = ""
    cluster: Text = ""
    team: Text = ""
    environment: Config = {}
    cost_per_hour: Annotated[float, Field(ge=0.0)] | None = None
    tags: Labels = {}
    links: Labels = {}
    steers: tuple[ActionKind, ...] = ()
    values: Numbers = {}


class StepBatch(TrainerFact):
    """Many steps of one rank, columnar: `metrics[name][i]` belongs to `steps[i]`, logged at `times[i]`; None = not
    logged.

    Steps stand in the order in which they were logged, which need not be ascending. Where a batch begins and ends
    means nothing.
    """

    kind: Literal["step_batch"] = "step_batch"
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=10_000)]
    times: tuple[Micros, ...]
    metrics: Annotated[dict[Name, tuple[float | None, ...]], Field(min_length=1, max_length=10_000)]

    @model_validator(mode="after")
    def _columns_agree(self) -> Self:
        rows = len(self.steps)
        if len(self.times) != rows or any(len(column) != rows for column in self.metrics.values()):
            raise ValueError(f"every column must have {rows} values, one per step")
        return self


class EvalCompleted(TrainerFact):
    """An evaluation on held-out data ended."""

    kind: Literal["eval_completed"] = "eval_completed"
    step: Step
    split: Name = "validation"
    metrics: Numbers


class SampleRecorded(TrainerFact):
    """One qualitative output of the model."""

    kind: Literal["sample_recorded"] = "sample_recorded"
    step: Step
    name: Name
    prompt: Text = ""
    output: Text


class ResourcesSampled(TrainerFact):
    """Utilisation of one rank's devices and host, by the field's names (`gpu_util`, `gpu_memory_bytes`,
    `energy_kwh`); `producers.surroundings.resources` lists them with their units. `host` is the machine's own name, by
    which what others measure of it is found; empty where it is not told.
    """

    schema_version: ClassVar[int] = 2

    kind: Literal["resources_sampled"] = "resources_sampled"
    values: Numbers
    host: Text = ""


class CheckpointSaved(TrainerFact):
    """A checkpoint is complete on disk: renamed into place, manifest and checksum written. One `by_script` is the
    script's own, which only the script can restore.
    """

    schema_version: ClassVar[int] = 2

    kind: Literal["checkpoint_saved"] = "checkpoint_saved"
    step: Step
    checkpoint_id: Name
    path: Annotated[str, Field(min_length=1, max_length=4_096)]
    manifest_sha256: Annotated[str, Field(min_length=64, max_length=64)]
    size_bytes: Count
    took_s: Seconds
    by_script: bool = False


class CheckpointRestored(TrainerFact):
    """A rank now runs from this checkpoint.

    Of a rollback: `steps_lost` were undone, in `seconds_lost` of training and restoring, of which restoring `took_s`.
    A restart does not know how far the process before it had come.
    """

    schema_version: ClassVar[int] = 2

    kind: Literal["checkpoint_restored"] = "checkpoint_restored"
    step: Step
    checkpoint_id: Name
    path: Text
    steps_lost: Count = 0
    seconds_lost: Seconds = 0.0
    took_s: Seconds = 0.0


class CheckpointUnavailable(TrainerFact):
    """There is no going back to this checkpoint: the disk did not take it, it failed its verification and was passed
    over, or rotation removed it.
    """

    kind: Literal["checkpoint_unavailable"] = "checkpoint_unavailable"
    step: Step
    checkpoint_id: Name
    path: Text
    how: Unavailable
    reason: Text = ""


class DataWindowSkipped(TrainerFact):
    """Batches `first_batch` to `last_batch` (of this rank's data, inclusive) were dropped unread."""

    kind: Literal["data_window_skipped"] = "data_window_skipped"
    step: Step
    first_batch: Count
    last_batch: Count
    intervention_id: str = ""


class TelemetryGap(TrainerFact):
    """What this writer could not keep, counted by reason since its last `TelemetryGap`.

    `dropped` was telemetry; `refused` are calls that said nothing (a metric that is no number, a step that is none):
    the script's mistakes, of which nothing is missing. `missing` lists sequence numbers (first, last inclusive) that
    were given to records nobody will ever see. `thinned` counts values that the run's own rule left out (its tag
    `thinning` tells the rule): nothing is lost with them.
    """

    schema_version: ClassVar[int] = 2

    kind: Literal["telemetry_gap"] = "telemetry_gap"
    dropped: Annotated[dict[Name, Count], Field(max_length=100)]
    refused: Annotated[dict[Name, Count], Field(max_length=100)] = {}
    missing: Annotated[tuple[tuple[int, int], ...], Field(max_length=1_000)] = ()
    thinned: Count = 0


class StageChanged(TrainerFact):
    """The job does something else from here on; an evaluation is not a hang."""

    kind: Literal["stage_changed"] = "stage_changed"
    stage: Stage
    step: Step


class Heartbeat(TrainerFact):
    """The process lives (told by the SDK's own thread, whatever the training thread does)."""

    kind: Literal["heartbeat"] = "heartbeat"
    stage: Stage
    step: Step
    queued: Count = 0
    sent: Count = 0
    spooled: Count = 0
    dropped: Count = 0


class RecipeChanged(TrainerFact):
    """The trainer itself changed how it trains: schedule phase, batch size, data mix. Detector windows restart, but for
    `LR_RAMP`: what came back in small steps is no other recipe.
    """

    kind: Literal["recipe_changed"] = "recipe_changed"
    step: Step
    what: Name
    numbers: Numbers = {}
    note: Text = ""


class DataProfiled(TrainerFact):
    """The distribution of one chosen input over the batches since the last profile, up to `step`.

    `counts[0]` values are at most `edges[0]`, `counts[i]` lie above `edges[i - 1]` and at most at `edges[i]`, the last
    are above the last edge: one count more than edges. Of `values_seen` values `values_sampled` were looked at;
    `non_finite` of those are in no bin. `numbers` has `mean`, `std`, `least` and `greatest` of the finite ones.
    """

    schema_version: ClassVar[int] = 2

    kind: Literal["data_profiled"] = "data_profiled"
    step: Step
    feature: Name
    data_schema: Text = ""
    edges: tuple[float, ...] = ()
    counts: tuple[Count, ...] = ()
    batches: Count = 0
    values_seen: Count = 0
    values_sampled: Count = 0
    non_finite: Count = 0
    numbers: Numbers = {}


class LogLine(BaseModel):
    """One line of the job's own log, as its `logging` record said it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: Micros
    step: Step
    level: LogLevel
    logger: Name
    text: Text


class LogLines(TrainerFact):
    """Lines of the job's log since the last `LogLines` of this rank; `dropped` were over its bounds, by reason."""

    kind: Literal["log_lines"] = "log_lines"
    lines: Annotated[tuple[LogLine, ...], Field(max_length=10_000)] = ()
    dropped: Annotated[dict[Name, Count], Field(max_length=100)] = {}


class InterventionReceipt(TrainerFact):
    """What one rank did with one intervention, and the values before and after."""

    kind: Literal["intervention_receipt"] = "intervention_receipt"
    intervention_id: Name
    outcome: ReceiptOutcome
    step: Step
    reason: Text = ""
    before: Numbers = {}
    after: Numbers = {}


class RunEnded(TrainerFact):
    """The run is over, as far as this rank knows. (A run that just falls silent is declared lost by the governor.)"""

    kind: Literal["run_ended"] = "run_ended"
    outcome: Outcome
    step: Step
    error: Text = ""
