"""Says a log of others as the events that a live run would have sent, with the ticks of a clock between them. Pure.

Times are the log's. A tick is a second, so that hangs are judged by the times of the original; it is longer where rows
are more than ten minutes apart (the core, which knows nothing yet of the run, would take the first wait for a hang),
and in logs of months. Who wrote a row after a silence was alive in it, so heartbeats are told there, and a silence is
judged as a hang and not as a loss of the run; unless the run began again with that row. Ids are derived from the run's
id and what its log says, so that the same log gives the same events.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from ...events.commands import PolicyActivated, Tick
from ...events.telemetry import EvalCompleted, Heartbeat, ResourcesSampled, RunEnded, RunStarted, Stage, StepBatch
from ...events.union import AnyInput
from .arranging import Arranged, Evaluation, Row, Sample
from .source import MAX_MICROS

PARTITION = 1023
"""Where records stand that were never in a stack's own log: a partition that no broker has (there are 1,000 at most),
in epoch 0. The offsets of a run there are its own, from 0."""
SECOND = 1_000_000
TICKS_A_ROW = 600
"""At most, usually: a third of what the core waits for the second step (`detectors.hang.UNKNOWN`)."""
TICKS_A_RUN = 1_000_000
UNTIMED_ROW = SECOND // 20
"""Between two rows of a log without a clock: ticks come every twenty."""
HEARTBEAT_TICKS = 10
LONGEST_SILENCE = 10_000
"""Ticks that are told of one silence; what goes on longer changes nothing more."""
LOST_AFTER = 601
"""Ticks after which a run of which nothing more is heard has been declared lost."""
BATCH_ROWS = 500
BATCH_VALUES = 20_000
ROW_VALUES = 9_000
SAMPLE_VALUES = 1_000
NAME_CHARS = 200


@dataclass(frozen=True)
class Story:
    """All that is told of a run besides its rows. `began_at` is microseconds of day, `row_micros` the time between two
    rows where the log has no clock, `tick_micros` the length of a tick; `shift` is added to the log's own times.
    `govern` chooses the policy, as the governor does when a run starts.
    """

    run_id: str
    digest: str
    began_at: int
    tick_micros: int
    started: Mapping[str, Any]
    row_micros: int
    shift: int
    ended_at: int | None
    outcome: str
    error: str
    govern: Callable[[RunStarted], PolicyActivated]


@dataclass
class _Clock:
    """Time as the records tell it: ticks at equal distances, never back."""

    story: Story
    next_at: int
    seq: int = 0
    rows: int = 0

    def time_of(self, at: int | None, *, is_row: bool) -> int:
        """Of one record, in microseconds of day."""
        if at is None:
            self.rows += is_row
            at = self.story.began_at + max(0, self.rows - 1) * self.story.row_micros
            return min(at, MAX_MICROS - 1)
        return min(max(0, at + self.story.shift), MAX_MICROS - 1)

    def due(self, until: int) -> Iterator[tuple[int, bool]]:
        """The times of the ticks up to `until`, each with whether a heartbeat belongs to it; of a long silence only
        the beginning and the end.
        """
        told = 0
        while self.next_at <= until:
            told += 1
            if told == LONGEST_SILENCE:
                left = (until - self.next_at) // self.story.tick_micros
                self.next_at += left * self.story.tick_micros
            yield self.next_at, told % HEARTBEAT_TICKS == 0
            self.next_at += self.story.tick_micros

    def tick(self, at: int) -> Tick:
        self.seq += 1
        return Tick(at=at, partition=PARTITION, writer_id=f"ticker-{writer_of(self.story)}", seq=self.seq)


@dataclass
class _Rows:
    """Rows that will be one batch."""

    rows: list[tuple[int, Row]] = field(default_factory=list)
    values: int = 0

    def add(self, at: int, row: Row) -> None:
        self.rows.append((at, row))
        self.values += len(row.values)

    @property
    def is_full(self) -> bool:
        return len(self.rows) >= BATCH_ROWS or self.values >= BATCH_VALUES

    def columns(self) -> dict[str, Any]:
        names = dict.fromkeys(name for _, row in self.rows for name in row.values)
        return {
            "steps": tuple(row.step for _, row in self.rows),
            "times": tuple(at for at, _ in self.rows),
            "metrics": {name: tuple(row.values.get(name) for _, row in self.rows) for name in names},
        }


def tick_length(pace: float, lasted: float) -> int:
    """Microseconds of a tick, for a log whose rows are usually `pace` apart and that covers `lasted`."""
    return max(SECOND, round(pace / TICKS_A_ROW), round(lasted / TICKS_A_RUN))


def writer_of(story: Story) -> str:
    """The identity of who tells it."""
    return f"import-{uuid5(NAMESPACE_URL, f'pilothouse-import/{story.run_id}/{story.digest}').hex}"


def tell(story: Story, told: Iterable[Arranged]) -> Iterator[AnyInput]:
    """The run's whole log, in order."""
    return _Teller(story).tell(told)


