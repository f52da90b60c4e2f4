"""How much a governor decides: a backlog as fast as it can, and the wanted load by the clock.

`drain` fills the topic while nobody reads, then starts so many governors and counts what they fold, in time and in CPU
time. `steady` lets ranks send at the pace of a load, with everything that a stack has beside it.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .rig import Governor, Rig, cpu_seconds, until

LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Drained:
    """What `governors` did of a backlog together, between a tenth and nine tenths of it; all of it, their start
    included, where it was decided before they had said twice how far they were.
    """

    broker: str
    governors: int
    runs: int
    ranks: int
    records: int
    rank_steps: int
    seconds: float
    cpu_seconds: float

    @property
    def per_second(self) -> float:
        return self.rank_steps / self.seconds

    @property
    def per_cpu_second(self) -> float:
        return self.rank_steps / self.cpu_seconds


def drain(broker: str, kafka_home: Path | None, governors: int, load: dict[str, float]) -> Drained:
    """Decide a backlog of `load["seconds"]` of these trainings."""
    with tempfile.TemporaryDirectory(prefix="bench-pipeline-") as folder, Rig(Path(folder), kafka_home) as rig:
        sent = rig.generator("--flat-out", *arguments_of(load)).finish(600.0)
        began = time.time()
        workers = [rig.governor(str(slot)) for slot in range(governors)]
        for worker in workers:
            worker.until_running()
        return _watched(broker, workers, began, {**sent, **load})


def arguments_of(load: dict[str, float]) -> list[str]:
    """The options of `generator`."""
    return [text for name, value in load.items() for text in (f"--{name.replace('_', '-')}", f"{value:g}")]


def _watched(broker: str, workers: Sequence[Governor], began: float, sent: dict[str, Any]) -> Drained:
    """Health files are written once a second: what they say is of that moment, and so is the time beside it."""
    marks: list[tuple[float, int, float]] = []

    def done() -> bool:
        told = [worker.health() for worker in workers]
        if all(told):
            at = max(one["at"] for one in told) / 1e6
            if not marks or at > marks[-1][0]:
                cpu = sum(cpu_seconds(worker.child.pid) for worker in workers)
                marks.append((at, sum(one["records"] for one in told), cpu))
        return bool(marks) and marks[-1][1] >= sent["records"]

    until(done, "the backlog is decided", 600.0)
    first = next(mark for mark in marks if mark[1] >= 0.1 * sent["records"])
    last = next(mark for mark in marks if mark[1] >= 0.9 * sent["records"])
    if last is first:
        first = (began, 0, 0.0)
    records = last[1] - first[1]
    share = records / sent["records"]
    return Drained(
        broker,
        len(workers),
        int(sent["runs"]),
        int(sent["ranks"]),
        records,
        round(share * sent["rank_steps"]),
        last[0] - first[0],
        last[2] - first[2],
    )
