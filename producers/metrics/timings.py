"""What a step is made of in time: waiting for data, computing, talking to other ranks. Logged as metrics of the step.

Made by `Run.timed`, which `Pilot.batches` uses as well: a loader's iterator is timed, and `Run.log` takes what was
measured since the row before. So the rows of a rank add up: `data_wait_s + compute_s` of all rows is the time between
the first batch and the last row, less what the script spent in other stages (evaluation, checkpoints, pauses).

It is the host's clock. On an accelerator work is only queued, and the time that the device needs shows where the host
waits for it. `comm_s` is what PyTorch's DDP measures of its own accord at a few steps (its first ten, then every
hundredth): how long the gradients' all-reduce took, most of it behind the backward pass, hence beside the other two
and not a part of them. Nothing is hooked in for it: a communication hook would replace DDP's own by one in Python.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

DATA_WAIT, COMPUTE, COMM = "data_wait_s", "compute_s", "comm_s"
AWAY = frozenset(("evaluate", "checkpoint", "paused"))
NANOSECONDS = 1e-9
_SINCE = "since"


class StepTimings:
    """The time since the last row of this rank; costs a row some 2 µs.

    It is the training thread's, but a stage may be told by any thread, and by a signal handler in the midst of another
    call. No lock, for a handler would wait for it for ever: when a stage was left is taken by one of them, whole, and
    how long it took is handed over in a queue.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._began: float | None = None
        self._waited = 0.0
        self._away: deque[float] = deque()
        self._left: dict[str, float] = {}
        self._step: object = None
        self._comm: Callable[[], float | None] | None = None

    def watch(self, model: Any) -> None:
        """Ask this model for its communication, if it is one that measures it."""
        if callable(getattr(model, "_get_ddp_logging_data", None)):
            self._comm = DdpCommunication(model)

    def waited(self, since: float, until: float) -> None:
        """The loop waited for data."""
        if self._began is None:
            self._began = since
        self._waited += until - since

    def stage(self, stage: str) -> None:
        """The job does something else: evaluating is not computing a step."""
        if stage in AWAY:
            self._left.setdefault(_SINCE, self.clock())
        elif (left := self._left.pop(_SINCE, None)) is not None:
            self._away.append(self.clock() - left)

    def put(self, step: object, metrics: dict[str, Any]) -> None:
        """Add the times to the row of this step, where it does not say them itself: none before the first batch, and
        none to a step's second row.
        """
        began = self._began
        if began is None or step == self._step:
            return
        self._step, self._began, waited = step, self.clock(), self._waited
        self._waited = 0.0
        spent = self._began - began - waited
        if self._away or self._left:
            spent -= self._spent_away()
        metrics.setdefault(DATA_WAIT, waited)
        metrics.setdefault(COMPUTE, spent if spent > 0.0 else 0.0)
        if self._comm is not None and (comm := self._comm()) is not None:
            metrics.setdefault(COMM, comm)

    def _spent_away(self) -> float:
        """What was spent in other stages since the row before."""
        away = 0.0
        with suppress(IndexError):
            while True:
                away += self._away.popleft()
        if (left := self._left.pop(_SINCE, None)) is not None:
            now = self.clock()
            self._left.setdefault(_SINCE, now)
            away += now - left
        return away


class TimedLoader:
    """A loader whose batches are waited for on the clock. In everything else it is the loader itself."""

    def __init__(self, loader: Any, timings: StepTimings) -> None:
        self._loader = loader
        self._timings = timings

    def __iter__(self) -> Iterator[Any]:
        clock, waited = self._timings.clock, self._timings.waited
        began = clock()
        iterator = iter(self._loader)  # starts the workers, which is waiting too
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                waited(began, clock())
                return
            waited(began, clock())
            yield batch
            began = clock()

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._loader, name)


class DdpCommunication:
    """What DistributedDataParallel measured of its all-reduce, each measurement told once."""

    FIRST, EVERY = 10, 50
    """Asked at the first steps, which DDP measures all, then now and then: an answer takes some 0.1 ms."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._asked = 0
        self._told = 0

    def __call__(self) -> float | None:
        """Seconds of the last measured step; None where there is none that was not told."""
        self._asked += 1
        if self._asked > self.FIRST and self._asked % self.EVERY:
            return None
        try:
            told = self._model._get_ddp_logging_data()
            measured, took = told.get("iteration", 0), float(told.get("backward_comm_time", 0))
        except Exception:  # noqa: BLE001  # a private method, which may be another in another version
            return None
        if measured == self._told or took <= 0:
            return None
        self._told = measured
        return took * NANOSECONDS
