"""What a trainer may be asked to do: the closed union of bounded actions.

Each action carries its own absolute bounds; a policy narrows them further, and the trainer checks both again at the
moment of applying. Adding an action: one class here, one arm in `governance.bounds` and one in `producers.actuators`
(`assert_never` names every place that is missing).
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from .envelope import Name, Step


class _Action(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings", allow_inf_nan=False)


class CheckpointRef(_Action):
    """One saved checkpoint: where it is and what its manifest must hash to."""

    checkpoint_id: Name
    step: Step
    path: Annotated[str, Field(min_length=1, max_length=4_096)]
    manifest_sha256: Annotated[str, Field(min_length=64, max_length=64)]


class ScaleLr(_Action):
    """Multiply the learning rate (after the user's scheduler) by `factor`, on top of what is in force."""

    action: Literal["scale_lr"] = "scale_lr"
    factor: Annotated[float, Field(ge=0.01, le=2.0)]


class SetClip(_Action):
    """Set the knob `clip`: the gradient norm at which the trainer clips."""

    action: Literal["set_clip"] = "set_clip"
    value: Annotated[float, Field(gt=0.0, le=1_000.0)]


class SetWeightDecay(_Action):
    """Set `weight_decay` of every parameter group that decays (the knob `weight_decay`)."""

    action: Literal["set_weight_decay"] = "set_weight_decay"
    value: Annotated[float, Field(ge=0.0, le=1.0)]


class SetDropout(_Action):
    """Set the probability of every dropout layer that drops (the knob `dropout`)."""

    action: Literal["set_dropout"] = "set_dropout"
    value: Annotated[float, Field(ge=0.0, le=0.9)]


class CheckpointNow(_Action):
    """Save a checkpoint at the next safe point."""

    action: Literal["checkpoint_now"] = "checkpoint_now"


class SkipBatches(_Action):
    """Drop the next `count` batches of the data, unread."""

    action: Literal["skip_batches"] = "skip_batches"
    count: Annotated[int, Field(ge=1, le=10_000)]


class Rollback(_Action):
    """Restore `checkpoint` on every rank, go on behind the suspect data, with the learning rate cut: one transaction.

    Data position never goes back: what was read since the checkpoint is not read again, and `skip_batches` more are
    dropped. `checkpoint` is absent in a policy and filled in by the decision.
    """

    action: Literal["rollback"] = "rollback"
    checkpoint: CheckpointRef | None = None
    skip_batches: Annotated[int, Field(ge=0, le=10_000)] = 0
    lr_factor: Annotated[float, Field(ge=0.01, le=1.0)] = 1.0


class Pause(_Action):
    """Hold all ranks at a safe point until resumed, at most `max_seconds`."""

    action: Literal["pause"] = "pause"
    max_seconds: Annotated[float, Field(gt=0.0, le=86_400.0)] = 3_600.0


class Resume(_Action):
    """End a pause."""

    action: Literal["resume"] = "resume"


class Stop(_Action):
    """End the run in order: a last checkpoint, flushed telemetry, outcome `stopped`."""

    action: Literal["stop"] = "stop"
    checkpoint: bool = True


class Notify(_Action):
    """Tell people. The trainer is not touched."""

    action: Literal["notify"] = "notify"
    message: Annotated[str, Field(min_length=1, max_length=2_000)]


Action = Annotated[
    ScaleLr
    | SetClip
    | SetWeightDecay
    | SetDropout
    | CheckpointNow
    | SkipBatches
    | Rollback
    | Pause
    | Resume
    | Stop
    | Notify,
    Field(discriminator="action"),
]

ActionKind = Literal[
    "scale_lr",
    "set_clip",
    "set_weight_decay",
    "set_dropout",
    "checkpoint_now",
    "skip_batches",
    "rollback",
    "pause",
    "resume",
    "stop",
    "notify",
]
