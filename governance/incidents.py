"""Incidents: from the first evidence that a run left its good phases until it is well again.

One incident at a time; what happens while it is open belongs to it. `onset_step` is the first step of the excursion,
which is earlier than the judgement, and is what the last good checkpoint is chosen by. Called by
`stream_processors.judging` once per judgement.
"""

import msgspec

from ..events.decisions import ConditionType, IncidentOpened, IncidentResolved
from .conditions import Condition
from .desk import Desk

GRAVE: tuple[ConditionType, ...] = ("Finite", "Stable", "Progressing")
"""The conditions whose failure opens an incident, where it is grave."""


class Incident(msgspec.Struct):
    """The incident that is open now. `steps_lost` counts the steps that rollbacks undid, `seconds_lost` what they and
    their undone training took, `rank_hours_lost` that for every rank.
    """

    incident_id: str
    onset_step: int
    opened_step: int
    steps_lost: int = 0
    seconds_lost: float = 0.0
    rank_hours_lost: float = 0.0

    def cost(self, seconds: float, ranks: int) -> None:
        """A rollback of so many ranks threw away so much of the run."""
        self.seconds_lost += seconds
        self.rank_hours_lost += seconds * ranks / 3_600


def advance(
    incident: Incident | None, conditions: dict[ConditionType, Condition], onset: int, healing: bool, desk: Desk
) -> Incident | None:
    """Open or resolve. `onset` is the first suspect step; `healing` tells that an intervention is being verified."""
    failing = gravest(conditions)
    if incident is None:
        return None if failing is None else _open(failing, onset, desk)
    well = failing is None and conditions["Finite"].status == "True" and conditions["Stable"].status == "True"
    if not well or healing:
        return incident
    _resolve(incident, "recovered", desk)
    return None


def gravest(conditions: dict[ConditionType, Condition]) -> Condition | None:
    """The first of the grave conditions that fails."""
    for name in GRAVE:
        if conditions[name].is_grave:
            return conditions[name]
    return None


def end(incident: Incident | None, desk: Desk) -> None:
    """The run is over, and with it what was open."""
    if incident is not None:
        _resolve(incident, "ended", desk)


def _open(failing: Condition, onset: int, desk: Desk) -> Incident:
    incident_id = desk.new_id("incident", f"onset {onset}")
    desk.decide(
        IncidentOpened,
        incident_id,
        incident_id=incident_id,
        onset_step=onset,
        condition=failing.type,
        reason=failing.reason,
        evidence=failing.evidence,
    )
    return Incident(incident_id, onset, desk.step)


def _resolve(incident: Incident, outcome: str, desk: Desk) -> None:
    desk.decide(
        IncidentResolved,
        incident.incident_id,
        incident_id=incident.incident_id,
        outcome=outcome,
        onset_step=incident.onset_step,
        steps_lost=incident.steps_lost,
        seconds_lost=incident.seconds_lost,
        rank_hours_lost=incident.rank_hours_lost,
    )
