"""What one rank's rows say when ranks are compared: measured against the rank's own past first, then merged.

A rank's times are followed over its last rows, so that one slow step is none of its properties; its own gradient norm
and loss are taken relative to what is usual for it, so that a rank with other data is not apart. Both depend on the
rows of that rank alone, in their order, and the merge on no order at all: however the ranks' batches interleave and
wherever they are cut, a step comes out the same. Called by `gathering` for each batch of a run of several ranks, a
thousand times for each step of a large one: hence the loops, a column each.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from ..events.metric_names import GRAD_NAMES, LOCAL_NORM_NAMES, LOSS_NAMES, TOLD, WEIGHTS_NAMES
from ..events.telemetry import StepBatch
from .detectors.spread import (
    COARSE,
    COARSE_MOST,
    COMM,
    DATA,
    GRADS,
    LOCAL_LOSS,
    LOCAL_NORM,
    OWN,
    WEIGHTS,
    Column,
    Units,
    coarse,
    fine,
    merge,
)
from .run_state import PendingStep

Kept = Sequence[tuple[int, int, PendingStep]]
"""The rows of a batch that count: where in the batch, which step, and the step of the whole run they belong to."""


class Following(NamedTuple):
    """How a time is followed: which part of the way each row, of so many units at most upwards, and downwards."""

    gain: float
    up: int
    down: int


BLOCK = 8
"""The times of a rank are compared once in so many steps."""
TIMES = {
    OWN: Following(0.1, COARSE, 8 * COARSE),
    DATA: Following(0.1, 4 * COARSE, 4 * COARSE),
    COMM: Following(0.3, COARSE, COARSE),
}
"""`OWN`: half as slow again is followed in a dozen rows; first steps, which may take a hundred times as long, are
forgotten in thirty. `DATA`: it may be waited for a hundred times as long. `COMM` is measured at few steps
(`producers.metrics.timings`).
"""
USUAL_GAIN, USUAL_MOST = 0.25, COARSE // 8
"""What is usual for a rank: 3 percent a row at most, so that what strikes it now and then does not become usual."""
LEAST_SECONDS = 1e-6

_PAST = struct.Struct("<7h")
"""Of one rank: its attempt, the last block in which its times were compared, and what is followed of it: `OWN`, `DATA`,
`COMM`, `LOCAL_NORM`, `LOCAL_LOSS`.
"""
_UNSEEN, _FIRST = -(2**15), 1 - 2**15
"""No row yet; one row, of which nothing is kept: the first step compiles."""
_NOBODY = _PAST.pack(-1, -1, *[_UNSEEN] * 5)
_BITS = 2**15 - 1


def compare(past: bytearray, batch: StepBatch, kept: Kept) -> None:
    """Merge what this batch's rows say into their steps. `past` holds what is remembered of each rank."""
    if not kept:
        return
    offset = batch.rank * _PAST.size
    if len(past) <= offset:
        past.extend(_NOBODY * (1 + (offset - len(past)) // _PAST.size))
    attempt, block, *times, norm, loss = _PAST.unpack_from(past, offset)
    if attempt != batch.attempt & _BITS:
        attempt, block, *times, norm, loss = batch.attempt & _BITS, *_PAST.unpack(_NOBODY)[1:]
    computed = column(batch, TOLD["compute_s"])
    if computed is not None:
        block = _times(batch, computed, kept, block, times)
    norms, losses = column(batch, LOCAL_NORM_NAMES), column(batch, LOSS_NAMES)
    if norms is not None:
        norm = _relative(_norms(norms), kept, norm, LOCAL_NORM, batch.rank)
    if losses is not None:
        without = kept if norms is None else [row for row in kept if norms[row[0]] is None]
        loss = _relative(coarse(losses), without, loss, LOCAL_LOSS, batch.rank)
    for what, names in ((WEIGHTS, WEIGHTS_NAMES), (GRADS, GRAD_NAMES)):
        if (told := column(batch, names)) is not None:
            _equal(fine(told), kept, what, batch.rank)
    _PAST.pack_into(past, offset, attempt, block, *times, norm, loss)


def column(batch: StepBatch, names: tuple[str, ...]) -> Column | None:
    """The batch's values of a metric that has one of these names; None without any."""
    for name in names:
        told = batch.metrics.get(name)
        if told is not None:
            return told
    return None


def _times(batch: StepBatch, computed: Column, kept: Kept, block: int, times: list[int]) -> int:
    """Follow the times of the rank, and merge them at its first row of each block; the answer is the last block."""
    waited, comm = column(batch, TOLD["data_wait_s"]), column(batch, TOLD["comm_s"])
    took = computed if waited is None else _sums(computed, waited)
    timed = [row for row in kept if computed[row[0]] is not None]
    followed = []
    for what, told in zip(TIMES, (took, waited, comm), strict=True):
        after = [times[what]] * len(timed)
        if told is not None and timed:
            after = _followed(coarse(told, LEAST_SECONDS), timed, times[what], TIMES[what])
            times[what] = after[-1]
        followed.append(after)
    for place, (_, step, pending) in enumerate(timed):
        if block == step // BLOCK & _BITS:
            continue
        block = step // BLOCK & _BITS
        for what, after in enumerate(followed):
            if pending.spreads is not None and after[place] > _FIRST:
                merge(pending.spreads, what, after[place], batch.rank)
    return block


def _sums(computed: Column, waited: Column) -> Column:
    both = list(zip(computed, waited, strict=True))
    try:
        return [value + wait for value, wait in both]  # type: ignore[operator]  # nearly always
    except TypeError:
        return [value if value is None or wait is None else value + wait for value, wait in both]


def _followed(units: Units, kept: Kept, was: int, how: Following) -> list[int]:
    """What is followed, after each of the rows."""
    gain, up, down = how
    followed = []
    for index, _, _ in kept:
        value = units[index]
        if value is not None:
            if was > _FIRST:
                away = value - was
                was += int(gain * (up if away > up else -down if away < -down else away))
            else:
                was = _FIRST if was == _UNSEEN else value
        followed.append(was)
    return followed


def _norms(told: Column) -> Units:
    """A gradient that is no number is as far off as can be, and so is one that is zero."""
    units = coarse(told)
    if None in units:
        for index, value in enumerate(told):
            if value is not None and units[index] is None:
                units[index] = -COARSE_MOST if value == 0.0 else COARSE_MOST
    return units


def _relative(units: Units, kept: Kept, usual: int, what: int, rank: int) -> int:
    """Merge how far the rank is from what is usual for it; the answer is what is usual now."""
    for index, _, pending in kept:
        value = units[index]
        if value is None:
            continue
        if usual > _FIRST:
            away = value - usual
            if pending.spreads is not None:
                merge(pending.spreads, what, away, rank)
            usual += int(
                USUAL_GAIN * (USUAL_MOST if away > USUAL_MOST else -USUAL_MOST if away < -USUAL_MOST else away)
            )
        else:
            usual = _FIRST if usual == _UNSEEN else value
    return usual


def _equal(units: Units, kept: Kept, what: int, rank: int) -> None:
    for index, _, pending in kept:
        value = units[index]
        if value is not None and pending.spreads is not None:
            merge(pending.spreads, what, value, rank)
