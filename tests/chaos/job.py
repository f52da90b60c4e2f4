"""A job of some ranks, started again as a whole when one of them dies, and what of its telemetry never arrived."""

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pilothouse.cli.brokers import HOST, free_port
from pilothouse.events.telemetry import StepBatch
from pilothouse.events.union import AnyEvent

WORLD = 2
GRACE_SECONDS = 20.0
"""After one rank's death the others have so long to end by themselves: gloo tells them in a second."""
LAUNCHES = 3


@dataclass
class Job:
    """`faults`, `damage`, `needs` and `redirect`: see `training`. `launched` is how often it was."""

    run_id: str
    kafka: str
    folder: Path
    faults: str = ""
    damage: int = -1
    needs: int = 1
    least: int = 150
    redirect: str = ""
    launched: int = 0
    statuses: list[list[int]] = field(default_factory=list)
    ranks: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def start(self) -> None:
        self.launched += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        meeting = {"MASTER_ADDR": HOST, "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
        self.ranks = [self._rank(rank, meeting) for rank in range(WORLD)]

    def tended(self) -> bool:
        """Whether it has come to its end; if it broke, it is launched again."""
        if not self.ranks:
            self.start()
        if any(rank.poll() not in (None, 0) for rank in self.ranks):
            self._end()
            assert self.launched < LAUNCHES, self.said()
            self.start()
        if any(rank.poll() is None for rank in self.ranks):
            return False
        self.statuses.append([rank.returncode for rank in self.ranks])
        return True

    def step(self) -> int:
        """How many steps rank 0 has logged in this launch."""
        tape = self.folder / f"tape-{self.launched}-0"
        return len(tape.read_text().splitlines()) if tape.exists() else 0

    def lost(self, events: Iterable[AnyEvent]) -> int:
        """Steps on the tapes that are not in the log; of a rank that was killed, the last ones are passed over: what it
        had not flushed (how many those may be, `test_trainer_kills` says).
        """
        there: dict[int, set[tuple[int, int]]] = defaultdict(set)
        for event in events:
            if isinstance(event, StepBatch) and event.run_id == self.run_id:
                there[event.rank] |= {(event.attempt, step) for step in event.steps}
        return sum(
            _lost(_logged(self.folder / f"tape-{launch}-{rank}"), there[rank], status == -signal.SIGKILL)
            for launch, statuses in enumerate(self.statuses, start=1)
            for rank, status in enumerate(statuses)
        )

    def said(self) -> str:
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{log.name}: {log.read_text()[-2_000:]}" for log in logs)

    def kill(self) -> None:
        for rank in self.ranks:
            rank.kill()
            rank.wait()

    def _rank(self, rank: int, meeting: dict[str, str]) -> "subprocess.Popen[bytes]":
        others = {name: value for name, value in os.environ.items() if not name.startswith("PILOTHOUSE_")}
        ours = {
            "PILOTHOUSE_KAFKA": self.kafka,
            "PILOTHOUSE_RUN_ID": self.run_id,
            "PILOTHOUSE_DATA_DIR": str(self.folder),
            "PILOTHOUSE_PRODUCER_FLUSH_SECONDS": "0.2",
            "PILOTHOUSE_CLOSE_SECONDS": "60",
        }
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD), "LAUNCH": str(self.launched)}
        wanted = {"FAULTS": self.faults, "DAMAGE": str(self.damage), "NEEDS": str(self.needs)}
        more = {"LEAST": str(self.least), "REDIRECT": self.redirect}
        with (self.folder / f"rank-{self.launched}-{rank}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "pilothouse.tests.chaos.training", str(self.folder)],
                env=others | ours | meeting | place | wanted | more,
                stdout=log,
                stderr=log,
            )

    def _end(self) -> None:
        deadline = time.monotonic() + GRACE_SECONDS
        while any(rank.poll() is None for rank in self.ranks) and time.monotonic() < deadline:
            time.sleep(0.05)
        for rank in self.ranks:
            if rank.poll() is None:
                rank.terminate()  # as torchrun does; it sends what it has
        for rank in self.ranks:
            try:
                rank.wait(60)
            except subprocess.TimeoutExpired:
                rank.kill()
                rank.wait()
        self.statuses.append([rank.returncode for rank in self.ranks])


def _logged(tape: Path) -> list[tuple[int, int]]:
    if not tape.exists():
        return []
    rows = [line.split() for line in tape.read_text().splitlines()]
    return [(int(row[0]), int(row[1])) for row in rows]


def _lost(logged: Sequence[tuple[int, int]], there: set[tuple[int, int]], killed: bool) -> int:
    missing = [number for number, one in enumerate(logged) if one not in there]
    if killed and missing == list(range(len(logged) - len(missing), len(logged))):
        return 0
    return len(missing)
