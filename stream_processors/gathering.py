"""From what single ranks report to steps of the whole run, in the order of steps and whatever the interleaving.

A step is ready when every live rank has reported it. A rank's rows count in ascending order of steps and once per
step: the first row is what is judged, a repeated or backward one is evidence for the archive only. Where rank 0 stays
behind its own steps (`BACK_ROWS`) without a new attempt, that is a turn, and `fold` says that it cannot judge.
Everything is merged in ways that do not depend on the order in which ranks arrive. Called by `fold`.
"""

import math
from bisect import insort
from collections.abc import Iterator
from itertools import repeat
from typing import NamedTuple

import msgspec

from ..events.metric_names import GRAD_NAMES, LOSS_NAMES, TOLD
from ..events.telemetry import RunStarted, StepBatch
from . import rank_rows
from .detectors.sample import StepSample
from .detectors.spread import Column, Spread
from .rank_rows import column
from .run_state import (
    EARLY_PENDING,
    HELD_BYTES,
    MAX_COMPARED,
    MAX_PENDING,
    MAX_RANKS,
    SAMPLED_RANKS,
    Attempt,
    Held,
    PendingStep,
)

PATIENCE_TICKS = 15
"""A rank that has not reported a step so long after the first did is not waited for until it reports again."""
BACK_ROWS = 3
"""So many rows in a row behind a rank's last step are no late word but a loop that counts from the beginning again."""


class Turn(NamedTuple):
    """Rank 0 goes on at `step` behind its last step `after`, or (`back` is false) has come past it again."""

    back: bool
    step: int
    after: int
    at: int


def add_rows(attempt: Attempt, batch: StepBatch, tick: int, ranks_past: bytearray) -> list[Turn]:
    """Merge the rows of one rank into the pending steps. Where rank 0 turned back, or went on again, is the answer."""
    rank = batch.rank
    turns: list[Turn] = []
    if rank >= (attempt.world_size if attempt.started else MAX_RANKS):
        return turns
    kept: list[tuple[int, int, PendingStep]] = []
    before = high = attempt.high.get(rank, -1)
    for index, step in enumerate(batch.steps):
        if rank == 0 and (turn := _turn(attempt, step, high, batch.times[index])):
            turns.append(turn)
        if step <= high:
            continue
        high = step
        if step > attempt.judged:
            kept.append((index, step, _pending(attempt, step, batch.times[index], tick)))
        elif step >= attempt.first_step:
            attempt.late += 1
    if high > before:
        attempt.high[rank] = high
    _merge(batch, kept)
    if rank == 0:
        _add_told(batch, kept)
    if attempt.world_size > 1 or not attempt.started:
        rank_rows.compare(ranks_past, batch, kept)
    _move(attempt, rank, before, high)
    return turns


def _pending(attempt: Attempt, step: int, at: int, tick: int) -> PendingStep:
    """The step of the whole run that a rank's row belongs to."""
    pending = attempt.pending.get(step)
    if pending is None:
        spreads: dict[int, Spread] | None = {} if len(attempt.pending) < MAX_COMPARED else None
        pending = attempt.pending[step] = PendingStep(at, tick, spreads=spreads)
    elif at > pending.at:
        pending.at = at
    return pending


def _turn(attempt: Attempt, step: int, high: int, at: int) -> Turn | None:
    if step == high:
        return None  # the same step in two calls
    was_back = attempt.rows_back >= BACK_ROWS
    attempt.rows_back = min(attempt.rows_back + 1, BACK_ROWS) if step < high else 0
    is_back = attempt.rows_back >= BACK_ROWS
    return Turn(is_back, step, high, at) if is_back != was_back else None


def _merge(batch: StepBatch, kept: rank_rows.Kept) -> None:
    rank, losses, grad_norms = batch.rank, column(batch, LOSS_NAMES), column(batch, GRAD_NAMES)
    for index, _, pending in kept:
        pending.ranks += 1
        if losses is not None:
            _sample_rank(pending.losses, rank, losses[index])
        if grad_norms is not None:
            _sample_rank(pending.norms, rank, grad_norms[index])
    for told in (losses, grad_norms):
        if told is not None and not _all_finite(told):
            _count_nonfinite(told, kept, rank, are_losses=told is losses)


def _sample_rank(low: list[tuple[int, float]], rank: int, value: float | None) -> None:
    """Only ranks that have a value are counted: of a pipeline it may be the last alone that knows the loss."""
    if value is None or (len(low) == SAMPLED_RANKS and rank > low[-1][0]):
        return
    insort(low, (rank, value))
    del low[SAMPLED_RANKS:]


def _all_finite(told: Column) -> bool:
    """Quickly: a sum is finite unless a part is not, or the parts are huge."""
    try:
        return math.isfinite(sum(told))  # type: ignore[arg-type]  # where a row has none, that is the answer
    except TypeError:
        return False


def _count_nonfinite(told: Column, kept: rank_rows.Kept, rank: int, *, are_losses: bool) -> None:
    for index, _, pending in kept:
        value = told[index]
        if value is not None and not math.isfinite(value):
            pending.nonfinite += 1
            pending.nonfinite_losses += are_losses
            bad = (not are_losses, rank)
            pending.bad = bad if pending.bad is None else min(pending.bad, bad)


def _add_told(batch: StepBatch, kept: rank_rows.Kept) -> None:
    columns = [column(batch, names) for names in TOLD.values()]
    if any(columns):
        rows = list(zip(*(told or repeat(None) for told in columns), strict=False))
        for index, _, pending in kept:
            pending.told = rows[index]


