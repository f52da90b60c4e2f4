"""Pilothouse over one series: the real core folds what the ranks would have told, and its conditions are the alarms."""

from collections.abc import Iterator
from typing import Any

from pilothouse.events.commands import Tick
from pilothouse.events.decisions import ConditionChanged
from pilothouse.events.envelope import LogPlace
from pilothouse.events.telemetry import EvalCompleted, Heartbeat, RecipeChanged, RunStarted, StageChanged, StepBatch
from pilothouse.events.union import AnyInput, Record
from pilothouse.stream_processors.fold import fold
from pilothouse.stream_processors.run_state import new_state

from .series import Alarm, Series

RUN = "series"
SECOND = 1_000_000
BEGAN = 1_790_000_000 * SECOND
BATCH_ROWS = 20
BATCH_SECONDS = 20.0
HEARTBEAT_SECONDS = 10


class Telling:
    """The records of a training, in the order in which a log would have them."""

    def __init__(self, series: Series) -> None:
        self._series = series
        self._seq: dict[str, int] = {}
        self._attempt = 1

    def records(self) -> Iterator[AnyInput]:
        """What the ranks tell, with a tick for each second that passes."""
        series = self._series
        yield from self._started(0, "start")
        row, second = 0, 0
        stops = sorted({*series.restarts, *series.changes, *(row + 1 for row in series.pauses), len(series)})
        while row < len(series):
            end = self._end_of_batch(row, next(stop for stop in stops if stop > row))
            yield from (self._batch(rank, row, end) for rank in range(len(series.ranks)))
            for at in range(row, end):
                if at in series.evaluations:
                    loss = {"loss": series.evaluations[at]}
                    yield self._tell(EvalCompleted, 0, at, step=series.steps[at], metrics=loss)
            if end - 1 in series.pauses:
                yield self._tell(StageChanged, 0, end - 1, stage="evaluate", step=series.steps[end - 1])
            until = int(series.seconds[end - 1])
            yield from self._pass(second, until, end - 1, "evaluate" if end - 1 in series.pauses else "train")
            row, second = end, max(second, until)
            if row in series.restarts:
                self._attempt += 1
                yield from self._started(row, "restart")
            elif row in series.changes:
                yield self._tell(RecipeChanged, 0, row, step=series.steps[row] - 1, what="recipe")
            if row - 1 in series.pauses and row < len(series):
                pause_over = int(series.seconds[row]) - 1
                yield from self._pass(second, pause_over, row - 1, "evaluate")
                second = max(second, pause_over)
                yield self._tell(StageChanged, 0, row, stage="train", step=series.steps[row])
        yield from self._pass(second, second + int(series.silence), len(series) - 1, "train")

    def _end_of_batch(self, row: int, stop: int) -> int:
        """Where the batch that begins here ends: rows of slow steps are sent one by one."""
        seconds, end = self._series.seconds, min(row + BATCH_ROWS, stop)
        while end > row + 1 and seconds[end - 1] - seconds[row] > BATCH_SECONDS:
            end -= 1
        return end

    def _pass(self, second: int, until: int, row: int, stage: str) -> Iterator[AnyInput]:
        """A tick for each second, and now and then a word that the process lives."""
        for passed in range(1, until - second + 1):
            if passed % HEARTBEAT_SECONDS == 0:
                yield self._tell(Heartbeat, 0, row, stage=stage, step=self._series.steps[row])
            yield self._tick(second + passed)

    def _started(self, row: int, reason: str) -> Iterator[AnyInput]:
        told = {"reason": reason, "first_step": self._series.steps[row], "world_size": len(self._series.ranks)}
        yield self._tell(RunStarted, 0, row, **told)

    def _batch(self, rank: int, first: int, end: int) -> AnyInput:
        metrics = {
            name: tuple(column[first:end])
            for name, column in self._series.ranks[rank].items()
            if any(value is not None for value in column[first:end])
        }
        times = tuple(BEGAN + int(second * SECOND) for second in self._series.seconds[first:end])
        steps = tuple(self._series.steps[first:end])
        nothing = {"nothing": (0.0,) * len(steps)}
        return self._tell(StepBatch, rank, end - 1, steps=steps, times=times, metrics=metrics or nothing)

    def _tell(self, kind: Any, rank: int, row: int, **fields: Any) -> AnyInput:
        writer = f"rank-{rank}"
        self._seq[writer] = self._seq.get(writer, 0) + 1
        at = BEGAN + int(self._series.seconds[row] * SECOND)
        identity = {"run_id": RUN, "writer_id": writer, "seq": self._seq[writer], "at": at, "rank": rank}
        told: AnyInput = kind(**identity, attempt_id=f"attempt-{self._attempt}", attempt=self._attempt, **fields)
        return told

    def _tick(self, second: int) -> AnyInput:
        self._seq["ticker"] = self._seq.get("ticker", 0) + 1
        return Tick(at=BEGAN + second * SECOND, partition=0, writer_id="ticker", seq=self._seq["ticker"])


def records_of(series: Series) -> list[Record]:
    """The log of a training; making it is no part of what is measured."""
    return [Record(LogPlace(0, 0, offset), told) for offset, told in enumerate(Telling(series).records())]


def alarms_of(series: Series, records: list[Record]) -> list[Alarm]:
    """From the row at which a condition became False to the one at which it was not so any more.

    The recoverability of a run and the freshness of its telemetry are about its surroundings, and no alarms here.
    """
    state = new_state(RUN)
    rows = _rows_by_attempt(series)
    alarms: list[Alarm] = []
    open_since: dict[str, tuple[int, str]] = {}
    for record in records:
        folded = fold(state, record)
        if folded.fault:
            raise RuntimeError(folded.fault)
        state = folded.state
        for decision in folded.decisions:
            if not isinstance(decision, ConditionChanged) or decision.condition in {"Recoverable", "TelemetryFresh"}:
                continue
            row = rows.get((decision.attempt, decision.step), len(series) - 1)
            if decision.status == "False":
                open_since.setdefault(decision.condition, (row, decision.reason))
            elif decision.condition in open_since:
                first, why = open_since.pop(decision.condition)
                alarms.append(Alarm(first, row, decision.condition, why))
    return [*alarms, *(Alarm(first, len(series) - 1, what, why) for what, (first, why) in open_since.items())]


def _rows_by_attempt(series: Series) -> dict[tuple[int | None, int | None], int]:
    attempt = 1
    rows: dict[tuple[int | None, int | None], int] = {}
    for row, step in enumerate(series.steps):
        attempt += row in series.restarts
        rows[attempt, step] = row
    return rows
