"""The archive as the governor needs it when the log was lost: which runs go on, what was recorded, what was decided.

`app` composes one over `storage`; a new epoch of the log (`governor.assign`) asks it, and nothing else does, so that a
slow archive never delays control.
"""

from typing import Protocol

from ..events.union import AnyDecision, Record


class History(Protocol):
    """Every method may block, and raises `ArchiveUnavailable` or `StackNotRunning` while there is no archive."""

    def unfinished(self) -> list[str]:
        """Ids of the runs that have not ended."""

    def rebuild(self, run_id: str) -> list[Record]:
        """The run's facts and its partition's ticks, in log order."""

    def decisions(self, run_id: str) -> list[AnyDecision]:
        """What was decided for the run already."""