def _move(attempt: Attempt, rank: int, before: int, high: int) -> None:
    """This rank went on from `before` to `high`: so may the watermark, once the last of those that were at it has."""
    if rank in attempt.lagging:
        attempt.lagging.remove(rank)
        _find_watermark(attempt)
    elif before <= attempt.watermark < high:
        attempt.behind -= 1
        if attempt.behind <= 0:
            _find_watermark(attempt)


def _find_watermark(attempt: Attempt) -> None:
    """The last step that every live rank has reached, and how many of them are no further."""
    if not attempt.started:
        attempt.watermark, attempt.behind = -1, attempt.world_size
        return
    lagging = set(attempt.lagging)
    live = [high for rank, high in attempt.high.items() if rank not in lagging]
    unheard = attempt.world_size - len(attempt.high) - len(lagging - attempt.high.keys())
    attempt.watermark = -1 if unheard > 0 else min(live, default=-1)
    attempt.behind = unheard if unheard > 0 else live.count(attempt.watermark)


def start(attempt: Attempt, started: RunStarted, tick: int) -> None:
    """RunStarted came: now it is known which ranks to wait for. Beyond `MAX_RANKS` they are heard, and not judged."""
    attempt.started, attempt.started_tick, attempt.reason = True, tick, started.reason
    attempt.first_step, attempt.world_size = started.first_step, min(started.world_size, MAX_RANKS)
    attempt.judged = started.first_step - 1
    attempt.pending = {step: row for step, row in attempt.pending.items() if step >= started.first_step}
    for rank in [rank for rank in attempt.high if rank >= attempt.world_size]:
        del attempt.high[rank]
    _find_watermark(attempt)


def is_full(attempt: Attempt) -> bool:
    """Whether more waits in this attempt than one that is not the current may keep."""
    return len(attempt.pending) > EARLY_PENDING


def shed(attempt: Attempt) -> None:
    """Nobody has started this attempt: of what waits only the newest is kept."""
    for step in sorted(attempt.pending)[:-EARLY_PENDING]:
        del attempt.pending[step]


def lose_patience(attempt: Attempt, tick: int) -> None:
    """Stop waiting for ranks that are overdue with the oldest pending step."""
    if not attempt.pending:
        return
    oldest = min(attempt.pending)
    if tick - attempt.pending[oldest].first_tick < PATIENCE_TICKS:
        return
    late = [rank for rank in range(attempt.world_size) if attempt.high.get(rank, -1) < oldest]
    attempt.lagging = sorted({*attempt.lagging, *late})
    _find_watermark(attempt)


def hold(attempt: Attempt, held: Held) -> None:
    """Keep what rank 0 told about a step until that step is judged."""
    attempt.held.append(held)
    attempt.held.sort(key=lambda known: known.step)  # stable: rank 0 told it in this order
    while len(msgspec.msgpack.encode(attempt.held)) > HELD_BYTES:
        del attempt.held[0]


def ready(attempt: Attempt, *, closing: bool = False) -> Iterator[StepSample | Held]:
    """Steps and what was told about them, in order, removed as they are yielded: a step before what was told about it.

    `closing` drops the wait for ranks: nothing more will come.
    """
    if closing or attempt.watermark > attempt.judged or len(attempt.pending) > MAX_PENDING:
        for step in sorted(attempt.pending):
            if not (closing or step <= attempt.watermark or len(attempt.pending) > MAX_PENDING):
                break
            yield from _due(attempt, step, closing=closing)
            attempt.judged = step
            yield _sample(step, attempt.pending.pop(step))
    if attempt.held:
        yield from _due(attempt, min(attempt.pending, default=None), closing=closing)


def _due(attempt: Attempt, oldest: int | None, *, closing: bool) -> Iterator[Held]:
    """What was told about steps before `oldest`, the next that waits, as far as ranks have reached them."""
    while attempt.held:
        held = attempt.held[0]
        if oldest is not None and oldest <= held.step:
            return
        if not closing and held.step > max(attempt.watermark, attempt.judged):
            return
        yield attempt.held.pop(0)


def _sample(step: int, pending: PendingStep) -> StepSample:
    return StepSample(
        step=step,
        at=pending.at,
        ranks=pending.ranks,
        loss=_mean([loss for _, loss in pending.losses]),
        grad_norm=_mean([norm for _, norm in pending.norms]),
        nonfinite=pending.nonfinite,
        nonfinite_losses=pending.nonfinite_losses,
        bad_rank=pending.bad[1] if pending.bad is not None else -1,
        told={name: value for name, value in zip(TOLD, pending.told, strict=False) if value is not None},
        spreads=pending.spreads or {},
    )


def _mean(values: list[float]) -> float | None:
    if not values:
        return None
    total = 0.0
    for value in values:  # one after the other: `sum` adds otherwise from Python 3.12 on, and a replay must not
        total += value
    mean = total / len(values)
    if math.isinf(mean) and all(map(math.isfinite, values)):  # the sum overflowed, the mean need not
        return math.fsum(value / len(values) for value in values)
    return mean


def is_exhausted(attempt: Attempt) -> bool:
    """Whether nothing that rank 0 has reached is still waiting for other ranks."""
    return not attempt.pending or min(attempt.pending) > attempt.high.get(0, -1)


def drop_beyond_rank_0(attempt: Attempt) -> None:
    """Rank 0 went no further: where other ranks are ahead of it, they speak of steps that the run never finished."""
    last = attempt.high.get(0, -1)
    attempt.pending = {step: row for step, row in attempt.pending.items() if step <= last}
