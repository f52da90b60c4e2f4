"""The run of a watched script, opened beside the training: a step never waits for it.

Used by `attach.session`. What is logged meanwhile is kept, and told when the run is open. Ranks above 0 learn the run
from rank 0, and wait here until it has one: rank 0 may be slow, or take no step at all (`attach.ranks.hear_of`).
"""

import atexit
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...events.errors import UserMistake
from ...events.telemetry import Stage
from ..metrics.devices import InFlight
from ..metrics.values import Number, Refused, read
from ..plain import why
from .ranks import Ranks, find_ranks

if TYPE_CHECKING:
    from ..run import Run

KEPT_ROWS = 1_000
"""Beyond it rows are left out, and counted."""

PATIENCE_SECONDS = 120.0
DEVICE_SECONDS = 5.0
STEPPED, OPEN, STEERABLE = "stepped", "open", "steerable"

Kept = tuple[int, "dict[str, Number] | Stage"]
"""A row, or a stage, of a step."""


class Opening:
    """Opens one run by `start`, on a thread of its own, from the moment it is made. `failed` hears why there is none.

    `may_steer` is set when the run is open, on rank 0 when all others have said that they can be steered: a command
    that is heard before would find nobody.
    """

    def __init__(self, start: "Callable[[], Run]", failed: Callable[[str], None]) -> None:
        self.pid = os.getpid()
        self.run: Run | None = None
        self.left_out = 0
        self.may_steer = threading.Event()
        self._steerable = threading.Event()
        self._start, self._failed = start, failed
        self._kept: list[Kept] = []
        self._in_flight = InFlight()
        self._lock = threading.RLock()  # a signal handler may come to the training thread inside of it
        self._over = threading.Event()
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._work, name="pilothouse-opening", daemon=True)
        self._thread.start()

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        """Publish the row, or keep it until that can be done."""
        if (run := self.run) is not None:
            run.log(step, **metrics)
            return
        told = {name: read(value, self._in_flight) for name, value in metrics.items()}
        row = {name: number for name, number in told.items() if not isinstance(number, Refused)}
        if not self._keep(step, row):
            self.log(step, metrics)

    def stage(self, stage: Stage, step: int) -> None:
        """Tell it, or keep it as well."""
        if (run := self.run) is not None:
            run.stage(stage, step)
        elif not self._keep(step, stage):
            self.stage(stage, step)

    def steerable(self) -> None:
        """This rank can be steered from here on."""
        self._steerable.set()

    def end(self, seconds: float) -> None:
        """The script ends: a run that is being opened has so long."""
        self._opened.wait(seconds)
        self._over.set()
        self._steerable.set()
        self._thread.join(1.0)

    def _keep(self, step: int, what: "dict[str, Number] | Stage") -> bool:
        """Whether it is kept, or known to be too much: the run has not been opened in between."""
        with self._lock:
            if self.run is not None:
                return False
            if len(self._kept) < KEPT_ROWS:
                self._kept.append((step, what))
            else:
                self.left_out += 1
        return True

    # -------------------------------------------------------------------------------------------- below: on the thread

    def _work(self) -> None:
        try:
            ranks = find_ranks()
            if ranks is not None and ranks.place.rank > 0:
                self._wait_for_rank_zero(ranks)
            run = self._start()
            atexit.register(self._opened.wait, 1.0)  # runs before the run's own end, which what was kept must not miss
            self._publish(run)
            self._opened.set()
            self._meet(ranks)
        except Exception as error:  # noqa: BLE001  # the script has nothing to do with what is wrong here
            if self.run is None:
                self._failed(str(error) if isinstance(error, UserMistake) else why(error))
        finally:
            self._opened.set()

    def _wait_for_rank_zero(self, ranks: Ranks) -> None:
        ranks.say(STEPPED)
        if not ranks.wait_for(OPEN, 1, self._over, PATIENCE_SECONDS):
            raise UserMistake("rank 0 has opened no run: is it started by `pilothouse run` as well, and still there?")

    def _publish(self, run: "Run") -> None:
        while True:
            with self._lock:
                kept, self._kept = self._kept, []
                if not kept:
                    self.run = run
                    return
            for step, what in kept:
                if isinstance(what, str):
                    run.stage(what, step)
                else:
                    told = {name: _arrived(number) for name, number in what.items()}
                    run.log(step, **{name: number for name, number in told.items() if number is not None})

    def _meet(self, ranks: Ranks | None) -> None:
        """After this the ranks know of each other that they can be steered."""
        if ranks is None:
            self.may_steer.set()
        elif ranks.place.rank > 0:
            self.may_steer.set()
            self._steerable.wait()
            if not self._over.is_set():
                ranks.say(STEERABLE)
        else:
            ranks.say(OPEN)
            if ranks.wait_for(STEERABLE, ranks.place.world_size - 1, self._over):
                self.may_steer.set()


def _arrived(number: Number) -> float | None:
    """The number, from a device too: it was sent for a while ago."""
    if isinstance(number, float | int):
        return number
    deadline = time.monotonic() + DEVICE_SECONDS
    while not number.ready():
        if time.monotonic() > deadline:
            return None
        time.sleep(0.001)
    return number.value()
