"""Which rank the others wait for, and what share of the step that costs.

The relative score of NVIDIA's Resiliency Extension (reference time over the rank's own, an alarm at 0.75:
`nvidia_resiliency_ext.straggler.reporting`), with the mean of the other ranks for the reference where they take the
fastest one, and with the time of the rank itself, for in synchronous training whole steps take equally long on all
ranks. Three views of that time, each of which abstains where it has no data:

- computing and waiting for data, where it does not include the waiting for others: the slow rank takes longer;
- collectives: the slow rank comes last, and waits least;
- waiting for data, where computing includes the waiting for others: the slow rank waits longer.

A rank must stand out twice as far on the slow side as any on the fast side, for jitter and ranks of several kinds do
so on both. What is compared was followed over a rank's last rows (`stream_processors.rank_rows`), once in some steps;
it alarms when two comparisons in a row say the same of the same rank.
"""

import math

import msgspec

from .bounds import ABSTAINING
from .sample import StepSample
from .spread import COARSE, COMM, DATA, OWN, Spread

SCORE = 0.75
CLEARLY = 2.0
"""So many times further from the others than the farthest rank on the other side."""
COMPARISONS = 2
WARM_UP = 4
"""Comparisons after a start that are not judged: first steps compile, allocate, fill caches."""
STALE_STEPS = 256
"""So long after the last comparison nothing is said any more."""
SUSPECT = 0.25
"""Under this share of the threshold a rank is as fast as the others: its slowness began after that."""


class Slowest(msgspec.Struct, frozen=True):
    """The slowest rank, and the share of its time that the others would have taken."""

    rank: int
    score: float
    lost: float
    """The share of the step that the others wait for it."""

    @property
    def share(self) -> float:
        """1 at the threshold."""
        return min(max(0.0, (1.0 - self.score) / (1.0 - SCORE)), 10.0)


class StragglerState(msgspec.Struct):
    """`times` is how often in a row the same `rank` was as slow as to alarm, `since` the step after which it began,
    `calm` the last one at which no rank was slow.
    """

    rank: int = -1
    times: int = 0
    since: int = -1
    calm: int = -1
    compared: int = 0
    compared_at: int = 0
    steps: int = 0
    seen: dict[str, float] = {}


def observe(state: StragglerState, sample: StepSample) -> dict[str, float]:
    """The features, from the first comparison on; `straggler_rank` and `straggler_since` are -1 without one."""
    state.steps += 1
    own = sample.spreads.get(OWN)
    if own is not None and own.count > 1:
        state.compared, state.compared_at = state.compared + 1, state.steps
        if state.compared > WARM_UP:
            _compare(state, sample, own)
    elif state.seen and state.steps - state.compared_at > STALE_STEPS:
        state.seen = {}
    return state.seen


def restart(state: StragglerState) -> None:
    """Another attempt: its ranks may be other machines."""
    state.rank, state.times, state.since, state.calm, state.compared, state.seen = -1, 0, -1, -1, 0, {}


def _compare(state: StragglerState, sample: StepSample, own: Spread) -> None:
    found = slowest(own, sample.spreads.get(COMM), sample.spreads.get(DATA))
    if found.share < SUSPECT:
        state.calm = sample.step
    if found.share < 1.0:
        state.rank, state.times, state.since = -1, 0, -1
    elif found.rank == state.rank:
        state.times += 1
    else:
        state.rank, state.times, state.since = found.rank, 1, state.calm if state.calm >= 0 else sample.step
    lasting = state.times >= COMPARISONS
    state.seen = {
        "straggler": found.share if lasting else min(found.share, ABSTAINING),
        "straggler_rank": float(state.rank if lasting else -1),
        "straggler_since": float(state.since if lasting else -1),
        "straggler_score": found.score,
        "straggler_share": found.lost,
        "straggler_victims": float(own.count - 1 if lasting else 0),
    }


def slowest(own: Spread, comm: Spread | None, data: Spread | None) -> Slowest:
    """By the view that shows it most clearly."""
    views = [_by_own_time(own, comm)]
    if comm is not None and comm.count > 1:
        views.append(_by_collectives(own, comm))
    if data is not None and data.count > 1:
        views.append(_by_waiting(own, data))
    return min(views, key=lambda view: view.score)


def _by_own_time(own: Spread, comm: Spread | None) -> Slowest:
    others = own.others(own.high)
    if not own.high - others >= CLEARLY * (others - own.low):
        return Slowest(own.high_rank, 1.0, 0.0)
    score = _seconds(others - own.high)
    took = _seconds(own.high)
    step = took + (_seconds(comm.low) if comm is not None else 0.0)
    return Slowest(own.high_rank, score, (1.0 - score) * took / step)


def _by_collectives(own: Spread, comm: Spread) -> Slowest:
    others = comm.others(comm.low)
    if not others - comm.low >= CLEARLY * (comm.high - others):
        return Slowest(comm.low_rank, 1.0, 0.0)
    waited = _seconds(others)
    lost = (waited - _seconds(comm.low)) / (_seconds(own.mean) + waited)
    return Slowest(comm.low_rank, 1.0 - lost, lost)


def _by_waiting(own: Spread, data: Spread) -> Slowest:
    others = _seconds(data.others(data.high))
    extra = _seconds(data.high) - others
    if not extra >= CLEARLY * (others - _seconds(data.low)):
        return Slowest(data.high_rank, 1.0, 0.0)
    lost = min(1.0, extra / max(_seconds(own.mean), _seconds(data.high)))
    return Slowest(data.high_rank, 1.0 - lost, lost)


def _seconds(units: float) -> float:
    return math.exp(units / COARSE)
