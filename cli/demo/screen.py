"""What a person sees while the demo runs: lines that stay, and at a terminal one that changes.

Made by `command`, written to by `story`. On a pipe the changing line is printed now and then, as a line like any other.
"""

import time
from typing import Self

from rich.console import Console

from .watch import Standing

LIVE_SECONDS, EVERY_SECONDS = 0.7, 2.0


class Screen:
    """A context manager around the live part of the demo."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.status("") if console.is_terminal else None
        self._printed_at = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def look_every(self) -> float:
        """Seconds between two looks: more would be shown to nobody, and a look costs the archive a tenth of one."""
        return EVERY_SECONDS if self._live is None else LIVE_SECONDS

    def stop(self) -> None:
        """The live part is over; what is printed from here on is the report."""
        if self._live is not None:
            self._live.stop()

    def title(self, text: str) -> None:
        """What begins now."""
        self._console.print(f"[bold]{text}[/]", highlight=False)
        self.busy("starting the ranks…")

    def say(self, line: str) -> None:
        """Something happened."""
        self._console.print(f"  {line}", markup=False, highlight=False, soft_wrap=not self._console.is_terminal)

    def busy(self, what: str) -> None:
        """Nothing is to be seen yet, for this reason."""
        if self._live is not None:
            self._live.update(what)

    def stands(self, standing: Standing) -> None:
        """How the run stands now."""
        if self._live is not None:
            self._live.update(str(standing))
        elif time.monotonic() - self._printed_at >= EVERY_SECONDS:
            self._printed_at = time.monotonic()
            self.say(str(standing))
