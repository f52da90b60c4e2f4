"""The situation that `decide` and its neighbours look at: one moment of a run."""

import msgspec

from .incidents import Incident
from .policy import Policy
from .recovery import Candidate


class Situation(msgspec.Struct, frozen=True):
    """What `decide` looks at: the variables of expressions, what the run can do and has saved, which values are in
    force as far as they are known, and how it ended.
    """

    policy: Policy
    facts: dict[str, object]
    incident: Incident | None
    onset: int
    candidates: list[Candidate]
    steers: tuple[str, ...]
    tick: int
    values: dict[str, float] = {}
    outcome: str = ""

    @property
    def incident_id(self) -> str:
        return self.incident.incident_id if self.incident else ""
