"""What one training of the benchmark depends on, and what it is known by. Plain data: it goes to another process."""

import json
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from typing import Any, Literal

Schedule = Literal["constant", "cosine", "plateau", "eager plateau"]
Peer = Literal["", "clip", "zclip", "skip"]
Where = Literal["", "process", "kafka"]
RAMP = 20


@dataclass(frozen=True, slots=True)
class Recipe:
    """The model, its data and how it is trained. A step is an update of `ranks` times `batch_size` windows; `steps` are
    all that there are, those that a rollback undoes included. `clip` 0: gradients are not clipped. The learning rate
    is raised `stress` times in a ramp of `RAMP` steps from step `stress_from` on. `fault` names one of
    `faults.FAULTS`, which strikes at `fault_at`.
    """

    steps: int
    width: int
    layers: int
    heads: int
    training_chars: int
    learning_rate: float
    length: int = 64
    batch_size: int = 4
    ranks: int = 1
    schedule: Schedule = "constant"
    warmup: int = 20
    stress_from: int = 0
    stress: float = 1.0
    weight_decay: float = 0.01
    dropout: float = 0.0
    clip: float = 1.0
    evaluate_every: int = 10
    validation_windows: int = 24
    fault: str = ""
    fault_at: int = 0


@dataclass(frozen=True, slots=True)
class Arm:
    """What stands beside the training: a peer's rule, or us (`governed` says where), with which faults of ours."""

    name: str
    peer: Peer = ""
    governed: Where = ""
    policy: str = ""
    late_steps: int = 0
    lost_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Task:
    """One training: one row of the table."""

    experiment: str
    setting: str
    seed: int
    recipe: Recipe
    arm: Arm

    @property
    def key(self) -> str:
        """By which a finished one is found again: everything that it depends on."""
        body = json.dumps(asdict(self), sort_keys=True)
        return sha256(body.encode()).hexdigest()[:16]


@dataclass(slots=True)
class Row:
    """What came of it. Losses in nats; None: not finite. `blocked_s` is for how long the training thread waited in our
    calls, and `starved_s` for how long besides because a thread that it waited for had no core. `curve` holds (updates
    done, validation loss). `replayed`: whether the log leads to the same decisions again, and `not_replayed` why not.
    `stopped_at` is where KillLossSpike would have stopped it.
    """

    experiment: str
    setting: str
    arm: str
    seed: int
    final_val_loss: float | None = None
    best_val_loss: float | None = None
    blocked_s: float = 0.0
    starved_s: float = 0.0
    interventions: int = 0
    recovered: bool | None = None
    wasted_steps: int = 0
    key: str = ""
    steps: int = 0
    late_steps: float | None = None
    detect_steps: int | None = None
    recover_steps: int | None = None
    lost_commands: int = 0
    replayed: bool | None = None
    not_replayed: str = ""
    alive: bool = True
    fault_at: int = 0
    stopped_at: int | None = None
    seconds: float = 0.0
    curve: list[tuple[int, float | None]] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, said: dict[str, Any]) -> "Row":
        return cls(**{known.name: said[known.name] for known in fields(cls) if known.name in said})
