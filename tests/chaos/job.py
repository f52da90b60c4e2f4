"""A job of some ranks, from outside: `training` in a process of its own, and what of its telemetry never arrived."""

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pilothouse.events.telemetry import StepBatch
from pilothouse.events.union import AnyEvent


@dataclass
class Job:
    """`faults`, `damage`, `needs`, `least` and `redirect`: see `training`."""

    run_id: str
    kafka: str
    folder: Path
    faults: str = ""
    damage: int = -1
    needs: int = 1
    least: int = 150
    redirect: str = ""
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        others = {name: value for name, value in os.environ.items() if not name.startswith("PILOTHOUSE_")}
        ours = {
            "PILOTHOUSE_KAFKA": self.kafka,
            "PILOTHOUSE_RUN_ID": self.run_id,
            "PILOTHOUSE_DATA_DIR": str(self.folder),
            "PILOTHOUSE_PRODUCER_FLUSH_SECONDS": "0.2",
            "PILOTHOUSE_CLOSE_SECONDS": "60",
        }
        wanted = {"FAULTS": self.faults, "DAMAGE": str(self.damage), "NEEDS": str(self.needs)}
        more = {"LEAST": str(self.least), "REDIRECT": self.redirect, "OMP_NUM_THREADS": "1"}
        with (self.folder / "launches.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pilothouse.tests.chaos.training", str(self.folder)],
                env=others | ours | wanted | more,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ended(self) -> bool:
        """Whether it has come to its end, and that was a good one."""
        assert self.process is not None
        status = self.process.poll()
        assert not status, f"the job ended with {status}:\n{self.said()}"
        return status == 0

    @property
    def statuses(self) -> list[list[int]]:
        """By launch that is over, how each rank ended."""
        return [json.loads(file.read_text()) for file in sorted(self.folder.glob("statuses-*.json"))]

    def step(self) -> int:
        """How many steps rank 0 has logged, in all launches."""
        return sum(len(tape.read_text().splitlines()) for tape in self.folder.glob("tape-*-0"))

    @property
    def attempts(self) -> int:
        """How many it has begun: at every launch one, and one at every rollback."""
        rows = [row for tape in self.folder.glob("tape-*-0") for row in _logged(tape)]
        return len({attempt for attempt, _ in rows})

    def lost(self, events: Iterable[AnyEvent]) -> int:
        """Steps on the tapes that are not in the log; of a rank that was killed, the last ones are passed over: what it
        had not flushed (how many those may be, `test_trainer_kills` says).
        """
        there: dict[int, set[tuple[int, int]]] = defaultdict(set)
        for event in events:
            if isinstance(event, StepBatch) and event.run_id == self.run_id:
                there[event.rank] |= {(event.attempt, step) for step in event.steps}
        return sum(
            _lost(_logged(self.folder / f"tape-{launch}-{rank}"), there[rank], killed=status == -signal.SIGKILL)
            for launch, statuses in enumerate(self.statuses, start=1)
            for rank, status in enumerate(statuses)
        )

    def said(self) -> str:
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{log.name}: {log.read_text()[-2_000:]}" for log in logs)

    def kill(self) -> None:
        """It and its ranks."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _logged(tape: Path) -> list[tuple[int, int]]:
    if not tape.exists():
        return []
    rows = [line.split() for line in tape.read_text().splitlines()]
    return [(int(row[0]), int(row[1])) for row in rows]


def _lost(logged: Sequence[tuple[int, int]], there: set[tuple[int, int]], *, killed: bool) -> int:
    missing = [number for number, one in enumerate(logged) if one not in there]
    if killed and missing == list(range(len(logged) - len(missing), len(logged))):
        return 0
    return len(missing)
