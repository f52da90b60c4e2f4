"""The inline tests of a policy: made series, and what must be seen when the real fold judges them.

This is their shape only, with the notation of their series, which is promtool's: `2.0+0x40` is 2.0 and forty times the
value before plus 0; `9x5` is 9 and five times 9 again; `_` is a value that was not logged, `nan` and `inf` are values.
`~0.02` behind a term adds noise of that deviation, the same in every run. `stream_processors.trial` runs them.
"""

import math
import re
from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from ..events.actions import Action, ActionKind
from ..events.decisions import ConditionType, Mode, Phase, Status
from ..events.metric_names import GRAD_NAMES, LOSS_NAMES, TOLD

MAX_ENTRIES = 2_000
"""Of a series: a test is a story, not a benchmark."""
METRICS = (*LOSS_NAMES, *GRAD_NAMES, "val_loss", *(name for names in TOLD.values() for name in names))
"""What a series may be called: what a trainer logs and is judged by, and `val_loss` for evaluations."""

_NUMBER = r"[-+]?(?:nan|inf|(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)"
_TERM = re.compile(
    rf"(_|{_NUMBER})(?:([-+](?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)?x(\d+))?(?:~((?:\d+\.?\d*|\.\d+)))?", re.IGNORECASE
)
Fate = Literal[
    "proposed", "declined", "issued", "applied", "rejected", "failed", "expired", "recovered", "ineffective",
    "inconclusive", "reverted",
]  # fmt: skip


def expanded(notation: str) -> tuple[float | None, ...]:
    """The values of a series; None where nothing is logged.

    Raises:
        ValueError: which term is wrong, and how one is written.
    """
    values: list[float | None] = []
    for term in notation.split():
        found = _TERM.fullmatch(term)
        if found is None or (found[1] == "_" and (found[2] or found[4])):
            raise ValueError(f"{term!r} is no term of a series; write 2.0, 2.0x40, 2.0+0.1x40, 2.0x40~0.02, nan or _x5")
        start, slope, times, noise = found.groups()
        if len(values) + int(times or 0) >= MAX_ENTRIES:
            raise ValueError(f"a series has at most {MAX_ENTRIES} values")
        for index in range(int(times or 0) + 1):
            steady = None if start == "_" else float(start) + index * float(slope or 0.0)
            values.append(steady if steady is None or not noise else steady + float(noise) * _noise(len(values)))
    if not values:
        raise ValueError("a series has at least one value")
    return tuple(values)


def _noise(index: int) -> float:
    """Of deviation 1 and always the same: the old shader's hash, two of them made a normal deviate (Box and Muller)."""
    one, other = (_fraction(math.sin(12.9898 * index + seed) * 43758.5453) for seed in (78.233, 37.719))
    return math.sqrt(-2.0 * math.log(1.0 - one)) * math.cos(2.0 * math.pi * other)


def _fraction(value: float) -> float:
    return value - math.floor(value)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def _as_text(value: object) -> object:
    """Unquoted, YAML takes True and False for truth values; here they are the statuses."""
    return str(value) if isinstance(value, bool) else value


def _number_as_text(value: object) -> object:
    """`loss: 2.0` is a series of one value, `at: 3` a span of one entry."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _judged(metric: str) -> str:
    if metric not in METRICS:
        near = get_close_matches(metric, METRICS, n=1)
        meant = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(METRICS)}"
        raise ValueError(f"no run is judged by {metric!r}; {meant}")
    return metric


def _readable(notation: str) -> str:
    expanded(notation)
    return notation


Metric = Annotated[str, AfterValidator(_judged)]
Notation = Annotated[
    str,
    Field(max_length=8_000),
    AfterValidator(_readable),
    BeforeValidator(_number_as_text, json_schema_input_type=str | float),
]
Said = Annotated[Status, BeforeValidator(_as_text, json_schema_input_type=Status | bool)]
Span = Annotated[
    str, Field(pattern=r"^\d{1,6}(\.\.\d{1,6})?$"), BeforeValidator(_number_as_text, json_schema_input_type=int | str)
]
"""An entry of the series, counted from 0, or a span of them: `0..39`, both included."""
Entry = Annotated[int, Field(ge=0, le=MAX_ENTRIES)]


class Expected(_Part):
    """One intervention that must be proposed: by which rule, what, perhaps with which values and to what end."""

    rule: str
    action: ActionKind
    having: dict[str, float | int | str | bool] = {}
    outcome: Fate | None = None


class Expectation(_Part):
    """What must be seen at an entry, or at each entry of a span. What is not named is not looked at.

    `alarms` are all the rules that hold then, long enough to act; `interventions` all that are proposed then, in order.
    """

    at: Span
    phase: Phase | None = None
    conditions: dict[ConditionType, Said] = {}
    alarms: tuple[str, ...] | None = None
    interventions: tuple[Expected, ...] | None = None

    @property
    def span(self) -> range:
        first, _, last = self.at.partition("..")
        return range(int(first), int(last or first) + 1)

    @field_validator("at")
    @classmethod
    def _runs_forward(cls, at: str) -> str:
        first, _, last = at.partition("..")
        if last and int(last) < int(first):
            raise ValueError(f"{at} runs backwards: write {last}..{first}")
        return at


class Person(_Part):
    """What a person answers to the oldest proposal that waits, behind this entry."""

    at: Entry
    says: Literal["approve", "decline"]


class Advised(_Part):
    """What an advisor answers to the oldest question that is open, behind this entry; without an action, nothing."""

    at: Entry
    proposes: Action | None = None


class Trial(_Part):
    """One inline test: a training of so many entries, and what must be seen.

    Each entry is a step that every rank reports, `interval` seconds after the last. Data never goes back: behind a
    rollback or skipped batches the series go on where the data does.
    """

    name: Annotated[str, Field(min_length=1, max_length=200)]
    series: Annotated[dict[Metric, Notation], Field(min_length=1, max_length=32)]
    mode: Mode | None = None
    ranks: Annotated[int, Field(ge=1, le=8)] = 1
    interval: Annotated[int, Field(ge=1, le=30)] = 1
    checkpoints: Annotated[int, Field(ge=0, le=MAX_ENTRIES)] = 10
    steers: tuple[ActionKind, ...] | None = None
    obeys: bool = True
    people: Annotated[tuple[Person, ...], Field(max_length=32)] = ()
    advice: Annotated[tuple[Advised, ...], Field(max_length=32)] = ()
    expect: Annotated[tuple[Expectation, ...], Field(min_length=1, max_length=64)]

    @property
    def values(self) -> dict[str, tuple[float | None, ...]]:
        return {name: expanded(notation) for name, notation in self.series.items()}
