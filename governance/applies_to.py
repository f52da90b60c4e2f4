"""Which of several policies governs a run: exactly one, by what the run says of itself when it starts.

A policy names what it is for: model family, architecture, cluster, team, tags. What it does not name does not matter
to it. Of those that fit a run the one with the highest precedence governs it, and among equals the one that names most.
Two that could be equal for some run are refused when they are loaded (`clashes`), so that `chosen` never has to toss a
coin. The shell that activates a policy asks; the choice then stands in the log as `PolicyActivated`, and the fold knows
nothing of it.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import translate
from functools import cache
from itertools import combinations
from typing import Annotated, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ..events.telemetry import RunStarted

T = TypeVar("T")
Pattern = Annotated[str, Field(min_length=1, max_length=100)]


def _several(value: object) -> object:
    """One word stands for a list of one."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


Patterns = Annotated[
    tuple[Pattern, ...],
    Field(min_length=1, max_length=32),
    BeforeValidator(_several, json_schema_input_type=Pattern | tuple[Pattern, ...]),
]
"""One or more; a run fits when one of them does. `*` stands for any characters, `?` for one, case does not matter."""

DIMENSIONS = ("model_family", "architecture", "cluster", "team")


class Subject(NamedTuple):
    """What a run says of itself, as far as policies are chosen by it; empty where it says nothing."""

    model_family: str = ""
    architecture: str = ""
    cluster: str = ""
    team: str = ""
    tags: Mapping[str, str] = {}


class AppliesTo(BaseModel):
    """What a policy is for; nothing named means every run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_family: Patterns | None = None
    architecture: Patterns | None = None
    cluster: Patterns | None = None
    team: Patterns | None = None
    tags: Annotated[dict[Pattern, Patterns], Field(max_length=32)] = {}
    precedence: Annotated[int, Field(ge=-100, le=100)] = 0

    @property
    def named(self) -> dict[str, tuple[str, ...]]:
        """The patterns of everything that is named, tags by `tags.NAME`."""
        plain = {name: getattr(self, name) for name in DIMENSIONS}
        return {name: each for name, each in plain.items() if each} | {
            f"tags.{tag}": each for tag, each in self.tags.items()
        }

    @property
    def order(self) -> tuple[int, int]:
        """What decides between policies that fit the same run."""
        return self.precedence, len(self.named)

    def fits(self, subject: Subject) -> bool:
        return not self.misfit(subject)

    def misfit(self, subject: Subject) -> str:
        """The first thing by which a run does not fit, in words; empty for one that does."""
        for name, patterns in self.named.items():
            said = said_of(subject, name)
            if not any(_matches(pattern, said) for pattern in patterns):
                return f"{name} must be {' or '.join(patterns)}, the run says {said or 'nothing'}"
        return ""


def subject_of(started: RunStarted) -> Subject:
    """The architecture is what the configuration or a tag calls so, else the name of the model."""
    named = started.config.get("architecture") or started.tags.get("architecture")
    architecture = named if isinstance(named, str) else started.model
    return Subject(started.model_family, architecture, started.cluster, started.team, started.tags)


def said_of(subject: Subject, name: str) -> str:
    """What the run says of one dimension, or of the tag in `tags.NAME`."""
    if name.startswith("tags."):
        return subject.tags.get(name.removeprefix("tags."), "")
    said: str = getattr(subject, name)
    return said


def chosen(policies: Sequence[tuple[AppliesTo, T]], subject: Subject) -> T | None:
    """The one that governs a run; None when none is for it. `ties` has said that there cannot be two."""
    fitting = [(applies.order, policy) for applies, policy in policies if applies.fits(subject)]
    return max(fitting, key=lambda known: known[0])[1] if fitting else None


def clashes(policies: Sequence[tuple[str, AppliesTo]]) -> Iterator[str]:
    """Why these policies cannot govern together: names that stand twice, and ties."""
    counts = Counter(name for name, _ in policies)
    yield from (f"two policies are called {name}" for name in sorted(counts) if counts[name] > 1)
    yield from ties(policies)


def ties(policies: Sequence[tuple[str, AppliesTo]]) -> Iterator[str]:
    """For each two that could govern the same run with the same right: which they are, for which run, what to do."""
    for (one, its), (other, others) in combinations(policies, 2):
        if its.order == others.order and (run := _common(its.named, others.named)) is not None:
            yield (
                f"{one} and {other} would both govern {run}: let one of them name more in applies_to, or give it a "
                "higher applies_to.precedence"
            )


def _common(one: Mapping[str, tuple[str, ...]], other: Mapping[str, tuple[str, ...]]) -> str | None:
    """A run that both fit, in words; None when there is none."""
    shared: dict[str, str] = {}
    for name in dict.fromkeys([*one, *other]):
        pairs = [(its, others) for its in one.get(name, ("*",)) for others in other.get(name, ("*",))]
        meeting = next((pair for pair in pairs if _meet(*pair)), None)
        if meeting is None:
            return None
        shared[name] = max(meeting, key=lambda pattern: (pattern.count("*") + pattern.count("?") == 0, len(pattern)))
    return "a run with " + " and ".join(f"{name} {each}" for name, each in shared.items()) if shared else "every run"


def _matches(pattern: str, said: str) -> bool:
    return _compiled(pattern).fullmatch(said.casefold()) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern.casefold().replace("[", "[[]")))  # here `[` stands for itself


def _meet(one: str, other: str) -> bool:
    """Whether some text matches both patterns."""
    first, second = (re.sub(r"\*+", "*", each.casefold()) for each in (one, other))
    reached = {(0, 0)}
    waiting = [(0, 0)]
    while waiting:
        left, right = waiting.pop()
        for place in _onwards(first, left, second, right):
            if place not in reached:
                reached.add(place)
                waiting.append(place)
    return (len(first), len(second)) in reached


def _onwards(first: str, left: int, second: str, right: int) -> Iterator[tuple[int, int]]:
    mine, its = first[left : left + 1], second[right : right + 1]
    if mine == "*":
        yield left + 1, right
        if its:
            yield left, right + 1
    if its == "*":
        yield left, right + 1
        if mine:
            yield left + 1, right
    if mine and its and "*" not in (mine, its) and (mine == its or "?" in (mine, its)):
        yield left + 1, right + 1
