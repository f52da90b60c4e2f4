"""The demo's own stack: `pilothouse up` in a process of its own, on free ports, for as long as the demo lasts.

`command` opens it. Nothing of the person's own settings reaches it or the ranks: a demo never writes to somebody's
production broker.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ...events.errors import UserMistake
from ...settings import PREFIX, Settings, load_settings
from ..children import Child
from ..page_token import page_of
from ..stack_file import told_by_stack, withdraw

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

START_SECONDS = 120.0
STOP_SECONDS = 20.0
COMMAND_SECONDS = 60.0
LOOK_EVERY = 0.1
MISTAKE = 2
COMMAND = (sys.executable, "-P", "-m", "pilothouse.cli.main")


class DemoStack:
    """A context manager: inside, the stack is up; after, nothing of it is left but its data directory."""

    def __init__(self, data_dir: Path, kafka_home: Path | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self._broker = () if kafka_home is None else ("--kafka-home", str(kafka_home.expanduser().absolute()))
        self._child = Child("pilothouse up", self.data_dir / "logs" / "up.log")

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a process that uses this stack, and nothing else of ours."""
        return {**without_our_settings(os.environ), f"{PREFIX}DATA_DIR": str(self.data_dir)}

    @property
    def settings(self) -> Settings:
        return load_settings(self.environ)

    @property
    def page(self) -> str:
        """The control room's address in a browser."""
        return page_of(self.data_dir, told_by_stack(self.data_dir)["page_port"])

    def connect(self) -> "Client":
        """A client of the archive."""
        from ...storage.connect import connect

        return connect(self.settings)

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """One command on this stack, in a process of its own, as a person types it."""
        return subprocess.run(
            [*COMMAND, *words], env=self.environ, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )

    def __enter__(self) -> Self:
        """
        Raises:
            UserMistake: it does not come up; with what it said.
        """
        _refuse_in_use(self.data_dir)
        withdraw(self.data_dir)  # of a stack that was killed here
        options = (
            "--data-dir",
            str(self.data_dir),
            "--kafka-port",
            "0",
            "--http-port",
            "0",
            "--page-port",
            "0",
            *self._broker,
        )
        self._child.start([*COMMAND, "up", *options], self.environ)
        try:
            self._until_up(time.monotonic() + START_SECONDS)
        except BaseException:
            self._child.stop(STOP_SECONDS)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._child.stop(STOP_SECONDS)

    def _until_up(self, deadline: float) -> None:
        while not told_by_stack(self.data_dir):
            if not self._child.alive or time.monotonic() > deadline:
                raise UserMistake(self._why_not())
            time.sleep(LOOK_EVERY)

    def _why_not(self) -> str:
        said = self._child.last_lines()
        if self._child.exit_status == MISTAKE and said:
            return said[-1].removeprefix("pilothouse: ")  # it says what to do as well as we could
        return "\n  ".join([f"the demo's stack did not come up; {self._child.log} ends:", *said])


def without_our_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without any variable that Pilothouse reads."""
    return {name: value for name, value in environ.items() if not name.startswith(PREFIX)}


def _refuse_in_use(data_dir: Path) -> None:
    pids = told_by_stack(data_dir).get("pids", {})
    if any(Path(f"/proc/{pid}").exists() for pid in pids.values()):
        raise UserMistake(
            f"a stack runs on {data_dir} already, and the demo starts its own: stop that one or take another --data-dir"
        )
