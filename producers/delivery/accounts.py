"""The accounts of an outbox, in calls: at every moment accepted = sent + queued + spooled + dropped.

Kept by `delivery.outbox`. *Sent* is confirmed by the broker, *queued* is in memory (given to the broker or not),
*spooled* is on disk, *dropped* is gone, with its reason. What must still be said of losses leaves in the next
`TelemetryGap`.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..bad_calls import LOSSES


class Counts(NamedTuple):
    """One moment of the accounts."""

    accepted: int = 0
    sent: int = 0
    queued: int = 0
    spooled: int = 0
    dropped: int = 0


class Ledger:
    """What became of the calls that were taken in hand, and which losses nobody has been told of."""

    def __init__(self) -> None:
        self.taken = 0
        self.sent = 0
        self.dropped: Counter[str] = Counter()
        self.thinned = 0
        self._untold: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._told_thinned = 0

    def drop(self, reason: str, entries: int, *, told: bool = False) -> None:
        """Calls are gone; `told` where the log says so already."""
        self.dropped[reason] += entries
        if not told:
            self._untold[reason] += entries

    def note(self, counts: Mapping[str, int]) -> None:
        """What became of bad calls: some lost what they said, the others said nothing that could be kept."""
        for reason, count in counts.items():
            (self._untold if reason in LOSSES else self._refused)[reason] += count

    def take_untold(self, *, last: bool = False) -> dict[str, Any]:
        """The fields of a `TelemetryGap` about what happened since the last call; empty when nothing did.

        What the run's own rule left out is told when it has doubled, and at the `last` of all.
        """
        untold, self._untold, self._refused = (self._untold, self._refused), Counter(), Counter()
        dropped, refused = ({reason: count for reason, count in counts.items() if count} for counts in untold)
        gap: dict[str, Any] = {"dropped": dropped, "refused": refused} if dropped or refused else {}
        if (thinned := self.thinned - self._told_thinned) and (gap or last or thinned >= self._told_thinned):
            self._told_thinned = self.thinned
            gap = {"dropped": {}, **gap, "thinned": thinned}
        return gap
