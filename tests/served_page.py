"""The control room as `pilothouse serve` serves it, over an archive of a few runs: for tests of the page in a browser.

There is no broker: what is ordered cannot be delivered. Where a whole stack is wanted, `stack_fixture` has one.
"""

import json
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pilothouse.cli.brokers import free_port
from pilothouse.tests.archived_runs import HEAL, RunArchive, broken
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.stack_fixture import CLI, environ

WAITS, HEALED, WELL = "waits-1", "healed-1", "well-1"
SECONDS = 120.0
"""For a process to begin or to end, however loaded the machine is."""
ROLES = ("viewer", "operator", "admin")
ASK = """
name: ask-first
mode: enforce
bounds: {lr_multiplier: {min: 0.05, max: 1.0, ratio: 4}}
rules:
  - name: cut-learning-rate
    when: conditions.Finite == 'False'
    severity: page
    runbook: Look at the data first.
    actions: [{action: scale_lr, factor: 0.5}]
    approval: {by: human, timeout_seconds: 86400, default: decline}
    ttl_steps: 100000
"""


def token(role: str) -> str:
    return f"a-token-for-the-{role}"


def straggling(step: int, rank: int) -> dict[str, float]:
    """The second rank takes twice as long from the thirtieth step on."""
    return {"step_s": 1.0 + (rank == 1 and step > 30), "compute_s": 0.5}


def keep_runs(archive: RunArchive) -> None:
    """One that waits for a person, one that was healed and has ended, one that is well."""
    waits = GovernedRun(world=3, run_id=WAITS, loss=broken, beside=straggling)
    archive.keep(waits.begin(ASK, model="gpt", cost_per_hour=24.0).train(62, steps_per_tick=2))
    healed = GovernedRun(world=2, run_id=HEALED, loss=broken)
    archive.keep(healed.begin(HEAL, model="gpt", cost_per_hour=8.0).train(100, steps_per_tick=2).end())
    archive.keep(GovernedRun(world=2, run_id=WELL).begin(ASK).train(30, steps_per_tick=2))


class ServedPage:
    """`pilothouse serve` on one port, which may be stopped and begun again."""

    def __init__(self, folder: Path, clickhouse_url: str) -> None:
        self._folder, self._url, self.port = folder, clickhouse_url, free_port()
        self._tokens = folder / "tokens.json"
        self._tokens.write_text(json.dumps([{"name": role, "role": role, "token": token(role)} for role in ROLES]))
        self._process: subprocess.Popen[bytes] | None = None

    def address(self, role: str = "admin") -> str:
        """As it is opened by somebody of this role."""
        return f"http://127.0.0.1:{self.port}/#token={token(role)}"

    def begin(self) -> None:
        """Until it answers."""
        options = ("--port", str(self.port), "--tokens", str(self._tokens), "--quiet")
        told = environ(self._folder) | {"PILOTHOUSE_CLICKHOUSE_URL": self._url}
        with (self._folder / "serve.log").open("ab") as log:
            self._process = subprocess.Popen([*CLI, "serve", *options], env=told, stdout=log, stderr=log)
        deadline = time.monotonic() + SECONDS
        while not self._answers():
            assert self._process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.1)

    def end(self) -> int:
        """By SIGTERM; its exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(SECONDS)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def said(self) -> str:
        return (self._folder / "serve.log").read_text()

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=5).close()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        return True


@contextmanager
def served_page(folder: Path, clickhouse_url: str) -> Iterator[ServedPage]:
    """Served, until the end."""
    page = ServedPage(folder, clickhouse_url)
    page.begin()
    try:
        yield page
    finally:
        page.kill()
