"""A training loop that is not ours, watched and steered through its optimizers' steps.

Every integration makes one `Watch`. It counts steps (those of the first optimizer that steps), logs a row for each, and
stands at a safe point right after: inside `optimizer.step()`, before the script's scheduler moves on. What only the
loop can do (leave it, drop batches) it does by iterating over `batches`, or by asking `stopping`.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypedDict

from ...events.actions import ActionKind
from ...events.errors import RestartRequired
from ...events.telemetry import Stage
from ..checkpoints.sharding import is_flat
from ..checkpoints.store import Checkpoints
from ..metrics.timings import TimedLoader
from ..steering.knobs import CLIP, Knob
from ..voice import logger
from .loop_time import LoopTime
from .observing import Changed, StepObserver

if TYPE_CHECKING:
    from ..steering.pilot import Pilot

ANYWHERE: tuple[ActionKind, ...] = (
    "scale_lr",
    "set_lr",
    "set_clip",
    "set_weight_decay",
    "set_dropout",
    "checkpoint_now",
    "rollback",
    "pause",
    "resume",
    "notify",
)
"""What can be carried out inside an optimizer's step, whatever the loop is like."""

BY_THE_LOOP: tuple[ActionKind, ...] = ("skip_batches", "stop")
TAKES_OVER = 64
"""So many steps without one of the first optimizer: the steps of another are counted from here."""


def unseen(losses: int) -> str:
    """Why there are losses and no steps, for a person."""
    return (
        f"backward was called {losses} times, but no optimizer of torch.optim was seen to step "
        "(a step that torch.compile has compiled is not seen)"
    )


class Watched(Protocol):
    """What a watch needs of a run. `producers.run.Run` is one."""

    def log(self, step: int, /, **metrics: Any) -> None: ...

    def stage(self, stage: Stage, step: int | None = None) -> None: ...

    def pilot(self, model: Any, optimizer: Any, **steered: Any) -> "Pilot": ...


class Steered(TypedDict, total=False):
    """What may be given to be steered, besides model and optimizers; see `steering.pilot.Pilot`."""

    scheduler: Any
    scaler: Any
    knobs: Mapping[str, Knob | Callable[[float], object] | float]
    checkpoints: str | os.PathLike[str] | Checkpoints | None


