"""One training of the benchmark: every arm runs this very loop, over the same batches in the same order.

An arm that is not governed has a pilot that hears nothing. What is measured is measured here: losses, what rollbacks
undid, and for how long the training thread waited in our calls.
"""

import math
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from pilothouse.producers.checkpoints.store import Checkpoints
from pilothouse.producers.steering.course import Signal
from pilothouse.producers.steering.pilot import Pilot
from pilothouse.settings import Settings

from ..detection.peers import kill_loss_spike
from ..detection.series import Series
from .faults import Damage, total_norm
from .governed import Governed, governed
from .guards import Guard, guard_of
from .model import loss_of, model_of, validation_loss
from .recipe import RAMP, Recipe, Row, Task
from .text import Batches, corpus

FOREVER = 10**9
"""The loop ends by its updates; its step goes back with rollbacks."""
KEPT_CHECKPOINTS = 24
PATIENCE = {"plateau": 10, "eager plateau": 0}
"""Of ReduceLROnPlateau, in evaluations: its default, and what was best of 0, 1, 3 and 10 on other seeds; both cut to a
tenth, which is its default and did better than 0.3.
"""


SHORT = 1e-3
"""Seconds: who slept less waited for no core."""


class Waits:
    """For how long the training thread slept inside our calls. One that is ready and waits for a core (of a machine
    that others use) has not been blocked by us, nor has one that sleeps until a thread of its process, which has the
    interpreter's lock, gets a core: Linux counts for each thread how long it waited for one.
    """

    def __init__(self) -> None:
        self.seconds = self.starved = 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        others, wall, busy = _others_ready(), time.perf_counter(), _busy()
        yield
        slept = time.perf_counter() - wall - (_busy() - busy)
        if slept > SHORT:
            now = _others_ready()
            longest = max((ready - others.get(thread, 0.0) for thread, ready in now.items()), default=0.0)
            self.starved += (starved := max(0.0, min(slept, longest)))
            slept -= starved
        self.seconds += max(0.0, slept)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """All of it is waiting: the step stands still meanwhile."""
        wall = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - wall


def _busy() -> float:
    """Seconds that this thread has run, or was ready to run."""
    try:
        ran, ready, _ = Path("/proc/thread-self/schedstat").read_text().split()
    except OSError:  # no Linux, or one that does not count: what waits for a core is taken to be blocked
        return time.thread_time()
    return (int(ran) + int(ready)) / 1e9


def _others_ready() -> dict[str, float]:
    """By each other thread of this process, how many seconds it was ready to run and had no core."""
    mine, ready = str(threading.get_native_id()), dict[str, float]()
    for task in Path("/proc/self/task").glob("*/schedstat"):
        try:
            ready[task.parent.name] = int(task.read_text().split()[1]) / 1e9
        except (OSError, IndexError, ValueError):  # it has ended meanwhile
            continue
    ready.pop(mine, None)
    return ready


