"""What the supervisor must do now: a pure function of what it sees. No I/O; time is an argument (seconds, monotonic).

`supervisor` looks at its parts, asks `plan` what to do, does it in that order, and tells `started` and `ended` what
happened. The order is the point: a broker that died takes its workers along, for what they remember of its log may be
of another log now; an archive or a worker that died alone is started again alone.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum, auto
from typing import NamedTuple

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
STEADY_SECONDS = 60.0
"""A part that lived so long may die again without being suspected of anything."""
REPORTED_DEATHS = 3
"""From this many deaths in a row on a person is shown the log's last lines."""


class Part(StrEnum):
    """The parts of a stack, in the order in which they start."""

    BROKER = auto()
    ARCHIVE = auto()
    GOVERNOR = auto()
    ARCHIVER = auto()
    ADVISOR = auto()
    CONTROL_ROOM = auto()


WORKERS = (Part.GOVERNOR, Part.ARCHIVER, Part.ADVISOR)
"""The advisor is there where a policy asks for it, or a person did."""
READERS = (Part.ARCHIVE, Part.CONTROL_ROOM)
"""What runs on without a log."""


class Sight(StrEnum):
    """How a part looks from outside. `STUCK`: it lives and makes no progress."""

    RUNNING = auto()
    STUCK = auto()
    DEAD = auto()


class Deed(StrEnum):
    """`PREPARE`: find out whether the log is a new one, and make its topics."""

    STOP = auto()
    START = auto()
    PREPARE = auto()


class Step(NamedTuple):
    """One thing to do."""

    deed: Deed
    part: Part


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of one part: when it last started and ended, and how often in a row it died young."""

    started_at: float = 0.0
    ended_at: float = 0.0
    deaths: int = 0

    @property
    def due_at(self) -> float:
        """When it may be started again: at once after the first death, then later and later."""
        return self.ended_at + pause_after(self.deaths)

    @property
    def keeps_dying(self) -> bool:
        return self.deaths >= REPORTED_DEATHS


def pause_after(deaths: int) -> float:
    """Seconds to wait before the next start, after so many deaths in a row."""
    if deaths <= 1:
        return 0.0
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(deaths - 2, 16))


def started(past: Past, now: float) -> Past:
    """The part was started now."""
    return replace(past, started_at=now)


def ended(past: Past, now: float) -> Past:
    """The part was found dead (or stuck, and was stopped) now."""
    steady = now - past.started_at >= STEADY_SECONDS
    return replace(past, ended_at=now, deaths=1 if steady else past.deaths + 1)


def plan(now: float, seen: Mapping[Part, Sight], past: Mapping[Part, Past]) -> tuple[Step, ...]:
    """What to do now, in this order; nothing where everything runs or must still wait. What was not seen is no part of
    this stack.
    """
    if seen[Part.BROKER] is not Sight.RUNNING:
        return (*_without_log(now, seen, past), *_alone(now, seen, past, _among(seen, READERS)))
    return _alone(now, seen, past, (*_among(seen, READERS), *workers_among(seen)))


def workers_among(parts: Collection[Part]) -> tuple[Part, ...]:
    """The workers of this stack, in the order in which they start."""
    return _among(parts, WORKERS)


def _among(parts: Collection[Part], wanted: tuple[Part, ...]) -> tuple[Part, ...]:
    return tuple(part for part in wanted if part in parts)


def _without_log(now: float, seen: Mapping[Part, Sight], past: Mapping[Part, Past]) -> tuple[Step, ...]:
    """The broker is gone: its workers go too, and come back behind it, whatever their own past."""
    workers = workers_among(seen)
    stops = [Step(Deed.STOP, part) for part in (*workers, Part.BROKER) if _must_be_stopped(part, seen[part])]
    if now < past[Part.BROKER].due_at:
        return tuple(stops)
    back = (Step(Deed.START, Part.BROKER), Step(Deed.PREPARE, Part.BROKER))
    return (*stops, *back, *(Step(Deed.START, part) for part in workers))


def _must_be_stopped(part: Part, sight: Sight) -> bool:
    return sight is Sight.STUCK or (part in WORKERS and sight is Sight.RUNNING)


def _alone(
    now: float, seen: Mapping[Part, Sight], past: Mapping[Part, Past], parts: tuple[Part, ...]
) -> tuple[Step, ...]:
    steps: list[Step] = []
    for part in parts:
        if seen[part] is Sight.STUCK:
            steps.append(Step(Deed.STOP, part))
        if seen[part] is not Sight.RUNNING and now >= past[part].due_at:
            steps.append(Step(Deed.START, part))
    return tuple(steps)


def next_epoch(known_epoch: int, known_cluster: str, cluster: str, archived_epoch: int) -> int:
    """The log's epoch: as it was while the log is the same one, else greater than any that was used.

    `archived_epoch` is the greatest that the archive has seen: a data directory may be younger than its archive.
    """
    if known_cluster == cluster and known_epoch > 0:
        return known_epoch
    return max(known_epoch, archived_epoch) + 1