class Watch:
    """Watches the optimizers it is shown, and steers where it has a pilot. Use it as a context manager, or call
    `close`.
    """

    def __init__(self, run: Watched, norms: bool = True) -> None:
        self._run = run
        self._pilot: Pilot | None = None
        self._by_the_loop: tuple[ActionKind, ...] = ()
        self._order: list[int] = []
        self._since_first = 0
        self._hooks: list[Any] = []
        self._stopping = False
        self._broken = False
        self.step = 0
        self.observer = StepObserver(self._stepped, self._break, norms)
        self.observer.listen()
        self.time = LoopTime(self._evaluation, self._break)
        self.time.listen()

    def steer(self, model: Any, optimizers: Sequence[Any], only: Sequence[ActionKind] | None, **given: Any) -> "Pilot":
        """Let these be steered, in these ways alone; None: in every way that turns out to be possible.

        The clip needs no knob: it is set where the script clips, or before the step. Not by the norms of flat parts,
        of which every rank has another.
        """
        if only is None:
            only, self._by_the_loop = ANYWHERE, BY_THE_LOOP
        if not any(is_flat(each) for one in optimizers for group in one.param_groups for each in group["params"]):
            given["knobs"] = {CLIP: self.observer.clip_knob()} | dict(given.get("knobs") or {})
        self._pilot = self._run.pilot(model, list(optimizers), only=only, **given)
        return self._pilot

    def hang_on(self, optimizers: Iterable[Any]) -> None:
        """Watch the steps of these, by hooks that come after those of the pilot."""
        for optimizer in optimizers:
            self._hooks += [
                optimizer.register_step_pre_hook(self.before_step),
                optimizer.register_step_post_hook(self.after_step),
            ]

    # ------------------------------------------------------------------------------------------------------- the loop

    def batches(self, loader: Iterable[Any]) -> Iterator[Any]:
        """One epoch of `loader`: honours skipped batches and a stop. Without a pilot, the loader's batches."""
        if self._pilot is None:
            from torch.utils.data import DataLoader

            return iter(loader if isinstance(loader, DataLoader) else TimedLoader(loader, self.time.timings))
        self.obeys(*BY_THE_LOOP)
        return self._pilot.data(loader)

    def evaluating(self, begun: bool) -> None:
        """The loop evaluates from here on, or trains again: where an adapter is told so. Else the model's own
        `eval()` and `train()` say it.
        """
        self.time.evaluate(begun)

    def obeys(self, *kinds: ActionKind) -> None:
        """The loop can do these: said by an adapter that has seen to it."""
        if self._pilot is not None:
            self._pilot.offer(*(kind for kind in kinds if kind in self._by_the_loop))

    @property
    def stopping(self) -> bool:
        """Whether the loop must be left: it was ordered to stop."""
        return self._stopping

    @property
    def pilot(self) -> "Pilot | None":
        """What steers, where something does: for `checkpoint`, `restore_latest` and knobs."""
        return self._pilot

    def restore_latest(self) -> int | None:
        """Before the loop, on every rank: go on from the newest checkpoint that all can read; its step, or None."""
        restored = self._pilot.restore_latest() if self._pilot is not None else None
        if restored is not None:
            self.step = restored + 1
        return restored

    def close(self) -> None:
        """Take everything off again. The run goes on."""
        if self.observer.losses and not self._order and not self._broken and self._hooks:
            logger.warning("pilothouse: nothing was logged: %s", unseen(self.observer.losses))
        self.observer.leave()
        self.time.leave()
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------ the hooks

    def before_step(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Changed | None:
        import torch

        if self._broken or torch.compiler.is_compiling():
            return None
        try:
            return self.observer.begin(optimizer, args, kwargs)
        except Exception as error:  # noqa: BLE001  # whatever we stumble over, the script's step must be made
            self._break(error)
        return None

    def after_step(self, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        import torch

        if self._broken or torch.compiler.is_compiling():
            return
        try:
            self.observer.end(optimizer)
        except RestartRequired:
            raise
        except Exception as error:  # noqa: BLE001  # as above
            self._break(error)

    def _break(self, error: Exception) -> None:
        self._broken = True
        logger.error("pilothouse: watching is over after a fault of its own; training goes on", exc_info=error)
        self.observer.leave()
        self.time.leave()

    def _evaluation(self, begun: bool) -> None:
        self._run.stage("evaluate" if begun else "train", max(0, self.step - 1))

    def _stepped(self, optimizer: Any, row: dict[str, Any]) -> None:
        place = self._place_of(optimizer)
        if place:
            row.pop("step_time_s", None)
            self._run.log(max(0, self.step - 1), **{f"{name}_{place}": value for name, value in row.items()})
            return
        if self.observer.skipped:
            row["skipped_steps"] = self.observer.skipped
        if self._pilot is not None and "lr" in row:
            row["lr"] = row["lr"] * self._pilot.lr_multiplier
        self.time.put(optimizer, self.step, row)
        if row:
            self._run.log(self.step, **row)
        self._stand_at_safe_point()

    def _stand_at_safe_point(self) -> None:
        if self._pilot is None:
            self.step += 1
            return
        with self.time.away():
            signal = self._pilot.safe_point(self.step)
        self.step = self.step + 1 if signal.rolled_back_to is None else signal.rolled_back_to + 1
        self._stopping = self._stopping or signal.stop

    def _place_of(self, optimizer: Any) -> int:
        """0 for the optimizer whose steps are counted; the others by the order in which they came."""
        known = id(optimizer)
        if known not in self._order:
            self._order.append(known)
        if known == self._order[0]:
            self._since_first = 0
            return 0
        self._since_first += 1
        if self._since_first > TAKES_OVER:  # the first one is not used any more
            self._order.remove(known)
            self._order.insert(0, known)
            self._since_first = 0
        return self._order.index(known)
