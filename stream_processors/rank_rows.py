"""What one rank's rows say when ranks are compared: measured against the rank's own past first, then merged.

A rank's times are followed over its last rows, so that one slow step is none of its properties; its own gradient norm
and loss are taken relative to what is usual for it, so that a rank with other data is not apart. Both depend on the
rows of that rank alone, in their order, and the merge on no order at all: however the ranks' batches interleave and
wherever they are cut, a step comes out the same. Called by `gathering` for each batch of a run of several ranks.
"""

import struct
from collections.abc import Sequence

from ..events.metric_names import GRAD_NAMES, LOCAL_NORM_NAMES, LOSS_NAMES, TOLD, WEIGHTS_NAMES
from ..events.telemetry import StepBatch
from .detectors.spread import (
    COARSE,
    COMM,
    DATA,
    GRADS,
    LOCAL_NORM,
    MOST,
    OWN,
    WEIGHTS,
    Spread,
    coarse,
    fine,
)
from .run_state import PendingStep

Kept = Sequence[tuple[int, int, PendingStep]]
"""The rows of a batch that count: where in the batch, which step, and the step of the whole run they belong to."""
Column = tuple[float | None, ...]

BLOCK = 8
"""The times of a rank are compared once in so many steps."""
TIME_GAIN, TIME_MOST = 0.1, COARSE
"""Times: a tenth of the way each row, of a nat at most. Half as slow again is followed in a dozen rows."""
COMM_GAIN = 0.3
"""Communication is measured at few steps (`producers.timings`): faster."""
USUAL_GAIN, USUAL_MOST = 0.25, COARSE // 8
"""What is usual for a rank: 3 percent a row at most, so that what strikes it now and then does not become usual."""
LEAST_SECONDS = 1e-6

_PAST = struct.Struct("<7h")
_UNSEEN, _FIRST = -(2**15), 1 - 2**15
"""No row yet; one row, of which nothing is kept: the first step compiles."""
_NOBODY = _PAST.pack(-1, -1, *[_UNSEEN] * 5)


def compare(past: bytearray, batch: StepBatch, kept: Kept) -> None:
    """Merge what this batch's rows say into their steps. `past` holds what is remembered of each rank."""
    offset = batch.rank * _PAST.size
    if len(past) <= offset:
        past.extend(_NOBODY * (1 + (offset - len(past)) // _PAST.size))
    attempt, block, *followed = _PAST.unpack_from(past, offset)
    if attempt != batch.attempt & 0x7FFF:
        attempt, block, *followed = batch.attempt & 0x7FFF, *_PAST.unpack(_NOBODY)[1:]
    times, usual = followed[:3], followed[3:]
    compute = column(batch, TOLD["compute_s"])
    if compute is not None:
        block = _times(batch, compute, kept, block, times)
    _usual(batch, kept, usual)
    for what, names in ((WEIGHTS, WEIGHTS_NAMES), (GRADS, GRAD_NAMES)):
        told = column(batch, names)
        if told is not None:
            for index, _, pending in kept:
                if (value := told[index]) is not None:
                    _merge(pending, what, fine(value), batch.rank)
    _PAST.pack_into(past, offset, attempt, block, *times, *usual)


def column(batch: StepBatch, names: tuple[str, ...]) -> Column | None:
    """The batch's values of a metric that has one of these names; None without any."""
    return next((batch.metrics[name] for name in names if name in batch.metrics), None)


def _times(batch: StepBatch, compute: Column, kept: Kept, block: int, times: list[int]) -> int:
    """Follow the times of the rank, and merge them at its first row of each block; the answer is the last block."""
    rank, waits, comms = batch.rank, column(batch, TOLD["data_wait_s"]), column(batch, TOLD["comm_s"])
    for index, step, pending in kept:
        computed = compute[index]
        if computed is None or not 0.0 <= computed < MOST:
            continue
        waited = waits[index] if waits else None
        if waited is not None and 0.0 <= waited < MOST:
            times[DATA] = _followed(times[DATA], coarse(max(waited, LEAST_SECONDS)), TIME_GAIN, TIME_MOST)
            computed += waited
        times[OWN] = _followed(times[OWN], coarse(max(computed, LEAST_SECONDS)), TIME_GAIN, TIME_MOST)
        comm = comms[index] if comms else None
        if comm is not None and 0.0 <= comm < MOST:
            times[COMM] = _followed(times[COMM], coarse(max(comm, LEAST_SECONDS)), COMM_GAIN, TIME_MOST)
        if block != step // BLOCK & 0x7FFF:
            block = step // BLOCK & 0x7FFF
            for what, value in enumerate(times):
                if value > _FIRST:
                    _merge(pending, what, value, rank)
    return block


def _usual(batch: StepBatch, kept: Kept, usual: list[int]) -> None:
    """How far the rank's own gradient norm, or where it tells none its loss, is from what is usual for it."""
    norms, losses = column(batch, LOCAL_NORM_NAMES), column(batch, LOSS_NAMES)
    for index, _, pending in kept:
        value = norms[index] if norms else None
        if value is not None:
            place, units = 0, coarse(value if value < MOST else MOST)  # no number is as bad as infinity
        else:
            value = losses[index] if losses else None
            if value is None or not 0.0 < value < MOST:
                continue  # has no logarithm; one that is not finite is no matter of comparing
            place, units = 1, coarse(value)
        if usual[place] > _FIRST:
            _merge(pending, LOCAL_NORM + place, units - usual[place], batch.rank)
        usual[place] = _followed(usual[place], units, USUAL_GAIN, USUAL_MOST)


def _followed(was: int, value: int, gain: float, most: int) -> int:
    if was <= _FIRST:
        return _FIRST if was == _UNSEEN else value
    return was + int(gain * max(-most, min(value - was, most)))


def _merge(pending: PendingStep, what: int, value: int, rank: int) -> None:
    spreads = pending.spreads
    if spreads is None:
        return
    spread = spreads.get(what)
    if spread is None:
        spreads[what] = Spread.of(value, rank)
    else:
        spread.add(value, rank)
