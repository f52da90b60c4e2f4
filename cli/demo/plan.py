"""What the demo trains, and what is broken in it: the three runs of one seed, and their faults. Pure.

`story` carries it out. All else about the demo is what then happens: no step of an intervention is foreseen here.
"""

from dataclasses import dataclass
from typing import Literal

from ...events.decisions import Mode
from ...producers.faults import Fault, Plan

Name = Literal["fault-free", "ungoverned", "governed", "quiet"]
Scope = Literal["all", "governed", "quiet"]
"""Which of the runs: all three, the governed one alone, or a governed one in which nothing is broken."""

STEPS, RANKS, WIDTH, LAYERS = 200, 4, 96, 2
"""The demo's own size, where nobody asks for another."""
HEADS = 4

GLOBAL_BATCH = 32
"""Windows of text a step, shared among the ranks."""
VALIDATION_WINDOWS = 128
CORRUPTED_BATCHES = 40
LR_FACTOR = 1e6
"""What the learning rate is multiplied with: the weights overflow within a few steps."""
STEP_SECONDS = 0.1
"""What a step takes at least. On a fast machine so small a model would train faster than any command can travel."""
FEWEST_STEPS = 150
"""With fewer, the faults would lie too close to each other, and the first where the loss still falls steeply."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One run of the demo: under which mode of the policy, and with which faults."""

    name: Name
    mode: Mode
    faults: Plan = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """How large the demo and its model are. `tag` tells its runs from those of another demo in the same archive."""

    tag: str
    steps: int
    ranks: int
    seed: int
    step_seconds: float = STEP_SECONDS
    width: int = WIDTH
    layers: int = LAYERS

    @property
    def checkpoint_every(self) -> int:
        return max(10, self.steps // 10)

    @property
    def evaluate_every(self) -> int:
        return self.steps // 4

    @property
    def batch_size(self) -> int:
        """Per rank."""
        return max(1, GLOBAL_BATCH // self.ranks)

    @property
    def validation_windows(self) -> int:
        """Per rank."""
        return max(1, VALIDATION_WINDOWS // self.ranks)

    def run_id(self, leg: Leg) -> str:
        return f"demo-{self.tag}-{leg.name}"


def faults_of(setting: Setting) -> Plan:
    """A window of corrupted data, by its position, and then a learning rate out of all bounds, by step and once.

    The second lies between two checkpoints: were one saved in the few steps before the loss shows it, the governor
    could not know that it is poisoned already.
    """
    first = round(0.45 * setting.steps)
    window = {"first": float(first), "last": float(first + CORRUPTED_BATCHES - 1)}
    every = setting.checkpoint_every
    bad_rate_at = int(0.75 * setting.steps / every) * every + every // 2
    return (
        Fault("corrupt_data", "batch", first, times=0, numbers=window),
        Fault("scale_lr", "optimizer", bad_rate_at, numbers={"factor": LR_FACTOR}),
    )


def legs_of(setting: Setting, scope: Scope = "all") -> tuple[Leg, ...]:
    """The runs, in their order. One without faults is governed for real, and must be left alone."""
    if scope == "quiet":
        return (Leg("quiet", "enforce"),)
    faults = faults_of(setting)
    governed = Leg("governed", "enforce", faults)
    return (
        (governed,)
        if scope == "governed"
        else (Leg("fault-free", "enforce"), Leg("ungoverned", "observe", faults), governed)
    )
