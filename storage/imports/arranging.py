"""Puts a log's values together as a loop would have told them: one row a step, evaluations apart, attempts told.

Trackers keep single values; those that stand together and are of one step are one row. A step number that goes back is
a restart when the next goes on behind the old ones too; a single late row is only that. Steps that begin anew with each
`epoch` are counted on. Pure; between a reader's
`Item`s and `telling`.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .names import OTHER_AXIS, Naming, place_of
from .source import MAX_STEP, Item

EPOCH = "epoch"
MOST_AHEAD = 10_000
"""So much that is no row may stand between two, while it is found out whether the run began again."""


class Row(NamedTuple):
    """What was logged of one step. `restarts`: with it the run begins again, from here."""

    at: int | None
    step: int
    values: dict[str, float]
    restarts: bool = False


class Evaluation(NamedTuple):
    """What an evaluation gave; of one step and one split."""

    at: int | None
    step: int
    split: str
    values: dict[str, float]


class Sample(NamedTuple):
    """What the machine did."""

    at: int
    values: dict[str, float]


Arranged = Row | Evaluation | Sample


def arranged(items: Iterable[Item], naming: Naming) -> Iterator[Arranged]:
    """The items in their order, put together and called by our names."""
    return _with_restarts(_merged(items, naming))


class _Step:
    """The step that is being put together."""

    def __init__(self, item: Item) -> None:
        assert item.step is not None, "values of the machine are told at once"
        self.step = item.step
        self.at: int | None = None
        self.values: dict[str, float] = {}
        self.evaluated: dict[str, Evaluation] = {}

    def takes(self, item: Item, naming: Naming) -> bool:
        """False where it has these values already: the same step was logged again."""
        told: dict[str, float] = {}
        judged: dict[str, dict[str, float]] = {}
        for name, value in item.values.items():
            place = place_of(name, naming)
            (judged.setdefault(place.split, {}) if place.split else told)[place.name] = value
        known = {split: self.evaluated[split].values for split in judged if split in self.evaluated}
        if _contradicts(told, self.values) or any(_contradicts(judged[split], known[split]) for split in known):
            return False
        if told and not self.values:
            self.at = item.at
        self.values |= told
        for split, values in judged.items():
            self.evaluated.setdefault(split, Evaluation(item.at, self.step, split, {})).values.update(values)
        return True

    def told(self) -> Iterator[Row | Evaluation]:
        if self.values:
            yield Row(self.at, self.step, self.values)
        yield from self.evaluated.values()


def _contradicts(told: dict[str, float], known: dict[str, float]) -> bool:
    """Whether something is said again, and otherwise."""
    return any(repr(value) != repr(known[name]) for name, value in told.items() if name in known)


def _merged(items: Iterable[Item], naming: Naming) -> Iterator[Arranged]:
    current: _Step | None = None
    for item in items:
        if item.step is None:
            if item.at is not None:
                yield Sample(item.at, item.values)
            continue
        if naming.aside and (aside := _aside(item, naming)):
            yield from aside
            left = {name: value for name, value in item.values.items() if name not in naming.aside}
            if not left:
                continue
            item = item._replace(values=left)  # noqa: PLW2901  # what is left of it
        if current is not None and current.step == item.step and current.takes(item, naming):
            continue
        if current is not None:
            yield from current.told()
        current = _Step(item)
        current.takes(item, naming)
    if current is not None:
        yield from current.told()


def _aside(item: Item, naming: Naming) -> list[Evaluation]:
    """Of series with steps of their own; each stands alone, or they would cut the rows of the others apart."""
    assert item.step is not None
    by_split: dict[str, dict[str, float]] = {}
    for name in item.values:
        if name in naming.aside:
            place = place_of(name, naming)
            by_split.setdefault(place.split or OTHER_AXIS, {})[place.name] = item.values[name]
    return [Evaluation(item.at, item.step, split, values) for split, values in by_split.items()]


class _Count:
    """The steps so far. Where they begin anew with each epoch, `offset` makes one count of them."""

    def __init__(self) -> None:
        self.high = -1
        self.offset = 0
        self._spacing = 1
        self._epoch = math.inf

    def continues(self, row: Row) -> None:
        """Of a row behind the others: whether only its epoch is another."""
        if row.step + self.offset < self.high and row.values.get(EPOCH, -math.inf) > self._epoch:
            self.offset = self.high + self._spacing - row.step

    def takes(self, row: Row) -> None:
        """Of a row that is numbered as it will be told."""
        if row.step > self.high >= 0:
            self._spacing = row.step - self.high
        self.high = row.step
        self._epoch = row.values.get(EPOCH, self._epoch)


def _with_restarts(told: Iterable[Arranged]) -> Iterator[Arranged]:
    count = _Count()
    waiting: deque[Arranged] = deque()
    coming = iter(told)
    while (one := waiting.popleft() if waiting else next(coming, None)) is not None:
        if isinstance(one, Row):
            count.continues(one)
        if not isinstance(one, Sample):
            one = one._replace(step=min(one.step + count.offset, MAX_STEP - 1))
        if isinstance(one, Row) and one.step >= count.high:
            count.takes(one)
        elif isinstance(one, Row):
            following = _next_row(waiting, coming)
            if following is not None and following.step + count.offset <= count.high:
                one = one._replace(restarts=True)
                count.takes(one)
        yield one


def _next_row(waiting: "deque[Arranged]", coming: Iterator[Arranged]) -> Row | None:
    for one in waiting:
        if isinstance(one, Row):
            return one
    for one in coming:
        waiting.append(one)
        if isinstance(one, Row) or len(waiting) >= MOST_AHEAD:
            return one if isinstance(one, Row) else None
    return None
