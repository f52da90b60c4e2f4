"""Whether a record is new, a duplicate, or shows that something before it is missing.

Facts of one writer are numbered without gaps, so a run's state knows how far it has folded. A number that jumps
without a `TelemetryGap` to explain it means that this state is older than the log (the governor restarts and looks
again) or that the log lost records (accepted then, counted, and said). Called by `fold` before anything else.
"""

from base64 import urlsafe_b64encode
from enum import Enum
from functools import lru_cache
from hashlib import blake2b

from ..events.telemetry import TelemetryGap
from ..events.union import AnyInput
from .run_state import MAX_LOST, MAX_TICKERS, MAX_WRITERS, RunState


class Verdict(Enum):
    """What the fold did with a record."""

    FOLDED = "folded"
    DUPLICATE = "duplicate"
    GAP = "gap"


def admit(state: RunState, event: AnyInput, *, accept_gap: bool) -> Verdict:
    """Judge the record's number and, unless it is a gap, remember it."""
    is_tick = event.kind == "tick"
    numbers = state.tickers if is_tick else state.positions
    writer = short(event.writer_id)
    last = numbers.get(writer)
    if last is not None and event.seq <= last:
        return Verdict.DUPLICATE
    if is_tick and state.ended:
        return Verdict.FOLDED  # an ended run sleeps: nobody needs to show it time, and where it woke is no gap
    missing = 0 if is_tick and (last is None or writer in state.asleep) else _missing(event, last or 0)
    if missing and not accept_gap:
        return Verdict.GAP
    state.lost_records = min(state.lost_records + missing, MAX_LOST)
    if writer in state.asleep:
        state.asleep.remove(writer)
    _remember(numbers, writer, event.seq, MAX_TICKERS if is_tick else MAX_WRITERS)
    return Verdict.FOLDED


@lru_cache(maxsize=4_096)
def short(name: str) -> str:
    """A name of any length in 12 characters: a run's state is bounded in bytes, and remembers thousands."""
    return urlsafe_b64encode(blake2b(name.encode(), digest_size=9).digest()).decode()


def _missing(event: AnyInput, last: int) -> int:
    """How many records of this writer were never seen and are not explained."""
    missing = event.seq - last - 1
    if missing and isinstance(event, TelemetryGap):
        seen = last
        for start, end in sorted(event.missing):
            upto = min(end, event.seq - 1)
            missing -= max(0, upto - max(start - 1, seen))
            seen = max(seen, upto)
    return missing


def _remember(numbers: dict[str, int], writer: str, seq: int, most: int) -> None:
    numbers.pop(writer, None)
    numbers[writer] = seq  # newest last: the order of the dict is the order of eviction
    while len(numbers) > most:
        del numbers[next(iter(numbers))]
