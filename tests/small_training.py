"""A small real training of one process under a script of commands, for tests of what the pilot does to it."""

from pathlib import Path
from typing import Any

import torch

from pilothouse.events.actions import Rollback
from pilothouse.producers.checkpoints.store import Checkpoints
from pilothouse.producers.steering.pilot import Pilot
from pilothouse.settings import Settings
from pilothouse.tests.pilot_world import Order, Script, Tape, links_of


class World:
    """A small training of one process under a script of commands."""

    def __init__(
        self, orders: list[Order], folder: Path | Checkpoints | None = None, every: int | None = None, **parts: Any
    ) -> None:
        checkpoints = Checkpoints(folder, every) if isinstance(folder, Path) else folder
        self.tape = Tape()
        self.script = Script(self.tape, orders)
        self.model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 10)
        self.pilot = Pilot(
            self.tape,
            self.model,
            self.optimizer,
            settings=Settings(),
            scheduler=self.scheduler,
            checkpoints=checkpoints,
            links=links_of(self.script),
            **parts,
        )
        self.seen: list[tuple[int, int]] = []

    def train(self, steps: int, loader: Any = range(1_000)) -> "World":
        for step, batch in self.pilot.batches(loader, steps):
            self.seen.append((step, batch))
            self.step(step)
        return self

    def step(self, step: int) -> Any:
        self.script.step = step
        self.optimizer.zero_grad()
        self.model(torch.ones(1, 2)).sum().backward()
        self.optimizer.step()
        self.scheduler.step()
        return self.pilot.safe_point(step)

    def weights(self) -> list[float]:
        return [float(value) for parameter in self.model.parameters() for value in parameter.detach().flatten()]

    @property
    def steps(self) -> list[int]:
        return [step for step, _ in self.seen]


def good_rollback(tape: Tape) -> Rollback:
    return Rollback(checkpoint=tape.saved()[-1], skip_batches=2, lr_factor=0.5)
