"""What was done to a run, as a file: the interventions that its ranks applied, at their steps, and the loss that came
of it.

Written by `pilothouse plan RUN` from the archive; read by `start_run(follow=...)`, which needs no archive for it.
`steering.following` walks through it, `steering.departure` compares with it.

Steps come again after a rollback, so a run is told in *stretches*: the steps between two rollbacks. What a crash and
the restart behind it did twice stands here once, as it was in the end.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...events.actions import Action, Rollback
from ...events.codec import first_fault
from ...events.envelope import Name, Step
from ...events.errors import UserMistake
from ...settings import Settings

FOLDER = "plans"
COMPARED = ("loss", "grad_norm")
"""What the telemetry of two runs is compared by."""

Column = tuple[float | None, ...]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings", allow_inf_nan=True)


class Planned(_Part):
    """One intervention: done at the safe point after `step` of this stretch, on all ranks."""

    stretch: Annotated[int, Field(ge=0)]
    step: Step
    intervention_id: Name
    rule: Name
    action: Action


class Stretch(_Part):
    """Rank 0's telemetry between two rollbacks, `loss[i]` and `grad_norm[i]` of `steps[i]`; None: not logged."""

    steps: tuple[Step, ...] = ()
    loss: Column = ()
    grad_norm: Column = ()

    @model_validator(mode="after")
    def _columns_agree(self) -> Self:
        if not len(self.steps) == len(self.loss) == len(self.grad_norm):
            raise ValueError("steps, loss and grad_norm must be of one length")
        return self


class Plan(_Part):
    """All of one run. `interventions` stand in the order in which they were done."""

    plan: Literal[1] = 1
    run_id: Name
    world_size: Annotated[int, Field(ge=1)] = 1
    complete: bool = True
    """Whether the run had ended when this was written."""
    interventions: tuple[Planned, ...] = ()
    stretches: tuple[Stretch, ...] = ()

    @model_validator(mode="after")
    def _can_be_followed(self) -> Self:
        stretch, step = 0, -1
        for done in self.interventions:
            if (done.stretch, done.step) < (stretch, step):
                raise ValueError(f"intervention {done.intervention_id} stands behind a later one")
            if done.stretch > stretch:
                step = -1
            stretch, step = done.stretch, done.step
            if isinstance(done.action, Rollback) and done.action.checkpoint is None:
                raise ValueError(f"rollback {done.intervention_id} does not say to which checkpoint")
        return self


def plan_file(run_id: str, settings: Settings) -> Path:
    """Where `pilothouse plan RUN` leaves the plan of a run, unless it is told otherwise."""
    return settings.data_dir / FOLDER / f"{hashlib.sha256(run_id.encode()).hexdigest()[:16]}.json"


def read_plan(follow: object, settings: Settings) -> Plan:
    """The plan that `start_run(follow=...)` names: a file, or a run whose plan was written on this machine.

    Raises:
        UserMistake: there is none, or it is none; and how to make one.
    """
    if isinstance(follow, Plan):
        return follow
    if not isinstance(follow, str | Path) or not str(follow):
        raise UserMistake(f"start_run: follow must be a run's id or the file of its plan; got {follow!r:.100}")
    named = Path(follow).expanduser()
    file = named if named.is_file() else plan_file(str(follow), settings)
    try:
        return Plan.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise UserMistake(
            f"start_run: follow={str(follow)!r} is no file, and no plan of such a run was written here: "
            f"`pilothouse plan {follow}` writes one, or `pilothouse plan {follow} --out FILE`, where the archive is"
        ) from None
    except OSError as error:
        raise UserMistake(f"start_run: the plan {file} cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        raise UserMistake(f"start_run: {file} is no plan of a run: {first_fault(error)}") from error
