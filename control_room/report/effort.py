"""What a run took: time, devices, money; and how much of that came to nothing. Pure.

Wasted is the time in which steps were done that a rollback or restart undid, and the time in which the run stood still
or had diverged; what is both counts once. The time between two attempts is said beside it: whether the machines were
held meanwhile is not known. Called by `overview`, `comparison` and `fleet`, with rows of `storage.report_queries`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Row = Mapping[str, Any]
MICROS_PER_HOUR = 3_600_000_000
IDLE_PHASES = ("Stalled", "Diverged")


class Stretch(NamedTuple):
    """From one moment to another, microseconds."""

    left: int
    right: int


class Held(NamedTuple):
    """An attempt's own stretch, without what the one before it had."""

    stretch: Stretch
    devices: int
    per_hour: float | None


@dataclass(frozen=True)
class Effort:
    """Hours of devices are GPU-hours where `has_gpus`, else those of ranks. Costs are in the currency in which the run
    was told its rate; None where it told none."""

    has_gpus: bool = False
    wall_s: float = 0.0
    attempts_s: float = 0.0
    between_attempts_s: float = 0.0
    device_hours: float = 0.0
    wasted_s: float = 0.0
    wasted_device_hours: float = 0.0
    wasted_by: dict[str, float] = field(default_factory=dict)
    steps_undone: int = 0
    cost: float | None = None
    wasted_cost: float | None = None

    @property
    def wasted_share(self) -> float | None:
        """Of the hours of devices; None where nothing was taken."""
        return self.wasted_device_hours / self.device_hours if self.device_hours else None


def effort_of(spans: Sequence[Row], starts: Mapping[str, Row], phases: Iterable[Row], undone: Sequence[Row]) -> Effort:
    """`starts` are the announcements by attempt (their fields), the others rows in the order of time."""
    held = list(_held(spans, starts))
    if not held:
        return Effort()
    first, last = held[0].stretch.left, max(one.stretch.right for one in held)
    lost = {
        "steps undone": [Stretch(row["began_at"], row["ended_at"]) for row in undone],
        "standing still or diverged": list(_idle(phases, last)),
    }
    by = _wasted_by(lost)
    wasted = merged([stretch for stretches in lost.values() for stretch in stretches])
    busy = sum(one.stretch.right - one.stretch.left for one in held)
    whole = [Held(Stretch(first, last), 1, None)]
    return Effort(
        has_gpus=any(_gpus(start) for start in starts.values()),
        wall_s=(last - first) / 1e6,
        attempts_s=busy / 1e6,
        between_attempts_s=max(0.0, (last - first - busy) / 1e6),
        device_hours=sum((one.stretch.right - one.stretch.left) * one.devices for one in held) / MICROS_PER_HOUR,
        wasted_s=_hours(whole, wasted) * 3_600,
        wasted_device_hours=_hours(held, wasted),
        wasted_by={name: seconds for name, seconds in by.items() if seconds},
        steps_undone=sum(row["steps"] for row in undone),
        cost=_cost(held, [Stretch(first, last)]),
        wasted_cost=_cost(held, wasted),
    )


def merged(stretches: Iterable[Stretch]) -> list[Stretch]:
    """The same time, in stretches that do not overlap."""
    found: list[Stretch] = []
    for stretch in sorted(one for one in stretches if one.right > one.left):
        if found and stretch.left <= found[-1].right:
            found[-1] = Stretch(found[-1].left, max(found[-1].right, stretch.right))
        else:
            found.append(stretch)
    return found


def seconds_of(stretches: Iterable[Stretch]) -> float:
    """How long they are together, each moment once."""
    return sum(one.right - one.left for one in merged(stretches)) / 1e6


def _held(spans: Sequence[Row], starts: Mapping[str, Row]) -> Iterable[Held]:
    reached = 0
    for row in spans:
        start = starts.get(row["attempt_id"], {})
        left = max(row["first_at"], reached)
        reached = max(reached, row["last_at"])
        devices = int(start.get("world_size") or row["ranks"] or 1)
        yield Held(Stretch(left, max(left, row["last_at"])), devices, start.get("cost_per_hour"))


def _idle(phases: Iterable[Row], last_at: int) -> Iterable[Stretch]:
    for row in phases:
        if row["phase"] in IDLE_PHASES:
            yield Stretch(row["from_at"], row["until_at"] if row["until_at"] is not None else last_at)


def _wasted_by(lost: Mapping[str, Sequence[Stretch]]) -> dict[str, float]:
    """Each cause's seconds, without those of the causes before it."""
    known: list[Stretch] = []
    told: dict[str, float] = {}
    for cause, stretches in lost.items():
        before = seconds_of(known)
        known += stretches
        told[cause] = seconds_of(known) - before
    return told


def _hours(held: Iterable[Held], wasted: Sequence[Stretch]) -> float:
    return sum(one.devices * _shared(one.stretch, wasted) for one in held) / MICROS_PER_HOUR


def _cost(held: Sequence[Held], stretches: Sequence[Stretch]) -> float | None:
    if all(one.per_hour is None for one in held):
        return None
    return sum((one.per_hour or 0.0) * _shared(one.stretch, stretches) for one in held) / MICROS_PER_HOUR


def _shared(stretch: Stretch, others: Sequence[Stretch]) -> int:
    """Microseconds of `stretch` that lie in the others, which do not overlap."""
    return sum(max(0, min(stretch.right, other.right) - max(stretch.left, other.left)) for other in others)


def _gpus(start: Row) -> bool:
    environment = start.get("environment")
    gpus = environment.get("gpus") if isinstance(environment, Mapping) else None
    return bool(isinstance(gpus, Mapping) and gpus.get("count"))
