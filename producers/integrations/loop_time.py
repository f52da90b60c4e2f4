"""What a watched loop spends its time on: `data_wait_s`, `compute_s` and `comm_s` of each step, and whether it is
evaluating, so that an evaluation is not taken for a hang.

One for each `watching.Watch`; `metrics.timings` says what the numbers are. Which module is the model, and which
`DistributedDataParallel` stands around it where nobody has said so, is known by the parameters of the first optimizer:
it holds them all.
"""

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

from ..metrics.timings import COMM, DdpCommunication, StepTimings
from . import loop_taps

QUIET_SECONDS = 1.0
"""A model that is evaluated again so soon is part of a step (a policy that acts, a teacher), which is no stage."""


class LoopTime:
    """Touched by the training thread; what other threads load or set is not heard. `told` hears when an evaluation
    begins and ends, `failed` when a fault of ours has ended the hearing.
    """

    def __init__(
        self,
        told: Callable[[bool], None],
        failed: Callable[[Exception], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.timings = StepTimings(clock)
        self.evaluating = False
        self.failed = failed
        self._told = told
        self._clock = clock
        self._back = float("-inf")
        self._thread = threading.get_ident()
        self._parameters: frozenset[int] = frozenset()
        self._is_model: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
        self._comm: Callable[[], float | None] | None = None

    def listen(self) -> None:
        loop_taps.listen(self)

    def leave(self) -> None:
        loop_taps.leave(self)
        self.evaluate(False)

    def communicates(self, model: Any) -> None:
        """Ask this one for its communication, if it is one that measures it."""
        if callable(getattr(model, "_get_ddp_logging_data", None)):
            self._comm = DdpCommunication(model)

    def put(self, optimizer: Any, step: int, row: dict[str, Any]) -> None:
        """Add the times to the row of this step of the first optimizer, as far as they are known."""
        if not self._parameters:
            self._meet(optimizer)
        self.evaluate(False)
        self.timings.put(step, row)
        if self._comm is not None and (comm := self._comm()) is not None:
            row[COMM] = comm

    def evaluate(self, begun: bool) -> None:
        """The loop evaluates from here on, or trains again."""
        if begun == self.evaluating:
            return
        self.evaluating = begun
        if not begun:
            self._back = self._clock()
        self.timings.stage("evaluate" if begun else "train")
        self._told(begun)

    @contextmanager
    def away(self) -> Iterator[None]:
        """What is done in here is no step's: a checkpoint, a pause."""
        self.timings.stage("checkpoint")
        yield
        self.timings.stage("train")

    # --------------------------------------------------------------------------------------------- what loop_taps says

    def waited(self, since: float, until: float) -> None:
        if not self.evaluating and threading.get_ident() == self._thread:
            self.timings.waited(since, until)

    def mode_set(self, module: Any, training: bool) -> None:
        if not self._parameters or threading.get_ident() != self._thread or not self._holds_all(module):
            return
        if training or self._clock() - self._back > QUIET_SECONDS:
            self.evaluate(not training)

    def _meet(self, optimizer: Any) -> None:
        self._thread = threading.get_ident()
        self._parameters = frozenset(id(each) for group in optimizer.param_groups for each in group["params"])
        if self._comm is None and _has_peers():
            threading.Thread(target=self._look_around, name="pilothouse-looks", daemon=True).start()

    def _look_around(self) -> None:
        with suppress(Exception):  # it goes through everybody's objects, while they change
            around = next((each for each in _all_ddp() if self._holds_all(each)), None)
            self.communicates(around)

    def _holds_all(self, module: Any) -> bool:
        if type(module).__hash__ is None:  # it defines an equality of its own
            return False
        known = self._is_model.get(module)
        if known is None:
            held = frozenset(id(each) for each in module.parameters())
            known = self._is_model[module] = self._parameters <= held
        return known


def _has_peers() -> bool:
    dist = sys.modules.get("torch.distributed")
    return dist is not None and dist.is_available() and dist.is_initialized() and bool(dist.get_world_size() > 1)


def _all_ddp() -> list[Any]:
    """Nobody lists them: a look at all objects, by their types, of which there are few: to ask each object takes five
    times as long.
    """
    from torch.nn.parallel import DistributedDataParallel

    objects = gc.get_objects()
    kinds = {kind for kind in set(map(type, objects)) if DistributedDataParallel in kind.__mro__}
    return [each for each in objects if type(each) in kinds] if kinds else []