class Training:
    """One task, from its first update to its row."""

    def __init__(self, task: Task, settings: Settings | None) -> None:
        self.task, self.row = task, Row(task.experiment, task.setting, task.arm.name, task.seed, key=task.key)
        self.waits = Waits()
        self._settings = settings
        recipe = task.recipe
        self._losses: list[float] = []
        self.row.fault_at = recipe.fault_at
        torch.set_num_threads(1)
        torch.manual_seed(task.seed)
        self._model = model_of(recipe)
        self._corpus = corpus(task.seed, recipe.training_chars, recipe.validation_windows, recipe.length)
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay
        )
        self._guard: Guard = guard_of(task.arm.peer, recipe.clip)
        self._schedule = LambdaLR(self._optimizer, lambda step: _rate(step, recipe))
        self._plateau: ReduceLROnPlateau | None = None
        if (patience := PATIENCE.get(recipe.schedule)) is not None:
            self._plateau = ReduceLROnPlateau(self._optimizer, patience=patience)

    def run(self) -> Row:
        began = time.process_time()
        folder = Path(tempfile.mkdtemp(prefix="pilothouse-control-"))
        try:
            with governed(self.task, self._settings) as us:
                self._train(us, folder)
            self._conclude(us)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self.row.seconds = round(time.process_time() - began, 1)
        return self.row

    def _train(self, us: Governed, folder: Path) -> None:
        recipe, row = self.task.recipe, self.row
        damage = Damage(recipe.fault, recipe.fault_at, folder)
        loader = Batches(self._corpus.training, recipe.batch_size * recipe.ranks, self.task.seed)
        with us.pilot(
            self._model, self._optimizer, self._schedule, self._checkpoints(us, folder), damage.evict
        ) as pilot:
            for step, drawn in pilot.batches(loader, FOREVER):
                position = pilot.data_position - 1
                told, admitted = self._update(damage, position, damage.batch(position, drawn))
                row.wasted_steps += not admitted
                self._after(us, pilot, step, told)
                if row.steps >= recipe.steps:
                    break
            us.over(step)

    def _checkpoints(self, us: Governed, folder: Path) -> Checkpoints | None:
        return Checkpoints(folder, keep=KEPT_CHECKPOINTS) if us.steers else None

    def _update(self, damage: Damage, position: int, batch: Tensor) -> tuple[list[dict[str, float]], bool]:
        """One update of the weights by the mean gradient of all ranks; what each rank logs, and whether it was made."""
        recipe, parameters = self.task.recipe, list(self._model.parameters())
        damage.before_update(self.row.steps, self._optimizer, self._schedule)
        losses, locals_, mean = list[float](), list[float](), list[Tensor]()
        for rank, share in enumerate(batch.chunk(recipe.ranks)):
            loss = damage.loss(position, loss_of(self._model, share))
            gradients = torch.autograd.grad(loss, parameters)
            damage.gradients(rank, self.row.steps, gradients)
            losses.append(loss.item())
            locals_.append(total_norm(gradients) if recipe.ranks > 1 else 0.0)
            if mean:
                torch._foreach_add_(mean, list(gradients))
            else:
                mean = list(gradients)
        if recipe.ranks > 1:
            torch._foreach_div_(mean, float(recipe.ranks))
        norm = total_norm(mean)
        self._losses.append(sum(losses) / recipe.ranks)
        admitted = self._guard.admit(self._losses[-1], norm, mean)
        if admitted:
            for parameter, gradient in zip(parameters, mean, strict=True):
                parameter.grad = gradient
            self._optimizer.step()
        if self._plateau is None or self.row.steps < recipe.warmup:
            self._schedule.step()
        self.row.steps += 1
        if self._guard.alarmed:
            self._note_alarm(self.row.steps - 1)
        rate = float(self._optimizer.param_groups[0]["lr"])
        each = zip(losses, locals_, strict=True)
        told = [{"loss": loss, "grad_norm": norm, "lr": rate, "local_grad_norm": own} for loss, own in each]
        return ([{"loss": losses[0], "grad_norm": norm, "lr": rate}] if recipe.ranks == 1 else told), admitted

    def _after(self, us: Governed, pilot: Pilot, step: int, told: Sequence[dict[str, float]]) -> None:
        with us.timed(self.waits):
            us.log(step, told)
        if step % self.task.recipe.evaluate_every == 0 or self.row.steps == self.task.recipe.steps:
            self._evaluate(us, step)
        if us.steers and step % self.task.recipe.evaluate_every == 0:
            pilot.checkpoint(step)
        us.at(self.row.steps, step)
        before = self.waits.seconds
        with us.timed(self.waits):
            signal: Signal = pilot.safe_point(step)
        if signal.rolled_back_to is not None:
            self.waits.seconds = before  # it read a checkpoint, as who goes back by hand does
            self.row.wasted_steps += step - signal.rolled_back_to

    def _evaluate(self, us: Governed, step: int) -> None:
        loss = validation_loss(self._model, self._corpus.validation)
        self.row.curve.append((self.row.steps, loss if math.isfinite(loss) else None))
        with us.timed(self.waits):
            us.evaluated(step, loss)
        if self._plateau is not None and self.row.steps > self.task.recipe.warmup:
            self._plateau.step(loss)

    def _note_alarm(self, update: int) -> None:
        if self.row.detect_steps is None and self.task.recipe.fault and update >= self.task.recipe.fault_at:
            self.row.detect_steps = update - self.task.recipe.fault_at

    def _conclude(self, us: Governed) -> None:
        row = self.row
        finite = [loss for _, loss in row.curve if loss is not None]
        row.final_val_loss, row.best_val_loss = row.curve[-1][1], min(finite, default=None)
        row.blocked_s, row.starved_s = round(self.waits.seconds, 4), round(self.waits.starved, 4)
        steps = list(range(row.steps))
        series = Series("losses", "", "", steps, [0.0] * row.steps, [{"loss": self._losses}])
        stops = (update for update in kill_loss_spike(series) if update >= row.fault_at)
        row.stopped_at = next(stops, None)
        us.conclude(row, self.task)


def _rate(step: int, recipe: Recipe) -> float:
    """The learning rate's factor: up in a line, then constant, raised as the recipe says, or down in half a cosine."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    if recipe.schedule != "cosine":
        raised = min(1.0, max(0, step - recipe.stress_from) / RAMP)
        return float(recipe.stress**raised)
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
