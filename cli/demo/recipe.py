"""What one run of the demo depends on: made by `story`, handed by `launch` to each rank, read by `train`."""

import json
from dataclasses import asdict, dataclass
from typing import Self

from .plan import HEADS, LAYERS, WIDTH


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that a run of the demo depends on. Batch sizes are per rank; a step takes at least `step_seconds`;
    `width`, `layers` and `heads` are the model's."""

    run_id: str
    checkpoints: str
    steps: int
    seed: int
    faults: str = ""
    batch_size: int = 8
    learning_rate: float = 6e-3
    warmup_steps: int = 10
    clip: float = 1.0
    checkpoint_every: int = 20
    evaluate_every: int = 50
    validation_windows: int = 32
    step_seconds: float = 0.0
    width: int = WIDTH
    layers: int = LAYERS
    heads: int = HEADS

    def text(self) -> str:
        """As an argument of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Self:
        """The recipe of such a text."""
        return cls(**json.loads(text))
