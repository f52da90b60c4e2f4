"""A rank that is struck now and then: silent data corruption, seen in its own gradient norm or, failing that, its loss.

A value that is not reduced over the ranks scatters from rank to rank; broken arithmetic throws that of one rank far off
again and again, and always the same rank (Hochschild et al., "Cores that don't count", HotOS 2021). Every rank is
compared with what is usual for itself (`stream_processors.rank_rows`), and that with the other ranks of the same step:
neither a rank with other data nor a hard step for all of them is apart.

A *strike* is an end that is farther from the ranks between the ends than `FACTORS`, and than `USUALS` times what the
farthest rank usually is. For each rank that was struck a CUSUM of Bernoulli trials runs (Reynolds and Stoumbos, 1999):
the log likelihood ratio of `STRUCK`, the rate of a broken rank, to the rate at which the other ranks are struck.
"""

import math

import msgspec

from .sample import StepSample
from .spread import COARSE, LOCAL_LOSS, LOCAL_NORM, Spread

FACTORS = {LOCAL_NORM: 4.0, LOCAL_LOSS: 1.5}
USUALS = 3.0
_LEAST_USUAL = {what: math.log(factor) / USUALS for what, factor in FACTORS.items()}
USUAL_GAIN = 0.05
STRUCK = 0.1
LEAST_RATE = 5e-4
"""Of a healthy rank's strikes, however long none was seen."""
MOST_RATE = 0.05
"""Where healthy ranks are struck more often, nothing can be told."""
BOUND = 12.0
"""Of the log likelihood ratio for one rank; the logarithm of how many ranks there are comes to it."""
OVER = 1.5
"""No score rises further beyond its bound, that an alarm may end."""
FADES_IN = 1_000
"""Steps of memory."""
MEMORY = 1.0 - 1.0 / FADES_IN
WARM_UP = 64
MAX_SUSPECTS = 8

NOBODY = {"rank_apart": 0.0, "apart_rank": -1.0, "apart_since": -1.0, "apart_strikes": 0.0, "apart_factor": 1.0}
"""What is said while no rank is suspect."""


class Suspect(msgspec.Struct, array_like=True):
    """A rank that was struck: its score, its strikes in recent memory, the step of the first, the size of the last."""

    score: float
    strikes: float
    since: int
    factor: float


class ApartState(msgspec.Struct):
    """`usual` is how far the farthest rank usually is from the others, in nats; `steps` and `strikes` are the sums of
    a memory that fades; `what` is compared.
    """

    what: int = -1
    usual: float = 0.0
    compared: int = 0
    steps: float = 0.0
    strikes: float = 0.0
    suspects: dict[int, Suspect] = {}
    seen: dict[str, float] = {}


def observe(state: ApartState, sample: StepSample) -> dict[str, float]:
    """The features, once it is known what is usual; `apart_rank` and `apart_since` are -1 while nobody is suspect."""
    what = LOCAL_NORM if LOCAL_NORM in sample.spreads or state.what == LOCAL_NORM else LOCAL_LOSS
    spread = sample.spreads.get(what)
    if spread is None or spread.count < 2:
        return state.seen
    if what != state.what:
        _begin(state, what)
    struck = _struck(state, spread)
    state.compared += 1
    if state.compared > WARM_UP:
        _weigh(state, sample.step, spread.count, struck)
        if state.suspects:
            state.seen = _features(state, spread.count)
        elif state.seen.get("apart_rank") != NOBODY["apart_rank"]:
            state.seen = dict(NOBODY)
    return state.seen


def restart(state: ApartState) -> None:
    """Another attempt: its ranks may be other machines."""
    _begin(state, -1)


def _begin(state: ApartState, what: int) -> None:
    state.what, state.compared, state.suspects, state.seen = what, 0, {}, {}
    state.usual = state.steps = state.strikes = 0.0


def _struck(state: ApartState, spread: Spread) -> list[tuple[int, float]]:
    """The ranks that are struck at this step, at most one at each end, with how far they are from the others."""
    ends = _ends(spread)
    most, usual = max(ends)[0], max(state.usual, _LEAST_USUAL[state.what])
    state.usual = usual + USUAL_GAIN * min(most - usual, usual)
    bound = USUALS * usual
    return [(rank, away) for away, rank in ends if away >= bound] if most >= bound else []


def _ends(spread: Spread) -> tuple[tuple[float, int], ...]:
    """How far each end is from the ranks between, and which rank it is."""
    if spread.count == 2:  # each is as far from the other; one of them is nearer to what is usual for it
        rank = spread.high_rank if abs(spread.high) > abs(spread.low) else spread.low_rank
        return ((spread.width / COARSE, rank),)
    middle = spread.middle
    return ((spread.high - middle) / COARSE, spread.high_rank), ((middle - spread.low) / COARSE, spread.low_rank)


def _weigh(state: ApartState, step: int, ranks: int, struck: list[tuple[int, float]]) -> None:
    state.steps = MEMORY * state.steps + 1.0
    state.strikes = MEMORY * state.strikes + len(struck)
    if not state.suspects and not struck:
        return
    hit = dict(struck)
    for rank, away in struck:
        suspect = state.suspects.setdefault(rank, Suspect(0.0, 0.0, step, 0.0))
        suspect.strikes, suspect.factor = suspect.strikes + 1.0, math.exp(away)
    most = OVER * _bound(ranks)
    for rank, suspect in list(state.suspects.items()):
        suspect.strikes *= MEMORY
        rate = _rate_of_others(state, suspect, ranks)
        odds = STRUCK / rate if rank in hit else (1.0 - STRUCK) / (1.0 - rate)
        suspect.score = min(suspect.score + math.log(odds), most)
        if suspect.score <= 0.0:
            del state.suspects[rank]
    while len(state.suspects) > MAX_SUSPECTS:
        del state.suspects[min(state.suspects, key=lambda rank: (state.suspects[rank].score, rank))]


def _rate_of_others(state: ApartState, suspect: Suspect, ranks: int) -> float:
    """As if they had been struck once more: of few steps of few ranks nothing is sure."""
    strikes = max(0.0, state.strikes - suspect.strikes)
    return max(LEAST_RATE, min((strikes + 1.0) / ((ranks - 1) * state.steps + 1.0), MOST_RATE))


def _bound(ranks: int) -> float:
    return BOUND + math.log(ranks)


def _features(state: ApartState, ranks: int) -> dict[str, float]:
    rank = max(state.suspects, key=lambda rank: (state.suspects[rank].score, -rank))
    worst = state.suspects[rank]
    return {
        "rank_apart": worst.score / _bound(ranks),
        "apart_rank": float(rank),
        "apart_since": float(worst.since),
        "apart_strikes": round(worst.strikes, 1),
        "apart_factor": worst.factor,
    }
