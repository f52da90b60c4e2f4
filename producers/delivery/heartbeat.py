"""The pulse of a run: a `Heartbeat` every few seconds, told by the SDK's own thread, whatever the training thread
does.

Asked by `delivery.outbox` at every round. At scale the ranks other than 0 beat more slowly, so that all of them
together stay within what one partition can carry.
"""

from dataclasses import dataclass

from ...events.telemetry import Stage
from .accounts import Counts

RECORDS_PER_SECOND = 500
"""What all ranks together may send on their own account, heartbeats and flushes each."""


@dataclass(slots=True)
class Pulse:
    """When the next beat is due; times are the caller's clock, in seconds."""

    interval: float
    next: float = 0.0

    def due(self, now: float) -> bool:
        """Whether to beat now; the next one is an interval later."""
        if now < self.next:
            return False
        self.next = now + self.interval
        return True


def interval_at_scale(seconds: float, rank: int, world_size: int) -> float:
    """`seconds` for rank 0 and small jobs; longer where `world_size` ranks would together send too much."""
    return seconds if rank == 0 else max(seconds, world_size / RECORDS_PER_SECOND)


def heartbeat_fields(stage: Stage, step: int, counts: Counts) -> dict[str, object]:
    """The fields of a `Heartbeat`."""
    return {
        "stage": stage,
        "step": step,
        "queued": counts.queued,
        "sent": counts.sent,
        "spooled": counts.spooled,
        "dropped": counts.dropped,
    }
