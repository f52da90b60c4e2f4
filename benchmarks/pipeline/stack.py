"""All of a stack under load: `pilothouse up` with a policy of ours, more governors beside its own, and what they say.

`faults` and `endurance` run on it. Whether its decisions are right is found as `pilothouse replay` finds it: the
archived log of a run is folded again, and every decision compared.
"""

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pilothouse.cli.children import Child
from pilothouse.cli.demo.stack import COMMAND, DemoStack
from pilothouse.cli.key_files import KEYS, private_file
from pilothouse.cli.replay_command import account_of, proved
from pilothouse.cli.stack_file import told_by_stack

from .probes import POLICY
from .rig import Generator, until

LEVEL, LEVEL_SECONDS = 20, 3.0
"""Behind with no more than this for so long, in records: Ticks always come, and what was sent before is decided."""


class FullStack(DemoStack):
    """`pilothouse up` on a folder of ours, and processes beside it; all are gone at the end."""

    def __init__(self, folder: Path, kafka_home: Path | None) -> None:
        super().__init__(folder / "stack", kafka_home)
        self.folder = folder
        self._policy = folder / "policy.yaml"
        self._policy.write_text(POLICY)
        self._beside: list[Child] = []

    @property
    def environ(self) -> dict[str, str]:
        return {**super().environ, "PILOTHOUSE_POLICY_FILE": str(self._policy)}

    @property
    def pids(self) -> dict[str, int]:
        """Of the parts that `up` runs."""
        pids: dict[str, int] = told_by_stack(self.data_dir)["pids"]
        return pids

    def __exit__(self, *_: object) -> None:
        for child in reversed(self._beside):
            child.kill()
        super().__exit__()

    def generator(self, name: str, *arguments: str) -> Generator:
        module = "pilothouse.benchmarks.pipeline.generator"
        return Generator(self._run(name, [module, self.settings.kafka, "--name", name, *arguments]))

    def probes(self, seconds: float, runs: int = 8) -> Child:
        """Real runs that ask to be steered; what became of it is in `probes.jsonl` when it has ended."""
        embedded = ["--embedded"] if self.settings.embedded_broker else []
        options = [self.settings.kafka, str(self.folder), "--seconds", str(seconds), "--runs", str(runs), *embedded]
        return self._run("probes", ["pilothouse.benchmarks.pipeline.probes", *options])

    def another_governor(self, slot: str) -> Child:
        """A member of the same group, in a slot of its own."""
        child = Child(f"governor-{slot}", self.folder / f"governor-{slot}.log")
        self._beside.append(child)
        own_key = str(self.data_dir / KEYS / private_file("governor"))
        environ = {**self.environ, "PILOTHOUSE_SLOT": slot, "PILOTHOUSE_SIGNING_KEY_FILE": own_key}
        child.start([*COMMAND, "worker", "governor"], environ)
        return child

    def health(self, role: str, slot: str = "0") -> dict[str, Any]:
        """What this worker said last, if it has said anything."""
        try:
            told: dict[str, Any] = json.loads((self.data_dir / "health" / f"{role}-{slot}.json").read_text())
        except (OSError, ValueError):
            return {}
        return told

    def lag(self, role: str = "governor", slots: Iterable[str] = ("0",)) -> int:
        """Records that it has not taken yet, as its health files say; -1 while nothing is known."""
        told = [self.health(role, slot) for slot in slots]
        if not all(one.get("state") == "running" and one.get("last_offset") for one in told):
            return -1
        return sum(sum(one["lag"].values()) for one in told)

    def until_quiet(self, seconds: float) -> float:
        """Wait until the governor and the archive are behind with next to nothing; how long that took."""
        began = time.monotonic()
        quiet_since = began

        def is_quiet() -> bool:
            nonlocal quiet_since
            if not all(0 <= lag <= LEVEL for lag in (self.lag(), self.lag("archiver"))):
                quiet_since = time.monotonic()
            return time.monotonic() - quiet_since > LEVEL_SECONDS

        until(is_quiet, "nothing is behind", seconds)
        return max(0.0, quiet_since - began)

    def replayed(self, runs: Iterable[str]) -> dict[str, str]:
        """By run, what is said of it where a replay does not give the same decisions."""
        client = self.connect()
        proofs = {run: proved(client, run, _unseen) for run in runs}
        return {run: "\n".join(account_of(proof)) for run, proof in proofs.items() if proof.difference is not None}

    def _run(self, name: str, words: list[str]) -> Child:
        child = Child(name, self.folder / f"{name}.log")
        self._beside.append(child)
        child.start([sys.executable, "-P", "-m", *words], self.environ)
        return child


def _unseen(*_: object) -> None:
    """Nobody watches the progress."""
