"""What governance concludes: conditions, phases, incidents, and the life of an intervention.

Written only by the governor, to the control topic; read by trainers, the archiver and people. An intervention lives
proposed -> (approved | declined | expired) -> issued -> receipts -> verified, all under one `intervention_id`.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .action_surface import Choices
from .actions import Action, CheckpointRef, Pause, Resume, Stop
from .bounds import Bound, Quantity
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
SINCE_GOOD, VAL_BEST_STEP = "steps_since_good_checkpoint", "val_best_step"
"""The features of `RunAssessed` by which trainers know what must not be removed: how far back the last good checkpoint
lies, and at which step the validation loss was lowest.
"""
VerificationOutcome = Literal["recovered", "ineffective", "inconclusive", "reverted"]
AdviceOutcome = Literal[
    "proposed", "nothing", "out_of_bounds", "refused", "unanswered", "stale", "abandoned", "not_asked"
]


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
    """A rule fired and its action passed the bounds. In mode `observe` it goes no further than this. Who is asked has
    `timeout_seconds`; nobody's answer is `default`.
    """

    schema_version: ClassVar[int] = 2

    kind: Literal["intervention_proposed"] = "intervention_proposed"
    intervention_id: Name
    incident_id: str = ""
    rule: Name
    severity: Severity
    mode: Mode
    action: Action
    reason: Text
    needs_approval: bool = False
    timeout_seconds: Count = 0
    default: Literal["approve", "decline"] = "decline"
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
    """The command itself: trainers of this attempt apply it at one agreed step, not later than `expires_step`, and not
    beyond `bounds`, the policy's for what it changes.
    """

    schema_version: ClassVar[int] = 2

    kind: Literal["intervention_issued"] = "intervention_issued"
    intervention_id: Name
    rule: Name
    action: Action
    expires_step: Annotated[int, Field(ge=0)]
    who: Name = "policy"
    bounds: dict[Quantity, Bound] = {}

    @property
    def concerns_the_run(self) -> bool:
        """Whether it is a person's order about the run itself, which holds whatever attempt has begun meanwhile."""
        return self.rule == OPERATOR and isinstance(self.action, Pause | Resume | Stop)


class OrderAnswered(Decision):
    """What a person's order came to: it stands, or it is refused for `reason`. `order_id` is the order's event id;
    where it is about an intervention, what follows under `intervention_id` tells the rest.
    """

    kind: Literal["order_answered"] = "order_answered"
    order_id: Text
    verb: Name
    who: Name
    accepted: bool
    reason: Text
    intervention_id: str = ""


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
    """The run is well again, or over. Its rollbacks undid `steps_lost` steps and took `seconds_lost` of the run;
    `rank_hours_lost` is that for every rank: GPU-hours, where a rank has one GPU.
    """

    schema_version: ClassVar[int] = 2

    kind: Literal["incident_resolved"] = "incident_resolved"
    incident_id: Name
    outcome: Literal["recovered", "ended"]
    onset_step: int
    steps_lost: Count = 0
    seconds_lost: float = 0.0
    rank_hours_lost: float = 0.0


class AdviceRequested(Decision):
    """An advisor is asked, with all the evidence and all that it may choose from; nothing waits for the answer.

    `condition` and `reason` are the signature of what is wrong, `conditions` are status and reason by type, `evidence`
    the features of the last judged step, `values` those in force as far as receipts told them. An answer is held
    against `choices` and, with all else that a rule's action is, against `bounds`. What comes later than
    `within_seconds` (Ticks of the governor) is stale.
    """

    schema_version: ClassVar[int] = 2

    kind: Literal["advice_requested"] = "advice_requested"
    request_id: Name
    question: Text
    evidence: Numbers = {}
    advisor: str = ""
    rule: str = ""
    runbook: Text = ""
    incident_id: str = ""
    condition: str = ""
    reason: str = ""
    onset_step: int = -1
    phase: Phase = "Unknown"
    margin: float | None = None
    conditions: dict[str, str] = {}
    choices: Choices = ()
    bounds: dict[Quantity, Bound] = {}
    values: Numbers = {}
    within_seconds: Count = 0


class AdviceJudged(Decision):
    """What became of a question to an advisor, or of an answer that nobody waited for.

    proposed: the answer became the intervention `intervention_id`, and goes the way of any other. nothing: it proposes
    nothing. out_of_bounds, refused: it was held against the choices, and against what the rule may do now. unanswered,
    stale, abandoned: none came in time; it came too late or to nothing; the run went on without it. not_asked: the
    budget is spent.
    """

    kind: Literal["advice_judged"] = "advice_judged"
    request_id: Name
    advisor: Name
    outcome: AdviceOutcome
    reason: Text = ""
    intervention_id: str = ""
