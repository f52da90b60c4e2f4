"""Training scripts as processes of their own, with the settings of a test and nobody else's."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from pilothouse.events.envelope import TrainerFact
from pilothouse.events.telemetry import RunEnded, StepBatch
from pilothouse.tests.broker_fixture import PARTITIONS
from pilothouse.tests.log_reader import read_run


class Script:
    """Runs a training script against a broker; `facts` reads what it published."""

    def __init__(self, address: str, folder: Path) -> None:
        self.address = address
        self.run_id = f"run-{uuid4().hex[:8]}"
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("PILOTHOUSE_")}
        self.environ |= {
            "PILOTHOUSE_KAFKA": address,
            "PILOTHOUSE_DATA_DIR": str(folder),
            "PILOTHOUSE_RUN_ID": self.run_id,
            "PILOTHOUSE_PRODUCER_FLUSH_SECONDS": "0.05",
        }

    def start(self, text: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", text],
            env=self.environ | environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, text: str, **environ: str) -> subprocess.CompletedProcess[str]:
        with self.start(text, **environ) as process:
            out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def facts(self) -> list[TrainerFact]:
        return read_run(self.address, self.run_id, PARTITIONS)

    def ended(self) -> RunEnded:
        last = self.facts()[-1]
        assert isinstance(last, RunEnded)
        return last


def steps_of(facts: Sequence[TrainerFact]) -> list[int]:
    """Every step that was logged, in the order of the log."""
    return [step for fact in facts if isinstance(fact, StepBatch) for step in fact.steps]