class _Teller:
    def __init__(self, story: Story) -> None:
        self._story = story
        self._writer = writer_of(story)
        self._clock = _Clock(story, story.began_at + story.tick_micros)
        self._rows = _Rows()
        self._attempt = 0
        self._seq = 0
        self._last_at = story.began_at
        self._step = 0
        self._stage: Stage = "train"

    def tell(self, told: Iterable[Arranged]) -> Iterator[AnyInput]:
        for one in told:
            if self._attempt == 0:
                yield from self._start(self._story.began_at, getattr(one, "step", 0), "start")
            at = self._clock.time_of(one.at, is_row=isinstance(one, Row))
            towards: Stage = "evaluate" if isinstance(one, Evaluation) else "train"
            yield from self._pass_time(at, towards, alive=not (isinstance(one, Row) and one.restarts))
            yield from self._say(one, at)
        yield from self._end()

    def _say(self, one: Arranged, at: int) -> Iterator[AnyInput]:
        self._last_at = max(self._last_at, at)
        match one:
            case Row():
                if one.restarts:
                    yield from self._flush()
                    yield from self._start(at, one.step, "restart")
                self._step = one.step
                self._rows.add(at, one._replace(values=_named(one.values, ROW_VALUES)))
                if self._rows.is_full:
                    yield from self._flush()
            case Evaluation():
                yield from self._flush()
                values = _named(one.values, SAMPLE_VALUES)
                yield self._fact(EvalCompleted, at, step=one.step, split=one.split[:NAME_CHARS], metrics=values)
                if self._stage != "train":
                    yield self._heartbeat(at, "train")
            case Sample():
                yield from self._flush()
                yield self._fact(ResourcesSampled, at, values=_named(one.values, SAMPLE_VALUES))

    def _start(self, at: int, step: int, reason: str) -> Iterator[AnyInput]:
        parent = self._attempt_id if self._attempt else None
        self._attempt += 1
        self._stage = "train"
        started = {"reason": reason, "first_step": step, "world_size": 1, "parent_attempt_id": parent}
        said = self._fact(RunStarted, at, **self._story.started, **started)
        yield said
        if self._attempt == 1 and isinstance(said, RunStarted):
            yield self._story.govern(said)

    def _pass_time(self, until: int, towards: Stage, *, alive: bool = True) -> Iterator[AnyInput]:
        for at, beats in self._clock.due(until):
            yield from self._flush()
            yield self._clock.tick(at)
            if beats and alive:
                yield self._heartbeat(at, towards)

    def _heartbeat(self, at: int, stage: Stage) -> AnyInput:
        self._stage = stage
        return self._fact(Heartbeat, at, stage=stage, step=self._step)

    def _flush(self) -> Iterator[AnyInput]:
        if self._rows.rows:
            rows, self._rows = self._rows, _Rows()
            yield self._fact(StepBatch, rows.rows[-1][0], **rows.columns())

    def _end(self) -> Iterator[AnyInput]:
        ended_at = max(self._last_at, self._story.ended_at or 0)
        if self._story.outcome == "lost":
            yield from self._flush()
            silence = LOST_AFTER * self._story.tick_micros
            yield from self._pass_time(self._last_at + silence, "train", alive=False)
            return
        yield from self._pass_time(ended_at, "train")
        yield from self._flush()
        ending = {"outcome": self._story.outcome, "step": self._step, "error": self._story.error[:1_000]}
        yield self._fact(RunEnded, ended_at, **ending)

    def _fact(self, kind: Any, at: int, **fields: Any) -> AnyInput:
        self._seq += 1
        identity = {"run_id": self._story.run_id, "writer_id": self._writer, "seq": self._seq, "at": at, "rank": 0}
        told: AnyInput = kind(**identity, attempt_id=self._attempt_id, attempt=self._attempt, **fields)
        return told

    @property
    def _attempt_id(self) -> str:
        return uuid5(NAMESPACE_URL, f"{self._writer}/{self._attempt}").hex


def _named(values: Mapping[str, float], most: int) -> dict[str, float]:
    """As many as an event holds, under names as long as it takes."""
    return {name[:NAME_CHARS]: value for name, value in list(values.items())[:most] if name}
