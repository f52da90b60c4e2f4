"""What a trainer may be asked to do: the closed union of bounded actions.

Each action carries its own absolute bounds; a policy narrows them further (`events.bounds`), and the trainer checks
both again at the moment of applying. An action says of itself what governance must know: whether it changes the run,
whether training goes on otherwise after it, and which values it leaves. Adding one that turns a knob is one class
here; any other needs an arm in `producers.steering.actuators` besides (`assert_never` names what is missing).
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from .envelope import Name, Step

LR_MULTIPLIER = "lr_multiplier"
LR = "lr"
RankFeature = Literal["apart_rank", "disagreeing_rank", "straggler_rank"]
"""The features that name a rank; below 0 nobody is meant."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings", allow_inf_nan=False)


class _Action(_Part):
    touches: ClassVar[bool] = True
    """Whether it changes the run: such a one excludes every other while it is in flight, and costs budget."""
    alters: ClassVar[bool] = False
    """Whether training goes on otherwise after it: it is meant to help, and what comes after is no other's effect."""
    undoable: ClassVar[bool] = False
    """Whether what it changed can be put back exactly."""
    changes: ClassVar[tuple[str, ...]] = ()
    """The quantities (`events.bounds`) that it changes."""

    def leaves(self, values: Mapping[str, float]) -> dict[str, float]:  # noqa: ARG002  # of most, what was says nothing
        """The values that it would leave, by quantity, as far as `values`, those in force, let it be known."""
        return {}


class CheckpointRef(_Part):
    """One saved checkpoint: where it is and what its manifest must hash to."""

    checkpoint_id: Name
    step: Step
    path: Annotated[str, Field(min_length=1, max_length=4_096)]
    manifest_sha256: Annotated[str, Field(min_length=64, max_length=64)]


class ScaleLr(_Action):
    """Multiply the learning rate (after the user's scheduler) by `factor`, on top of what is in force."""

    alters = undoable = True
    changes = (LR_MULTIPLIER, LR)

    action: Literal["scale_lr"] = "scale_lr"
    factor: Annotated[float, Field(ge=0.01, le=2.0)]

    def leaves(self, values: Mapping[str, float]) -> dict[str, float]:
        return _scaled(values, self.factor)


class SetLr(_Action):
    """Step with the learning rate `value` from now on (the first group's; the others keep their proportion to it). The
    user's scheduler goes on from there: what it does to its own rate, it does to this one.
    """

    alters = undoable = True
    changes = (LR_MULTIPLIER, LR)

    action: Literal["set_lr"] = "set_lr"
    value: Annotated[float, Field(gt=0.0, le=10.0)]

    def leaves(self, values: Mapping[str, float]) -> dict[str, float]:
        now = values.get(LR)
        return (_scaled(values, self.value / now) if now else {}) | {LR: self.value}


class SetKnob(_Action):
    """Set a knob of the trainer: what all actions have in common that do."""

    alters = undoable = True
    knob: ClassVar[str]

    value: float

    def leaves(self, values: Mapping[str, float]) -> dict[str, float]:  # noqa: ARG002  # it does not depend on what was
        return {self.knob: self.value}


class SetClip(SetKnob):
    """Set the knob `clip`: the gradient norm at which the trainer clips."""

    knob = "clip"
    changes = (knob,)

    action: Literal["set_clip"] = "set_clip"
    value: Annotated[float, Field(gt=0.0, le=1_000.0)]


class SetWeightDecay(SetKnob):
    """Set `weight_decay` of every parameter group that decays (the knob `weight_decay`)."""

    knob = "weight_decay"
    changes = (knob,)

    action: Literal["set_weight_decay"] = "set_weight_decay"
    value: Annotated[float, Field(ge=0.0, le=1.0)]


class SetDropout(SetKnob):
    """Set the probability of every dropout layer that drops (the knob `dropout`)."""

    knob = "dropout"
    changes = (knob,)

    action: Literal["set_dropout"] = "set_dropout"
    value: Annotated[float, Field(ge=0.0, le=0.9)]


class SetLossWeight(SetKnob):
    """Set the weight of an auxiliary loss (the knob `loss_weight`, which the script names)."""

    knob = "loss_weight"
    changes = (knob,)

    action: Literal["set_loss_weight"] = "set_loss_weight"
    value: Annotated[float, Field(ge=0.0, le=1_000.0)]


class SetBatchSize(SetKnob):
    """Set the batch size of a rank (the knob `batch_size`, which the script names), a whole number."""

    knob = "batch_size"
    changes = (knob,)

    action: Literal["set_batch_size"] = "set_batch_size"
    value: Annotated[float, Field(ge=1.0, le=10_000_000.0, multiple_of=1.0)]


