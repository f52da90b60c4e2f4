"""Has the data changed under the run? The profiles of chosen inputs, each window against the first ones.

Two measures over the bins of a profile (`producers.metrics.profiles` cuts them at quantiles of the first window), each
against the first windows and against the window before:

- the population stability index, the sum over the bins of (p - q) ln(p / q). Under 0.1 nothing has changed, over 0.25
  very much (Siddiqi, Credit Risk Scorecards, 2006; Lewis, An Introduction to Credit Scoring, 1994);
- the distance of Kolmogorov and Smirnov, the greatest between the two cumulative shares, against its critical value
  c(alpha) sqrt((n + m) / nm), c(alpha) = sqrt(-ln(alpha / 2) / 2), with alpha divided by the number of inputs and of
  comparisons (Bonferroni): it says that no small sample made the index large. Over bins it is a little smaller than it
  would be over the values, so the test is conservative.

The values of one batch are alike, more than either measure knows: what the index is between one window and the next is
remembered, and the bound is never under `NOISES` times that, without the largest, which may be the drift itself. It
takes two windows in a row. A drift is a ticket:
the people who know the data must look, and no rule may touch a run for it. Fed by `fold`, asked by `judging` at Ticks.
"""

import math
from zlib import crc32

import msgspec

from ...events.telemetry import DataProfiled

DRIFTED = 0.25
"""The index at which an input has drifted; `conditions.DRIFT` says when it has not any more."""
ALPHA = 0.001
NOISES = 3.0
FIRST_WINDOWS = 5
INPUTS = 16
"""Inputs that are watched, those that were profiled first; more are archived, and not watched."""
BINS = 24
NAME_LENGTH = 64
MOST = 2**31
SMOOTHING = 0.5
"""Added to every count (Jeffreys), so that an empty bin has a logarithm."""
REMEMBERED = 8


class Input(msgspec.Struct, array_like=True):
    """One input. `first` has the counts of the first windows together, `before` those of the last one; the last count
    of each is that of values which were not finite. `shape` is a checksum of schema and edges. `usual` has the index
    between the last windows and the ones before them.
    """

    name: str
    shape: int
    first: list[int]
    before: list[int]
    windows: int = 1
    usual: list[float] = []
    psi: float = 0.0
    psi_before: float = 0.0
    ks: float = 0.0
    ks_critical: float = 0.0
    share: float = 0.0
    x: float = 0.0
    since: int = -1


class InputState(msgspec.Struct):
    """The inputs by the checksum of their names. `seen` has the features as of the last Tick."""

    inputs: dict[int, Input] = {}
    is_new: bool = False
    seen: dict[str, float] = {}


class Drift(msgspec.Struct, frozen=True):
    """The input that has drifted most. `x` is 1 at the bound."""

    name: str
    x: float
    since: int
    evidence: dict[str, float]


def profiled(state: InputState, profile: DataProfiled) -> None:
    """One more window of one input."""
    counts = _counts(profile)
    if len(counts) < 2 or not sum(counts):
        return
    key, shape = crc32(profile.feature.encode()), crc32(repr((profile.data_schema, profile.edges)).encode())
    known = state.inputs.get(key)
    if known is None and len(state.inputs) >= INPUTS:
        return
    if known is None or known.shape != shape or len(known.first) != len(counts):
        state.inputs[key] = Input(profile.feature[:NAME_LENGTH], shape, counts, counts)
    elif known.windows < FIRST_WINDOWS:
        _learn(known, counts)
    else:
        _compare(known, counts, profile.step, comparisons=2 * len(state.inputs))
    state.is_new = True


def drift(state: InputState) -> Drift | None:
    """How far the inputs have drifted; None where there is nothing new to say, or nothing to compare yet."""
    compared = [known for known in state.inputs.values() if known.windows > FIRST_WINDOWS]
    is_new, state.is_new = state.is_new, False
    if not is_new or not compared:
        return None
    worst = max(compared, key=lambda known: (known.x, known.psi, known.name))
    state.seen = {"input_drift": worst.x, "input_psi": worst.psi, "input_ks": worst.ks}
    evidence = {
        "psi": worst.psi,
        "psi_bound": _bound(worst),
        "psi_to_window_before": worst.psi_before,
        "ks": worst.ks,
        "ks_critical": worst.ks_critical,
        "windows": float(worst.windows),
        "inputs": float(len(state.inputs)),
    }
    return Drift(worst.name, worst.x, worst.since, evidence)


def psi(counts: list[int], reference: list[int]) -> float:
    """The population stability index of two histograms over the same bins."""
    p, q = _shares(counts, SMOOTHING), _shares(reference, SMOOTHING)
    return math.fsum((mine - its) * math.log(mine / its) for mine, its in zip(p, q, strict=True))


def ks(counts: list[int], reference: list[int]) -> float:
    """The distance of Kolmogorov and Smirnov between two histograms over the same bins."""
    greatest = apart = 0.0
    for mine, its in zip(_shares(counts, 0.0), _shares(reference, 0.0), strict=True):
        apart += mine - its
        greatest = max(greatest, abs(apart))
    return greatest


def ks_critical(n: int, m: int, alpha: float) -> float:
    """What the distance of two samples of one distribution exceeds with a probability of `alpha`."""
    return math.sqrt(-math.log(alpha / 2.0) / 2.0) * math.sqrt((n + m) / (n * m))


def _learn(known: Input, counts: list[int]) -> None:
    known.usual.append(psi(counts, known.before))
    known.first = [min(mine + its, MOST) for mine, its in zip(known.first, counts, strict=True)]
    known.before, known.windows = counts, known.windows + 1


def _compare(known: Input, counts: list[int], step: int, comparisons: int) -> None:
    known.psi, known.psi_before = psi(counts, known.first), psi(counts, known.before)
    known.ks = ks(counts, known.first)
    known.ks_critical = ks_critical(sum(counts), sum(known.first), ALPHA / comparisons)
    share = min(known.psi / _bound(known), known.ks / known.ks_critical)
    before, known.share = known.share, share
    known.x = max(before, share) if known.x >= 1.0 else min(before, share)
    if max(before, share) < 1.0:
        known.since = -1
    elif known.since < 0:
        known.since = step
    known.usual = [*known.usual, known.psi_before][-REMEMBERED:]
    known.before, known.windows = counts, min(known.windows + 1, MOST)


def _bound(known: Input) -> float:
    usual = sorted(known.usual)[-2] if len(known.usual) > 1 else 0.0  # without the one at which a drift began
    return max(DRIFTED, NOISES * usual)


def _counts(profile: DataProfiled) -> list[int]:
    """The counts in at most `BINS` bins, and those that were not finite."""
    together = max(1, math.ceil(len(profile.counts) / BINS))
    bins = [sum(profile.counts[at : at + together]) for at in range(0, len(profile.counts), together)]
    return [min(count, MOST) for count in (*bins, profile.non_finite)] if bins else []


def _shares(counts: list[int], smoothing: float) -> list[float]:
    total = sum(counts) + smoothing * len(counts)
    return [(count + smoothing) / total for count in counts]
