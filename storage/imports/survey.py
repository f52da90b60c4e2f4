"""Reads a log once from end to end, before anything is written: whether all of it can be read, and what is in it.

The digest is of what the log says, not of the file that says it: the same run copied, renamed or in another database
is the same run. Memory grows with the number of names, not of steps. Called by `cli.importing`, before `arranging`.
"""

import json
import math
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from ...events.errors import FileRefused
from ...events.metric_names import LOSS_NAMES
from .names import Naming, place_of, renaming
from .source import Item, Said, Source

MAX_NAMES = 10_000
BINS = 8
"""To an octave: a usual distance is known to some five per cent."""
FAR = 1.9
"""A series that counts so many times faster or slower than the main one counts something else."""


@dataclass(slots=True)
class Series:
    """One name: how often it was told, and how fast its steps counted, as a distribution of bins."""

    count: int = 0
    last: tuple[int, int] = (0, 0)
    """Step and time."""
    speeds: Counter[int] = field(default_factory=Counter)

    def add(self, step: int, at: int) -> None:
        steps, passed = step - self.last[0], at - self.last[1]
        if self.count and steps > 0 and passed > 0:
            self.speeds[_bin(steps / passed)] += 1
        self.count += 1
        self.last = (step, at)

    @property
    def speed(self) -> float | None:
        """Steps a microsecond, usually; None where it cannot be told."""
        return _median(self.speeds)


@dataclass
class Survey:
    """What one reading of a log found. Times are microseconds, of the log's own clock; `pace` is the usual time from
    one step to the next, None without a clock.
    """

    said: Said
    naming: Naming
    digest: str
    items: int
    first_at: int | None
    last_at: int | None
    pace: float | None


@dataclass
class _Count:
    items: int = 0
    names: dict[str, Series] = field(default_factory=dict)
    gaps: Counter[int] = field(default_factory=Counter)
    first_at: int | None = None
    last_at: int | None = None
    step: int | None = None
    began_at: int | None = None

    def take(self, item: Item) -> None:
        self.items += 1
        if item.at is not None:
            self.first_at = item.at if self.first_at is None else min(self.first_at, item.at)
            self.last_at = item.at if self.last_at is None else max(self.last_at, item.at)
        if item.step is None:
            return
        for name in item.values:
            self.names.setdefault(name, Series()).add(item.step, item.at or 0)
        if item.step != self.step:
            if self.began_at is not None and item.at is not None and item.at > self.began_at:
                self.gaps[_bin(item.at - self.began_at)] += 1
            self.step, self.began_at = item.step, item.at


def survey(source: Source, wanted: Mapping[str, str], seen: Callable[[int], None] = lambda _: None) -> Survey:
    """Read all of it. `wanted` is theirs by ours, as a person mapped them; `seen` is told of progress, in items.

    Raises:
        FileRefused: it cannot be read to its end, or says nothing.
    """
    said = source.said()
    digest = sha256(_canonical(_stated(said)))
    count = _Count()
    for item in source.items():
        count.take(item)
        _add(digest, item)
        if len(count.names) > MAX_NAMES:
            raise FileRefused(f"{source.path}: has over {MAX_NAMES} series")
        if count.items % 10_000 == 0:
            seen(count.items)
    if not count.names:
        raise FileRefused(f"{source.path}: holds no number of any step")
    _refuse_missing(source, wanted, count.names)
    metrics = {ours: theirs for ours, theirs in wanted.items() if ours not in ("step", "time")}
    naming = Naming(renaming(count.names, metrics))
    aside = _aside(count.names, naming) if said.clock == "wall" else frozenset()
    digest.update(_canonical(metrics))
    return Survey(
        said=said,
        naming=naming._replace(aside=aside),
        digest=digest.hexdigest(),
        items=count.items,
        first_at=count.first_at,
        last_at=count.last_at,
        pace=_median(count.gaps),
    )


def _refuse_missing(source: Source, wanted: Mapping[str, str], names: Iterable[str]) -> None:
    present = list(names)
    for ours, theirs in wanted.items():
        if ours not in ("step", "time") and theirs not in present:
            listed = ", ".join(present[:8]) + (", …" if len(present) > 8 else "")
            raise FileRefused(f"{source.path}: has no {theirs!r} (--map {ours}={theirs}); there are {listed}")


def _aside(names: Mapping[str, Series], naming: Naming) -> frozenset[str]:
    """Series that count epochs or samples where the others count steps: told by their speed."""
    main = _main(names, naming)
    usual = names[main].speed
    if usual is None:
        return frozenset()
    return frozenset(
        name
        for name, series in names.items()
        if (speed := series.speed) is not None and not 1 / FAR < speed / usual < FAR
    )


def _main(names: Mapping[str, Series], naming: Naming) -> str:
    """The loss, or, where there is none, the series with most values."""
    judged = [name for name in names if naming.renamed.get(name) == "loss"]
    judged += [name for name in LOSS_NAMES if name in names]
    if judged:
        return judged[0]
    trained = [name for name in names if not place_of(name, naming).split] or list(names)
    return max(trained, key=lambda name: names[name].count)


def _bin(value: float) -> int:
    return round(BINS * math.log2(value))


def _median(bins: "Counter[int]") -> float | None:
    half, seen = sum(bins.values()) / 2, 0
    for number in sorted(bins):
        seen += bins[number]
        if seen >= half:
            return float(2 ** (number / BINS))
    return None


def _stated(said: Said) -> dict[str, Any]:
    """What a log says for good; the rest is where and when it was read."""
    return {"config": said.config, "tags": said.tags, "outcome": said.outcome, "started_at": said.started_at}


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode(errors="replace")


def _add(digest: Any, item: Item) -> None:
    at, step = -1 if item.at is None else item.at, -1 if item.step is None else item.step
    digest.update(struct.pack("<qqI", at, step, len(item.values)))
    for name, value in item.values.items():
        digest.update(name.encode(errors="replace"))
        digest.update(struct.pack("<d", value))
