"""A wall clock that jumps, as one does that somebody sets: what runs meanwhile, the monotonic clock, goes on.

`worker_entry` installs it before anything of ours is imported; a test writes the jump, in seconds, into the file that
`CHAOS_CLOCK` names.
"""

import os
import time
from pathlib import Path

VARIABLE = "CHAOS_CLOCK"


def install() -> None:
    """From now on `time.time` and `time.time_ns` of this process are off by what the file says."""
    named = os.environ.get(VARIABLE)
    if not named:
        return
    file, real = Path(named), time.time_ns

    def shifted() -> int:
        try:
            return real() + int(float(file.read_text() or 0) * 1e9)
        except (OSError, ValueError):
            return real()  # not written yet, or half

    time.time_ns = shifted
    time.time = lambda: shifted() / 1e9


def jump(file: Path, seconds: float) -> None:
    draft = file.with_suffix(".new")
    draft.write_text(str(seconds))
    draft.replace(file)
