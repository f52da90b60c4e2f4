"""What governance concludes: conditions, phases, incidents, and the life of an intervention.

Written only by the governor, to the control topic; read by trainers, the archiver and people. An intervention lives
proposed -> (approved | declined | expired) -> issued -> receipts -> verified, all under one `intervention_id`.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .actions import Action, CheckpointRef, Pause, Resume, Stop
from .envelope import Count, Decision, Name, Numbers, Text

ConditionType = Literal[
    "Finite",
    "Stable",
    "Progressing",
    "Generalizing",
    "Efficient",
    "Synchronized",
    "TelemetryFresh",
    "Recoverable",
    "InDistribution",
]
"""`InDistribution` is about the data and for people: nothing else looks at it, and no rule touches a run for it."""
Status = Literal["True", "False", "Unknown"]
Phase = Literal["Unknown", "Warmup", "Normal", "Stressed", "Unstable", "Diverged", "Stalled", "Recovering", "Ended"]
Severity = Literal["page", "ticket", "info"]
Mode = Literal["observe", "propose", "enforce"]
OPERATOR = "operator"
"""What stands as the rule of a person's own order; no rule of a policy may be called so."""
VerificationOutcome = Literal["recovered", "ineffective", "inconclusive", "reverted"]


class ConditionChanged(Decision):
    """A condition took another status or reason. `evidence` holds the values it was judged by."""

    kind: Literal["condition_changed"] = "condition_changed"
    condition: ConditionType
    status: Status
    was: Status
    reason: Name
    message: Text
    since_step: int
    evidence: Numbers = {}


class PhaseChanged(Decision):
    """The run's phase changed. `margin` is the stability margin, absent when nothing is known."""

    kind: Literal["phase_changed"] = "phase_changed"
    phase: Phase
    was: Phase
    reason: Name
    margin: float | None = None
    evidence: Numbers = {}


class RunAssessed(Decision):
    """How the run stands, at most once a Tick and only when steps were judged, and once more at its end: what gauges
    and timelines are drawn from. `stability_score` is of the whole run so far (`governance.score` says of what).
    """

    schema_version: ClassVar[int] = 2

    kind: Literal["run_assessed"] = "run_assessed"
    phase: Phase
    margin: float | None = None
    stability_score: float | None = None
    features: Numbers = {}


class InterventionProposed(Decision):
    """A rule fired and its action passed the bounds. In mode `observe` it goes no further than this."""

    kind: Literal["intervention_proposed"] = "intervention_proposed"
    intervention_id: Name
    incident_id: str = ""
    rule: Name
    severity: Severity
    mode: Mode
    action: Action
    reason: Text
    needs_approval: bool = False
    evidence: Numbers = {}


class InterventionApproved(Decision):
    """A person, or the policy for them, agreed."""

    kind: Literal["intervention_approved"] = "intervention_approved"
    intervention_id: Name
    who: Name
    why: Text = ""


class InterventionDeclined(Decision):
    """A person, a timeout default or a limit said no."""

    kind: Literal["intervention_declined"] = "intervention_declined"
    intervention_id: Name
    who: Name
    why: Text = ""


class InterventionIssued(Decision):
    """The command itself: trainers of this attempt apply it at one agreed step, not later than `expires_step`."""

    kind: Literal["intervention_issued"] = "intervention_issued"
    intervention_id: Name
    rule: Name
    action: Action
    expires_step: Annotated[int, Field(ge=0)]
    who: Name = "policy"

    @property
    def concerns_the_run(self) -> bool:
        """Whether it is a person's order about the run itself, which holds whatever attempt has begun meanwhile."""
        return self.rule == OPERATOR and isinstance(self.action, Pause | Resume | Stop)


class InterventionExpired(Decision):
    """No receipt came within its time to live."""

    kind: Literal["intervention_expired"] = "intervention_expired"
    intervention_id: Name
    reason: Text


class InterventionVerified(Decision):
    """Whether it helped, judged over the policy's verification window."""

    kind: Literal["intervention_verified"] = "intervention_verified"
    intervention_id: Name
    outcome: VerificationOutcome
    reason: Text
    window_steps: Count
    evidence: Numbers = {}


class CheckpointRejected(Decision):
    """A checkpoint is no longer a candidate for recovery (a trainer could not verify it)."""

    kind: Literal["checkpoint_rejected"] = "checkpoint_rejected"
    checkpoint: CheckpointRef
    reason: Text


class IncidentOpened(Decision):
    """The run left the good phases. `onset_step` is the first evidence, which is earlier than the judgement."""

    kind: Literal["incident_opened"] = "incident_opened"
    incident_id: Name
    onset_step: int
    condition: ConditionType
    reason: Name
    evidence: Numbers = {}


class IncidentResolved(Decision):
    """The run is well again, or over."""

    kind: Literal["incident_resolved"] = "incident_resolved"
    incident_id: Name
    outcome: Literal["recovered", "ended"]
    onset_step: int
    steps_lost: Count = 0


class AdviceRequested(Decision):
    """An advisor is asked, with all the evidence; nothing waits for the answer."""

    kind: Literal["advice_requested"] = "advice_requested"
    request_id: Name
    question: Text
    evidence: Numbers = {}
