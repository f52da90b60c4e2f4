"""A governor over a log in memory, and what a test tells it."""

from pathlib import Path

from pilothouse.events.commands import Tick
from pilothouse.events.decisions import PhaseChanged
from pilothouse.events.telemetry import RunStarted, StepBatch
from pilothouse.events.topics import TELEMETRY, partition_of
from pilothouse.stream_processors.dead_letter_office import DeadLetterOffice
from pilothouse.stream_processors.governor import Governor, Judge
from pilothouse.stream_processors.history import History
from pilothouse.stream_processors.kept import restore
from pilothouse.stream_processors.log import Delivered, Layout, Source
from pilothouse.stream_processors.policy_text import Policies, PolicyText
from pilothouse.stream_processors.troubles import Troubles
from pilothouse.tests.memory_log import MemoryLog
from pilothouse.tests.tiny_fold import TINY

RUN = next(f"run-{number}" for number in range(100) if partition_of(f"run-{number}", 4) == 0)
ELSEWHERE = next(f"run-{number}" for number in range(100) if partition_of(f"run-{number}", 4) == 1)
SOURCE = Source(TELEMETRY.name, 0)
POLICY = PolicyText("default", "rules: []")


def batch(seq: int, *losses: float, writer: str = "w", run: str = RUN) -> StepBatch:
    rows = len(losses) or 1
    steps = tuple(range(seq * 100, seq * 100 + rows))
    return StepBatch(
        at=seq, run_id=run, writer_id=writer, seq=seq, attempt_id="a", attempt=1, rank=0,
        steps=steps, times=(1,) * rows, metrics={"loss": losses or (1.0,)},
    )  # fmt: skip


def started(seq: int = 1, writer: str = "w") -> RunStarted:
    return RunStarted(
        at=7, run_id=RUN, writer_id=writer, seq=seq, attempt_id="a", attempt=1, rank=0,
        reason="start", first_step=0, world_size=1,
    )  # fmt: skip


def tick(seq: int, writer: str = "ticker") -> Tick:
    return Tick(at=seq, partition=0, writer_id=writer, seq=seq)


class Bench:
    """A governor over a log in memory that can be killed and started again, as a process is."""

    def __init__(self, folder: Path, epoch: int = 0, history: History | None = None) -> None:
        self.log = MemoryLog()
        self.folder = folder
        self.epoch = epoch
        self.history = history
        self.policies: Policies = POLICY
        self.dead_letter_limit = 3
        self.governor = self._governor()

    def _governor(self) -> Governor:
        troubles = Troubles(self.folder / "troubles.json")
        office = DeadLetterOffice(4, self.dead_letter_limit, self.folder / "unreadable.json")
        judge = Judge(TINY, self.policies, Layout(4, 4, 4), troubles, office, self.history)
        return Governor(self.log, judge, self.epoch)

    async def start(self, committed: int | None = None) -> Governor:
        """As a fresh process: what was in memory is gone, the table and the acknowledgements are what was written."""
        self.governor = self._governor()
        at = self.log.acknowledged.get(SOURCE, committed)
        await self.governor.assign({0: at}, restore(self.log.table, [0]))
        return self.governor

    async def take(self, *records: Delivered) -> None:
        await self.governor.take(records)

    def steps(self) -> list[int]:
        return [event.step for event in self.log.events() if isinstance(event, PhaseChanged)]
