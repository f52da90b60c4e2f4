"""Steps in summary, for plots: what each metric was over every 512 steps, so that a million steps are 2,000 rows.

`archive` calls `Stretches.take` with what it has just written. Inserts may be repeated, come late and out of order, so
nothing is ever added to a summary: it is made from the steps themselves once the attempt has passed its stretch or has
ended, and made again when something comes that belongs into it. What is not summed up yet, `queries.series_of` reads
from the steps.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..events.telemetry import RunEnded, StepBatch
from ..events.union import AnyEvent
from .connect import refusals
from .named import ask, statements

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

STEPS = 512
LINES = 20_000
"""Attempts that are remembered; of others the archive is asked."""


class Line(NamedTuple):
    """One attempt of a run, with all its ranks."""

    run_id: str
    attempt_id: str


class Touched(NamedTuple):
    """Between which stretches steps of a line were written (`first` beyond `last`: none), and whether it ended."""

    first: int = 2**62
    last: int = -1
    ended: bool = False

    @property
    def closed(self) -> int:
        """Before which stretch nothing more is to come."""
        return self.last + self.ended


class Stretches:
    """The summaries of one archive, by one writer."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._until: OrderedDict[Line, int] = OrderedDict()

    def take(self, events: Iterable[AnyEvent]) -> None:
        """Sum up what these, written just now, have closed or changed.

        Raises:
            QueryRefused, StackNotRunning: some is not summed up; take the same again.
        """
        touched = touched_by(events)
        known = self._known(touched)
        due: dict[tuple[int, int], list[Line]] = {}
        for line, (first, last) in due_of(touched, known).items():
            due.setdefault((first, last), []).append(line)
        for (first, last), lines in due.items():
            self._sum_up(lines, first, last)
        for line, place in touched.items():
            self._remember(line, max(known.get(line, 0), place.closed))

    def _known(self, touched: dict[Line, Touched]) -> dict[Line, int]:
        """Up to which stretch each line is summed up. Where a new one shows up, what its run left behind has ended."""
        known = {line: self._until[line] for line in touched if line in self._until}
        strange = sorted({line.run_id for line in touched if line not in known})
        if strange:
            with refusals():
                rows = ask(self._client, "summed_up", runs=strange, size=STEPS)
            for row in rows:
                line = Line(row["run_id"], row["attempt_id"])
                known.setdefault(line, row["until"])
                if row["left_behind"]:
                    first = touched[line].first if line in touched else Touched().first
                    touched[line] = Touched(first, row["last_step"] // STEPS, ended=True)
        return known

    def _sum_up(self, lines: Sequence[Line], first: int, last: int) -> None:
        asked = {
            "runs": sorted({line.run_id for line in lines}),
            "attempts": sorted({line.attempt_id for line in lines}),
            "first": first,
            "last": last,
            "size": STEPS,
        }
        with refusals():
            self._client.command(statements()["sum_up"], parameters=asked)

    def _remember(self, line: Line, until: int) -> None:
        self._until[line] = until
        self._until.move_to_end(line)
        while len(self._until) > LINES:
            self._until.popitem(last=False)


def touched_by(events: Iterable[AnyEvent]) -> dict[Line, Touched]:
    """The lines of which these tell steps or the end."""
    touched: dict[Line, Touched] = {}
    for event in events:
        if isinstance(event, StepBatch | RunEnded):
            line = Line(event.run_id, event.attempt_id)
            was = touched.get(line, Touched())
            if isinstance(event, StepBatch):
                first, last = min(event.steps) // STEPS, max(event.steps) // STEPS
                touched[line] = Touched(min(was.first, first), max(was.last, last), was.ended)
            else:
                touched[line] = Touched(was.first, max(was.last, event.step // STEPS), ended=True)
    return touched


def due_of(touched: dict[Line, Touched], known: dict[Line, int]) -> dict[Line, tuple[int, int]]:
    """From which stretch, and before which, each line is to be summed up; lines with nothing due are left out."""
    due = {}
    for line, place in touched.items():
        until = known.get(line, 0)
        first, last = min(place.first, until), max(min(place.last + 1, until), place.closed)
        if first < last:
            due[line] = first, last
    return due