class CheckpointNow(_Action):
    """Save a checkpoint at the next safe point."""

    touches = False

    action: Literal["checkpoint_now"] = "checkpoint_now"


class SkipBatches(_Action):
    """Drop the next `count` batches of the data, unread."""

    alters = True
    changes = ("skip_batches",)

    action: Literal["skip_batches"] = "skip_batches"
    count: Annotated[int, Field(ge=1, le=10_000)]

    def leaves(self, values: Mapping[str, float]) -> dict[str, float]:  # noqa: ARG002  # it does not depend on what was
        return {"skip_batches": float(self.count)}


class Rollback(_Action):
    """Restore `checkpoint` on every rank, go on behind the suspect data, with the learning rate cut: one transaction.

    Data position never goes back: what was read since the checkpoint is not read again, and `skip_batches` more are
    dropped. `checkpoint` is absent in a policy and filled in by the decision: the last good one from at least
    `back_steps` before the incident, or (`to: best_validation`) before the step behind the lowest validation loss. The
    cut is taken back in equal parts over `lr_ramp_steps` steps; with 0 it stays.
    """

    alters = True
    changes = (LR_MULTIPLIER, LR, "skip_batches")

    action: Literal["rollback"] = "rollback"
    to: Literal["last_good", "best_validation"] = "last_good"
    checkpoint: CheckpointRef | None = None
    skip_batches: Annotated[int, Field(ge=0, le=10_000)] = 0
    lr_factor: Annotated[float, Field(ge=0.01, le=1.0)] = 1.0
    lr_ramp_steps: Annotated[int, Field(ge=0, le=100_000)] = 0
    back_steps: Annotated[int, Field(ge=0, le=100_000)] = 0

    def leaves(self, values: Mapping[str, float]) -> dict[str, float]:
        return _scaled(values, self.lr_factor) | {"skip_batches": float(self.skip_batches)}


class Revert(_Action):
    """Put back what an intervention changed, exactly as it was: `values` are those it found, `left` those it left.

    The governor's own answer to one that did not help (`verify.on_failure: revert`). A trainer where anything was
    changed since puts nothing back.
    """

    model_config = ConfigDict(allow_inf_nan=True)  # a clip of infinity is none at all

    alters = True

    action: Literal["revert"] = "revert"
    intervention_id: Name
    values: Annotated[dict[Name, float], Field(min_length=1, max_length=16)]
    left: Annotated[dict[Name, float], Field(max_length=16)] = {}

    def leaves(self, values: Mapping[str, float]) -> dict[str, float]:  # noqa: ARG002  # it names them
        return dict(self.values)


class EvictRank(_Action):
    """Do without one rank: on all ranks the script's own `evict` (`run.pilot(evict=...)`) is called with its number at
    the same step, to ask whoever places ranks for another machine.

    `rank` is absent in a policy and filled in by the decision: it is who the feature `named_by` names.
    """

    alters = True

    action: Literal["evict_rank"] = "evict_rank"
    named_by: RankFeature = "apart_rank"
    rank: Annotated[int, Field(ge=0, lt=2**31)] | None = None


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

    touches = False

    action: Literal["notify"] = "notify"
    message: Annotated[str, Field(min_length=1, max_length=2_000)]


Action = Annotated[
    ScaleLr
    | SetLr
    | SetClip
    | SetWeightDecay
    | SetDropout
    | SetLossWeight
    | SetBatchSize
    | CheckpointNow
    | SkipBatches
    | Rollback
    | Revert
    | EvictRank
    | Pause
    | Resume
    | Stop
    | Notify,
    Field(discriminator="action"),
]

ActionKind = Literal[
    "scale_lr",
    "set_lr",
    "set_clip",
    "set_weight_decay",
    "set_dropout",
    "set_loss_weight",
    "set_batch_size",
    "checkpoint_now",
    "skip_batches",
    "rollback",
    "revert",
    "evict_rank",
    "pause",
    "resume",
    "stop",
    "notify",
]

ACTION: TypeAdapter[Action] = TypeAdapter(Action, config=ConfigDict(ser_json_inf_nan="strings"))

ACTIONS: tuple[type[_Action], ...] = get_args(get_args(Action)[0])
"""The members of the union."""

QUANTITIES = tuple(dict.fromkeys(name for action in ACTIONS for name in action.changes if name != LR))
"""What actions change, and what stays as they left it: the learning rate itself moves on with the user's scheduler."""


def _scaled(values: Mapping[str, float], factor: float) -> dict[str, float]:
    return {name: values[name] * factor for name in (LR_MULTIPLIER, LR) if name in values}
