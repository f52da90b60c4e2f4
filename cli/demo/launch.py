"""Starts the ranks of one run, as torchrun would on one machine, and ends them together.

`story` uses it for each run of the demo, `benchmarks.quiet` for each seed. A rank is a child process with its own log
file; when one fails, the others are stopped, for they would wait for it for ever.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from ...events.errors import PilothouseError
from ..brokers import HOST, free_port
from ..children import Child, stop_all
from .recipe import Recipe

STOP_SECONDS = 10.0
LAST_LINES = 12


class RankFailed(PilothouseError):
    """A rank ended with an error; the message has the end of its log."""


class Ranks:
    """The ranks of one run. Use it as a context manager: whatever happens inside, none outlives it."""

    def __init__(self, recipe: Recipe, world_size: int, logs: Path, environ: Mapping[str, str]) -> None:
        self._recipe = recipe
        self._environ = environ
        self._children = [Child(f"rank {rank}", logs / f"rank-{rank}.log") for rank in range(world_size)]

    @property
    def pids(self) -> list[int]:
        """By rank."""
        return [child.pid for child in self._children]

    def __enter__(self) -> Self:
        meeting = {"MASTER_ADDR": HOST, "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
        # -P: the folder that the demo is started in may hold a file named like a module.
        command = [sys.executable, "-P", "-m", f"{__package__}.train", self._recipe.text()]
        for rank, child in enumerate(self._children):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(len(self._children))}
            child.start(command, {**self._environ, **meeting, **place})
        return self

    def __exit__(self, *_: object) -> None:
        stop_all(self._children, STOP_SECONDS)

    def ended(self) -> bool:
        """Whether all ranks have ended well.

        Raises:
            RankFailed: one has not.
        """
        for child in self._children:
            if child.exit_status not in (None, 0):
                how = f"{child.name} of {self._recipe.run_id} ended with status {child.exit_status}"
                raise RankFailed("\n    ".join([f"{how}; {child.log} ends:", *child.last_lines(LAST_LINES)]))
        return not any(child.alive for child in self._children)
