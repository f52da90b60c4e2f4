"""What a worker says of itself, once a second, in `data_dir/health/<role>-<slot>.json`: progress, not mere life.

Written by `process`; read by the supervisor and by `pilothouse` commands. `fitness` is what a prober makes of it: the
same for `pilothouse health`, for HTTP probes (`probes`) and for `pilothouse doctor`.
"""

import json
import os
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from .log import Source

STALE_SECONDS = 30.0
"""A worker that has said nothing for so long hangs, or is gone."""


class Fitness(NamedTuple):
    """`live` false: start it again. `ready` false: it lives and does no work yet, or none now; `why` says which."""

    live: bool
    ready: bool
    why: str


def fitness(told: Mapping[str, Any], now: int) -> Fitness:
    """What a worker's last words mean at `now`, in microseconds since the epoch. No words at all: it is not there."""
    if not told:
        return Fitness(False, False, "it has not said anything")
    if told.get("state") == "stopped":
        return Fitness(False, False, "it was stopped")
    at = told.get("at")
    silent = (now - at) / 1e6 if isinstance(at, int) else float("inf")
    if silent > STALE_SECONDS:
        return Fitness(False, False, f"it has said nothing for {silent:.0f} s")
    if told.get("state") != "running":
        return Fitness(True, False, "it waits for its partitions")
    if told.get("last_error"):
        return Fitness(True, False, str(told["last_error"]))
    return Fitness(True, True, "it works")


def health_file(data_dir: Path, role: str, slot: str) -> Path:
    """Where a worker tells."""
    return data_dir / "health" / f"{role}-{slot}.json"


def read_health(file: Path) -> dict[str, Any]:
    """A worker's last words; none where it has not said any that can be read."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


class HealthFile:
    """Replaced as a whole each time: a reader never sees half of it."""

    def __init__(self, data_dir: Path, role: str, slot: str) -> None:
        self.last: dict[str, Any] = {}
        self._path = health_file(data_dir, role, slot)
        self._identity = {
            "role": role,
            "slot": slot,
            "pid": os.getpid(),
            "version": version("pilothouse"),
            "began_at": time.time_ns() // 1_000,
        }

    def write(
        self, state: str, records: int, next_offsets: Mapping[Source, int], ends: Mapping[Source, int], last_error: str
    ) -> None:
        """`ends` are the high watermarks seen in fetches: lag is told only where one is known."""
        lag = {_name(source): max(0, ends[source] - at) for source, at in next_offsets.items() if source in ends}
        self.last = {
            **self._identity,
            "at": time.time_ns() // 1_000,
            "state": state,
            "records": records,
            "lag": lag,
            "last_offset": {_name(source): at - 1 for source, at in next_offsets.items()},
            "last_error": last_error,
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".new")
        draft.write_text(json.dumps(self.last))
        draft.replace(self._path)


def _name(source: Source) -> str:
    return f"{source.topic}/{source.partition}"
