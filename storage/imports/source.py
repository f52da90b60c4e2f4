"""What a reader gives of one run that others logged: what is said of it, and its values in the order of the log.

Implemented by the readers, found by `finding`; read by `survey` and `arranging`. Reading may be done any number of
times and always gives the same; a reader holds no more of a log in memory than a line (`huggingface`, and
`mlflow_store` for a folder of very many metrics: all of it), and never writes.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from ...events.telemetry import Outcome

Clock = Literal["wall", "elapsed", "none"]
"""What times of a log are: of day, since the beginning of the run, or there are none."""
MAX_MICROS = 253_402_300_800 * 10**6
"""The year 10,000."""
MAX_STEP = 2**62


class Item(NamedTuple):
    """Named values of one step; `at` is microseconds (None where there is no clock), `step` None for values of the
    machine, which belong to no step.
    """

    at: int | None
    step: int | None
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class Said:
    """What a log says of its run beside its values.

    `outcome` is `lost` where the log tells ends and this one has none, None where its format never tells any.
    `runtime_s` is the whole run's, for logs without a clock.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    code_version: str = ""
    model: str = ""
    clock: Clock = "wall"
    started_at: int | None = None
    ended_at: int | None = None
    runtime_s: float | None = None
    outcome: Outcome | Literal["lost"] | None = None
    error: str = ""


class Source(Protocol):
    """One run in somebody's files.

    Both methods raise `FileRefused` where the files are not what they should be.
    """

    @property
    def format(self) -> str: ...
    @property
    def name(self) -> str:
        """What the run is called where nobody says otherwise."""

    @property
    def path(self) -> Path:
        """The file or folder that a person is told about."""

    def said(self) -> Said: ...
    def items(self) -> Iterator[Item]: ...


def as_number(value: object) -> float | None:
    """A number of JSON, or one of the texts that stand for those that JSON does not know; None for all else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str) and value.lstrip("+-").lower() in ("nan", "inf", "infinity"):
        return float(value)
    return None


def as_step(value: float | None) -> int | None:
    """A step, if it is one: whole, and not below nought."""
    if value is None or not math.isfinite(value) or value != int(value) or not 0 <= value < MAX_STEP:
        return None
    return int(value)


def micros(seconds: float) -> int | None:
    """Microseconds of a time in seconds; None for what can be no time."""
    if not math.isfinite(seconds) or not 0 <= seconds < MAX_MICROS / 1e6:
        return None
    return round(seconds * 1e6)


def moment(text: str) -> int | None:
    """Microseconds of an ISO 8601 time (UTC where it names no zone); None if it is none."""
    try:
        parsed = datetime.fromisoformat(text.strip())
        return micros((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError, OSError):
        return None
