"""A whole stack, run as a person runs it: `pilothouse up` in a process of its own, on free ports, stopped with SIGINT.

`running_stack` is for a test that stops, kills or restarts it; the fixture `stack` is one for all, only to be used.
Commands are typed into the entry point: by `cli` in a process of their own, by `typed` in this one.
"""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pilothouse.cli.main import app
from pilothouse.events.commands import RunAnnotated
from pilothouse.producers.delivery.kafka import send_fact
from pilothouse.settings import load_settings

ANY_PORTS = ("--kafka-port", "0", "--http-port", "0")
CLI = (sys.executable, "-P", "-m", "pilothouse.cli.main")
UP_SECONDS = 480.0
"""Ten are enough on an idle laptop; a machine with twenty others at work took over a hundred for a Kafka."""


@dataclass(frozen=True)
class RunningStack:
    """`pilothouse up` on `data_dir`, and what it prints."""

    data_dir: Path
    process: "subprocess.Popen[bytes]"
    printed: Path

    @property
    def environ(self) -> dict[str, str]:
        return environ(self.data_dir)

    @property
    def told(self) -> dict[str, Any]:
        """Its stack.json."""
        told: dict[str, Any] = json.loads((self.data_dir / "stack.json").read_text())
        return told

    @property
    def pids(self) -> dict[str, int]:
        pids: dict[str, int] = self.told["pids"]
        return pids

    def cli(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """One command on this stack."""
        return typed(*arguments, data_dir=self.data_dir)

    def query(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query by the CLI."""
        answer = self.cli("sql", "--json", sql)
        assert answer.returncode == 0, answer.stderr
        return [json.loads(line) for line in answer.stdout.splitlines()]

    def archived(self, run_id: str, kind: str) -> bool:
        """Whether the archive knows an event of this kind of the run."""
        return kind in self.cli("events", run_id, "--kind", kind).stdout

    def note(self, run_id: str) -> None:
        """Tell the log something, and wait until it is history."""
        fact = RunAnnotated(
            at=time.time_ns() // 1_000, run_id=run_id, writer_id=f"note-{run_id}", seq=1, who="me", text="kept?"
        )
        self.until(lambda: self._takes(fact), "the broker takes a fact")
        self.until(lambda: self.archived(run_id, fact.kind), f"run {run_id} is archived")

    def _takes(self, fact: RunAnnotated) -> bool:
        send_fact(load_settings(self.environ), fact)
        return True

    def until_printed(self, text: str, times: int = 1, timeout: float = 60) -> None:
        self.until(lambda: self.printed.read_text().count(text) >= times, f"{text!r}", timeout)

    def until(self, holds: Callable[[], bool], what: str, timeout: float = 60) -> None:
        """Poll for a promise with a deadline; a failure shows what the stack said."""
        deadline = time.monotonic() + timeout
        while not holds():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {timeout:.0f} s: {what}; `up` said:\n{self.printed.read_text()}")
            time.sleep(0.1)

    def stop(self, number: signal.Signals = signal.SIGINT, timeout: float = 30) -> int:
        """Ask it to end; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout)


def environ(data_dir: Path) -> dict[str, str]:
    """A user's environment with no setting of ours but the directory."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PILOTHOUSE_")}
    return others | {"PILOTHOUSE_DATA_DIR": str(data_dir)}


def cli(
    *arguments: str, data_dir: Path, timeout: float = 60, more: Mapping[str, str] | None = None, text: bool = True
) -> "subprocess.CompletedProcess[Any]":
    """The command line, as a person types it."""
    env = environ(data_dir) | dict(more or {})
    return subprocess.run([*CLI, *arguments], env=env, capture_output=True, text=text, timeout=timeout, check=False)


def typed(*arguments: str, data_dir: Path, more: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """The same in this process, without the second that a fresh interpreter costs."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PILOTHOUSE_")]:
            patch.delenv(name)
        for name, value in ({"PILOTHOUSE_DATA_DIR": str(data_dir)} | dict(more or {})).items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["pilothouse", *arguments])
        patch.setattr(sys, "excepthook", sys.excepthook)  # typer sets its own
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
            app()
    return subprocess.CompletedProcess(arguments, int(end.value.code or 0), out.getvalue(), err.getvalue())


def refused(answer: "subprocess.CompletedProcess[str]") -> str:
    """The one line that says why it did not start."""
    assert answer.returncode == 2, answer.stdout + answer.stderr
    [line] = answer.stderr.splitlines()
    assert line.startswith("pilothouse: ")
    return line


@contextmanager
def running_stack(data_dir: Path, *options: str) -> Iterator[RunningStack]:
    """A stack that is up; stopped at the end, if it still runs."""
    data_dir.mkdir(parents=True, exist_ok=True)
    printed = data_dir / "up.out"
    ports = () if "--kafka-port" in options else ANY_PORTS
    if "--page-port" not in options:
        ports = (*ports, "--no-page")  # a second of CPU less
    with printed.open("wb") as output:
        process = subprocess.Popen(
            [*CLI, "up", *ports, *options], env=environ(data_dir), stdout=output, stderr=subprocess.STDOUT
        )
    stack = RunningStack(data_dir, process, printed)
    try:
        stack.until(lambda: "is up" in printed.read_text() or process.poll() is not None, "the stack is up", UP_SECONDS)
        assert process.poll() is None, printed.read_text()
        yield stack
    finally:
        try:
            stack.stop()
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """One stack for the module, on the embedded broker. Do not stop it."""
    with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running
