"""A run for tests of the integrations, and what they train: keeps the rows logged, steers by scripted commands."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, dataloader

from pilothouse.events.telemetry import AttemptReason
from pilothouse.producers.ranks.context import Identity
from pilothouse.producers.steering.pilot import Pilot
from pilothouse.settings import Settings
from pilothouse.tests.pilot_world import Order, Script, Tape, links_of


class WatchedTape(Tape):
    """A `Tape` with the two calls that a watch makes of a run. `rows` are (step, numbers) as they were read at once."""

    def __init__(self, orders: list[Order] | None = None) -> None:
        super().__init__()
        self.script = Script(self, orders or [])
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.evaluations: list[tuple[int, dict[str, float]]] = []
        self.pilots: list[Pilot] = []

    @property
    def last_step(self) -> int:
        return self.rows[-1][0]

    def begin_attempt(
        self, reason: AttemptReason, first_step: int, parent: str | None = None, attempt_id: str | None = None
    ) -> Identity:
        return super().begin_attempt(reason, first_step, parent, attempt_id or f"attempt-{self.identity.attempt + 1}")

    def log(self, step: int, /, **metrics: Any) -> None:
        self.script.step = step
        self.rows.append((step, {name: float(value) for name, value in metrics.items()}))

    def evaluated(self, step: int, /, **metrics: Any) -> None:
        self.evaluations.append((step, {name: float(value) for name, value in metrics.items()}))

    def pilot(self, model: Any, optimizer: Any, **steered: Any) -> Pilot:
        links = links_of(self.script)
        self.pilots.append(Pilot(self, model, optimizer, settings=Settings(), links=links, **steered))
        return self.pilots[-1]

    def column(self, name: str) -> list[float]:
        return [row[name] for _, row in self.rows if name in row]

    @property
    def steps(self) -> list[int]:
        return [step for step, _ in self.rows]

    def outcomes(self, count: int) -> list[str]:
        """What became of the first commands."""
        return [self.receipt(f"i-{number}")["outcome"] for number in range(1, count + 1)]


def small_model(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(dropout), nn.Linear(4, 1))


def loss_of(model: Any, batch: Tensor) -> Any:
    return (model(batch) - 1.0).square().mean()


def data(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(8, 3, generator=generator) for _ in range(count)]


def norm_of(model: nn.Module) -> float:
    return float(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm())


def functions() -> list[Any]:
    clip = torch.nn.utils.clip_grad
    return [
        torch.autograd.backward,
        clip._get_total_norm,
        clip._clip_grads_with_norm_,
        torch.amp.GradScaler.scale,
        torch.optim.Optimizer.zero_grad,
        nn.Module.zero_grad,
        nn.Module.train,
        DataLoader.__iter__,
        dataloader._BaseDataLoaderIter.__next__,
    ]
