"""Whether a record is new, a duplicate, or shows that something before it is missing.

Facts of one writer are numbered without gaps, so a run's state knows how far it has folded. A number that jumps
without a `TelemetryGap` to explain it means that this state is older than the log (the governor restarts and looks
again) or that the log lost records (accepted then, counted, and said). Called by `fold` before anything else.
"""

from enum import Enum

from ..events.commands import Tick
from ..events.telemetry import TelemetryGap
from ..events.union import AnyInput
from .run_state import MAX_WRITERS, RunState


class Verdict(Enum):
    """What the fold did with a record."""

    FOLDED = "folded"
    DUPLICATE = "duplicate"
    GAP = "gap"


def admit(state: RunState, event: AnyInput, *, accept_gap: bool) -> Verdict:
    """Judge the record's number and, unless it is a gap, remember it."""
    writer, seq = event.writer_id, event.seq
    last = state.positions.get(writer)
    if last is not None and seq <= last:
        return Verdict.DUPLICATE
    missing = _missing(event, last)
    if missing and not accept_gap:
        return Verdict.GAP
    state.lost_records += missing
    _remember(state, writer, seq)
    return Verdict.FOLDED


def _missing(event: AnyInput, last: int | None) -> int:
    """How many records of this writer were never seen and are not explained."""
    if last is None:
        if isinstance(event, Tick):
            return 0  # a ticker is older than most runs
        last = 0
    missing = event.seq - last - 1
    if missing and isinstance(event, TelemetryGap):
        missing -= sum(max(0, min(end, event.seq - 1) - max(start, last + 1) + 1) for start, end in event.missing)
    return max(0, missing)


def _remember(state: RunState, writer: str, seq: int) -> None:
    state.positions.pop(writer, None)
    state.positions[writer] = seq  # newest last: the order of the dict is the order of eviction
    while len(state.positions) > MAX_WRITERS:
        del state.positions[next(iter(state.positions))]
