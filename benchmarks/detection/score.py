"""What a detector's alarms are worth: false episodes, share of the incidents found, and how late. Pure.

An alarm is an *episode* unless it begins within `MERGE_ROWS` of the end of the one before: a rule that flickers is not
wrong twice. An incident is found by an alarm that stands or begins at its onset or in the rows allowed for its kind.
A false episode is one that begins outside everything that is known to have gone wrong (and the rows after it in which a
window still remembers).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from .series import Alarm, Incident, Series

MERGE_ROWS = 20
AFTER_ROWS = 50
"""So long after an incident an alarm is still about it: the way back to health is no surprise."""

WITHIN: dict[str, int] = defaultdict(
    lambda: 2,
    {
        "slow_divergence": 200,
        "fast_divergence": 20,
        "diverged": 200,
        "gradient_explosion": 5,
        "vanishing_gradient": 300,
        "plateau": 1_000,
        "overfitting": 2_000,
        "overfit": 2_000,
        "slow_overfitting": 2_000,
        "broken_start": 100,
        "nan_from_the_start": 0,
        "throughput_sag": 50,
        "throughput_drop": 50,
        "straggler": 50,
        "hang": 0,
        "hang_of_slow_steps": 0,
        "data_starved": 50,
        "comm_bound": 50,
        "desynchronised_rank": 10,
        "silent_corruption": 50,
        "late_rank": 50,
        "slow_loader": 50,
        "one_of_many_struck": 50,
        "grad_explosion": 5,
    },
)
"""Rows after the onset in which an incident of a kind must be found."""
SEEN_AS: dict[str, tuple[str, ...]] = {
    "vanishing_gradient": ("Progressing",),
    "plateau": ("Progressing",),
    "hang": ("Progressing",),
    "hang_of_slow_steps": ("Progressing",),
    "overfitting": ("Generalizing",),
    "overfit": ("Generalizing",),
    "slow_overfitting": ("Generalizing",),
    "throughput_sag": ("Efficient",),
    "throughput_drop": ("Efficient",),
    "data_starved": ("Efficient",),
    "comm_bound": ("Efficient",),
    "straggler": ("Efficient",),
    "desynchronised_rank": ("Synchronized",),
    "silent_corruption": ("Synchronized",),
    "late_rank": ("Efficient",),
    "slow_loader": ("Efficient",),
    "one_of_many_struck": ("Synchronized",),
}
"""The conditions that may find a kind, where a detector names any; all else is `UNSTABLE`."""
UNSTABLE = ("Stable", "Finite")
KNOWN = frozenset({*WITHIN, "spike", "transient_spike", "sustained_spike", "nan", "inf"})
"""The kinds that must be found: it is known how soon."""


@dataclass(slots=True)
class Score:
    """Of one detector over one kind of data."""

    rows: int = 0
    false: int = 0
    false_by_alarm: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    found: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    missed: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    delays: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    seconds: float = 0.0

    @property
    def false_per_10k(self) -> float:
        return 10_000 * self.false / self.rows if self.rows else 0.0

    @property
    def recall(self) -> dict[str, float]:
        kinds = sorted({*self.found, *self.missed})
        return {kind: self.found[kind] / (self.found[kind] + self.missed[kind]) for kind in kinds}

    @property
    def delay_p50(self) -> dict[str, float]:
        return {kind: median(delays) for kind, delays in sorted(self.delays.items()) if delays}

    @property
    def us_per_step(self) -> float:
        return 1e6 * self.seconds / self.rows if self.rows else 0.0


@dataclass(frozen=True, slots=True)
class Mistake:
    """A false episode, or an incident that nobody was told of."""

    series: str
    what: str
    row: int
    is_false: bool


def judge(score: Score, series: Series, alarms: Sequence[Alarm], watched: Iterable[str] | None = None) -> list[Mistake]:
    """Add one series to a score. `watched` are the kinds that this detector claims to see, None for all."""
    kinds = None if watched is None else set(watched)
    mistakes = []
    score.rows += len(series)
    for alarm in episodes(alarms):
        if not any(_excuses(incident, alarm) for incident in series.incidents):
            score.false += 1
            what = f"{alarm.what} {alarm.why}".strip()
            score.false_by_alarm[what] += 1
            mistakes.append(Mistake(series.name, what, alarm.first, is_false=True))
    for incident in series.incidents:
        if not incident.must or (kinds is not None and incident.kind not in kinds):
            continue
        delay = _delay(incident, alarms)
        if delay is None:
            score.missed[incident.kind] += 1
            mistakes.append(Mistake(series.name, incident.kind, incident.first, is_false=False))
        else:
            score.found[incident.kind] += 1
            score.delays[incident.kind].append(delay)
    return mistakes


def episodes(alarms: Sequence[Alarm]) -> list[Alarm]:
    """The alarms in their order, without those that only go on with the one before."""
    begun: list[Alarm] = []
    quiet_from = -1
    for alarm in sorted(alarms, key=lambda alarm: alarm.first):
        if not begun or alarm.first > quiet_from + MERGE_ROWS:
            begun.append(alarm)
        quiet_from = max(quiet_from, alarm.last)
    return begun


def _excuses(incident: Incident, alarm: Alarm) -> bool:
    return incident.may and incident.first - incident.early <= alarm.first <= incident.last + AFTER_ROWS


def _delay(incident: Incident, alarms: Sequence[Alarm]) -> int | None:
    """Rows from the onset to the first alarm that stands then or begins in time."""
    until = incident.first + WITHIN[incident.kind]
    delays = [
        max(0, alarm.first - incident.first)
        for alarm in alarms
        if alarm.first <= until and alarm.last >= incident.first and _is_about(alarm, incident)
    ]
    return min(delays, default=None)


def _is_about(alarm: Alarm, incident: Incident) -> bool:
    return not alarm.what or alarm.what in SEEN_AS.get(incident.kind, UNSTABLE)
