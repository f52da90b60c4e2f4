"""What a worker says of itself, once a second, in `data_dir/health/<role>-<slot>.json`: progress, not mere life.

Written by `process`; read by the supervisor and by `pilothouse` commands.
"""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from .log import Source


class HealthFile:
    """Replaced as a whole each time: a reader never sees half of it."""

    def __init__(self, data_dir: Path, role: str, slot: str) -> None:
        self._path = data_dir / "health" / f"{role}-{slot}.json"
        self._identity = {"role": role, "slot": slot, "pid": os.getpid()}

    def write(
        self, state: str, records: int, next_offsets: Mapping[Source, int], ends: Mapping[Source, int], last_error: str
    ) -> None:
        """`ends` are the high watermarks seen in fetches: lag is told only where one is known."""
        lag = {_name(source): max(0, ends[source] - at) for source, at in next_offsets.items() if source in ends}
        report = {
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
        draft.write_text(json.dumps(report))
        draft.replace(self._path)


def _name(source: Source) -> str:
    return f"{source.topic}/{source.partition}"
