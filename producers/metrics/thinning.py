"""Which metrics leave which rank at which steps: a rule of the run, told where it begins and counted where it acts.

A thousand ranks that log what one does tell the same thing a thousand times. So, by the last part of a metric's name
(of `train/data_wait_s`, `data_wait_s`):

1. Loss, gradient norm and learning rate (`events.metric_names.JUDGED`) are never left out, on no rank and at no step:
   thinning hides no NaN and changes neither `Finite` nor `Stable`; blocks of time and comparisons of ranks see fewer
   rows.
2. What a pattern of `every` names (`{"layer/*": 100}`, the whole name, the first that fits) is kept on all ranks, at
   the steps that its number divides.
3. Everything else is kept by rank 0; by the other ranks only what differs from rank to rank by its nature: times,
   throughput and norms (`is_local`).
4. A bare number (`every=10`) is how often what 3 keeps is kept.

A row of which nothing is left keeps its step and its time, for readers wait until every rank has come to a step. Steps
decide, not counters: all ranks keep the same ones. Pure; asked by `metrics.values` before a GPU is, and by
`delivery.outbox` for the rest.
"""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from ...events.errors import UserMistake
from ...events.metric_names import JUDGED
from ..plain import shown

Every = int | Mapping[str, int]
Value = TypeVar("Value")

MAX_INTERVAL = 2**31
MAX_PATTERNS = 100
CACHED_NAMES = 1_000
LABEL = "thinning"
"""The tag of `RunStarted` that tells the rule."""

LABEL_CHARS = 1_000
_LOCAL = re.compile(
    r"(^|_)(norms?|times?|duration|latency|wait|seconds|secs?|ms|us|ns|s)($|_)|(^|_)(tokens|samples|examples)($|_)|throughput"
)


def is_local(name: str) -> bool:
    """Whether a metric differs from rank to rank by its nature: a time, a throughput, a norm."""
    return _LOCAL.search(name.rpartition("/")[2].lower()) is not None


class Thinning:
    """The rule as one rank follows it. Its methods may be called from any thread."""

    def __init__(self, every: Every = 1, rank: int = 0) -> None:
        self._interval = every if isinstance(every, int) else 1
        self._patterns = () if isinstance(every, int) else tuple(every.items())
        self._rank = rank
        self._intervals: dict[str, int] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing is ever left out."""
        return self._rank == 0 and self._interval == 1 and all(interval == 1 for _, interval in self._patterns)

    def kept(self, step: int, metrics: Mapping[str, Value]) -> Mapping[str, Value | None]:
        """What of one row is kept: `metrics` itself where all is, the first name with None where nothing is."""
        kept = {name: value for name, value in metrics.items() if self._keeps(name, step)}
        if len(kept) == len(metrics):
            return metrics
        return kept or {next(iter(metrics)): None}

    def _keeps(self, name: str, step: int) -> bool:
        interval = self._intervals.get(name, -1)
        if interval < 0:
            interval = self._interval_of(name)
            if len(self._intervals) < CACHED_NAMES:
                self._intervals[name] = interval
        return interval == 1 or (interval > 0 and step % interval == 0)

    def _interval_of(self, name: str) -> int:
        """The steps that this divides keep the metric; 0: none does."""
        if name in JUDGED:
            return 1
        named = next((interval for pattern, interval in self._patterns if fnmatchcase(name, pattern)), None)
        if named is not None:
            return named
        return self._interval if self._rank == 0 or is_local(name) else 0


def left_out(metrics: Mapping[str, object], kept: Mapping[str, object]) -> int:
    """How many values of a row the rule left out."""
    return 0 if kept is metrics else _values(metrics) - _values(kept)


def _values(metrics: Mapping[str, object]) -> int:
    return sum(value is not None for value in metrics.values())


def said(every: Every, world_size: int) -> dict[str, str]:
    """The rule for people, as a tag of the run; none where every rank tells everything."""
    rules = [f"every {every} steps"] if isinstance(every, int) and every > 1 else []
    if not isinstance(every, int):
        rules += [f"{pattern}: every {interval} steps on every rank" for pattern, interval in every.items()]
    if world_size > 1:
        rules.append("ranks above 0: times, throughput, norms")
    if not rules:
        return {}
    return {LABEL: "; ".join(("loss, grad_norm, lr: always", *rules))[:LABEL_CHARS]}


def refuse_mistakes(every: object) -> None:
    """
    Raises:
        UserMistake: `every` is neither a whole number from 1 nor patterns with such numbers.
    """
    given = every if isinstance(every, Mapping) else {"*": every}
    if len(given) > MAX_PATTERNS:
        raise UserMistake(f"start_run: every has {len(given)} patterns; {MAX_PATTERNS} are possible")
    for pattern, interval in given.items():
        whole = isinstance(interval, int) and not isinstance(interval, bool) and 1 <= interval < MAX_INTERVAL
        if not isinstance(pattern, str) or not pattern or not whole:
            got = shown(every) if given is not every else f"{shown(interval)} for {shown(pattern)}"
            raise UserMistake(
                "start_run: every must be a whole number of steps from 1, such as 10, or numbers by name, "
                f"such as {{'layer/*': 100}}; got {got}"
            )
