"""Where a run that follows another first left it: the first step whose loss or gradient norm is another.

Fed by `delivery.outbox` with the rows of rank 0 as they are told, on its thread; asked by `producers.run` at the end.
Two runs of one seed on one machine may be alike to the last bit; on GPUs sums differ from run to run, which is what
`tolerance` is for: a relative one, 0 for bit by bit.
"""

import math
import time
from collections.abc import Mapping, Sized
from typing import NamedTuple, Protocol

from ...events.commands import PipelineFact
from ...events.errors import UserMistake
from ..delivery.batching import Rows
from ..ranks.context import Identity
from ..voice import logger
from .following import Following
from .plan import COMPARED, Plan, Stretch

LAST_ROWS_SECONDS = 1.0


class Left(NamedTuple):
    """The first value that differs: `was` of the run that is followed, `now` here."""

    step: int
    metric: str
    was: float
    now: float

    def said(self, tolerance: float) -> str:
        """For a person, in full precision: the difference may be the last bit."""
        return f"at step {self.step}: {self.metric} {self.now!r} here, {self.was!r} there (tolerance {tolerance:g})"


class Departure:
    """Compares rank 0's rows with the plan's. `compared` counts values that were there on both sides."""

    def __init__(self, following: Following, tolerance: float = 0.0) -> None:
        self.tolerance = tolerance
        self.compared = 0
        self.left: Left | None = None
        self._following = following
        self._stretch = -1
        self._known: Mapping[int, int] = {}

    def seen(self, rows: Rows) -> None:
        """Some rows more, in the order in which they were logged."""
        if self.left is not None or rows.identity.rank != 0:
            return
        stretch = self._following.stretch_of(rows.identity.attempt)
        stretches = self._following.plan.stretches
        if not 0 <= stretch < len(stretches):
            return
        if stretch != self._stretch:
            self._stretch = stretch
            self._known = {step: index for index, step in enumerate(stretches[stretch].steps)}
        for step, metrics in zip(rows.steps, rows.metrics, strict=True):
            if (index := self._known.get(step)) is not None and self._differs(stretches[stretch], index, metrics):
                return

    def _differs(self, there: Stretch, index: int, metrics: Mapping[str, object]) -> bool:
        for name in COMPARED:
            was, now = getattr(there, name)[index], metrics.get(name)
            if was is None or not isinstance(now, float | int):
                continue
            self.compared += 1
            if not alike(was, float(now), self.tolerance):
                self.left = Left(there.steps[index], name, was, float(now))
                run = self._following.plan.run_id
                logger.warning("this run has left run %s %s", run, self.left.said(self.tolerance))
                return True
        return False


def alike(was: float, now: float, tolerance: float) -> bool:
    """Whether two values are the same as far as is asked; NaN is like NaN."""
    if was == now or (math.isnan(was) and math.isnan(now)):
        return True
    return abs(was - now) <= tolerance * max(abs(was), abs(now)) < math.inf


class Pending(Protocol):
    """The outbox, as far as its last rows are waited for here."""

    @property
    def queue(self) -> Sized: ...
    def hurry(self) -> None: ...
    def counts(self) -> object: ...


class Reporter(Protocol):
    """The run, as far as it tells what came of following."""

    @property
    def identity(self) -> Identity: ...
    def report_fact(
        self, fact: PipelineFact, *, subject: str = "", note: str = "", who: str = "", **numbers: float
    ) -> None: ...


class Followed(NamedTuple):
    """A run's part in following another: what is to be done, and what came of it."""

    following: Following
    departure: Departure

    def conclude(self, run: Reporter, outbox: Pending, within: float) -> None:
        """At the end, on rank 0: say whether the other run was reproduced. Rows that wait are waited for, shortly."""
        if run.identity.rank != 0:
            return
        deadline = time.monotonic() + min(within, LAST_ROWS_SECONDS)
        while outbox.queue and time.monotonic() < deadline:
            outbox.hurry()
            time.sleep(0.01)
        outbox.counts()  # a round that was at work has told its rows when this answers
        reproduced, why = verdict(self.following, self.departure)
        other = self.following.plan.run_id
        if reproduced:
            logger.info("run %s is reproduced: %s", other, why)
        else:
            logger.warning("run %s is not reproduced: %s", other, why)
        run.report_fact("reproduction", subject=other, note=why, attempted=1.0, reproduced=float(reproduced))


def verdict(following: Following, departure: Departure) -> tuple[bool, str]:
    """Whether the other run was reproduced, and what there is to say about it."""
    planned = len(following.plan.interventions)
    done = f"{following.done} of {planned} interventions applied at their steps"
    if following.fault:
        return False, f"{done}; {following.fault}"
    if departure.left is not None:
        return False, f"{done}; left {departure.left.said(departure.tolerance)}"
    if not departure.compared:
        return False, f"{done}; no loss or gradient norm to compare"
    alike_in = f"{departure.compared} values of loss and gradient norm are alike (tolerance {departure.tolerance:g})"
    return following.done == planned, f"{done}; {alike_in}"


def refuse_mistakes(plan: Plan | None, tolerance: object) -> None:
    """
    Raises:
        UserMistake: the tolerance is no share from 0 to 1, or there is nothing to be tolerant of.
    """
    is_number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not is_number or not 0 <= float(tolerance) < 1:  # type: ignore[arg-type]  # it is a number
        raise UserMistake(f"start_run: follow_tolerance is a share from 0 to 1, such as 1e-6; got {tolerance!r:.100}")
    if plan is None and tolerance:
        raise UserMistake("start_run: follow_tolerance says how alike the run must be that follow=... names; give that")
