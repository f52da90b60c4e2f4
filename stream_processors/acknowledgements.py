"""What of a partition may be acknowledged: strictly in offset order, and nothing that was not delivered before it.

Pure. Faust commits past records that were never acknowledged (its lists forget the head of the queue), so it is not
asked: the shells keep one `Position` per partition, and `transport` commits exactly what they say. `governor` and
`archiver` drive it: `deliver` for every record as it comes, `done` when its effects are durable.
"""

from enum import Enum


class Delivery(Enum):
    """How a record stands to the one before it."""

    NEXT = "next"
    REPEATED = "repeated"
    """Its effects are on their way or done already: pass it over."""
    HOLE = "hole"
    """Records before it were never delivered: retention took them, or the client delivers out of order."""


class Position:
    """How far one partition has been delivered, and how far it is done.

    `committed` is where the group stood when this assignment began; None when it has never committed, and reading
    begins wherever the log begins. `whole`: every record of the log so far was delivered here, from the first one on.
    """

    __slots__ = ("acknowledged", "committed", "next_offset", "whole")

    def __init__(self, committed: int | None) -> None:
        self.committed = committed
        self.next_offset = committed
        self.acknowledged = committed
        self.whole = False

    def deliver(self, offset: int) -> Delivery:
        """Take note of a record; `accept_hole` must be called before a HOLE can be passed."""
        if self.next_offset is not None and offset < self.next_offset:
            return Delivery.REPEATED
        if self.next_offset is not None and offset > self.next_offset:
            return Delivery.HOLE
        self.whole = self.whole or offset == 0
        self.next_offset = offset + 1
        return Delivery.NEXT

    def accept_hole(self, offset: int) -> None:
        """The records before this one are lost for good: go on from here."""
        self.next_offset = offset
        self.whole = False

    def done(self, next_offset: int) -> int | None:
        """Everything before `next_offset` is durable; the position to acknowledge, or None when nothing is new.

        Raises:
            ValueError: it was never delivered: a bug that would lose records.
        """
        if self.next_offset is None or next_offset > self.next_offset:
            raise ValueError(f"offset {next_offset} is acknowledged, but delivery has reached {self.next_offset}")
        if self.acknowledged is not None and next_offset <= self.acknowledged:
            return None
        self.acknowledged = next_offset
        return next_offset
