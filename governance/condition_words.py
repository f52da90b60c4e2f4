"""What conditions, their reasons and phases mean, in a sentence each: for whoever meets one for the first time.

The reference pages are made of it; a test holds it to the judges (`stream_processors.verdicts`, `judging`), so that no
reason is without its words. Bounds and sources stand in docs/detection.md.
"""

from collections.abc import Mapping

from ..events.decisions import ConditionType, Phase

CONDITIONS: Mapping[ConditionType, str] = {
    "Finite": "Losses and gradient norms are finite.",
    "Stable": "The loss stays within its own recent range, and gradients and updates within theirs.",
    "Progressing": "Steps end, and lead somewhere.",
    "Generalizing": "The validation loss has not risen from its lowest.",
    "Efficient": "The run is as fast as it usually is, and no rank holds up the others.",
    "Synchronized": "What must be equal on all ranks is, and no rank is struck again and again.",
    "TelemetryFresh": "The run is heard of. Where this is not True, the phase is Unknown and nothing is judged.",
    "Recoverable": "There is a checkpoint from which the run can safely go on.",
    "InDistribution": "Profiled inputs are distributed as at the start. For people: no rule may touch a run for it.",
}
"""What is so while the condition is True."""

REASONS: Mapping[str, tuple[ConditionType, str]] = {
    "NonFinite": ("Finite", "A loss is NaN or infinite; or gradient norms are, eight steps in a row."),
    "LossAboveBaseline": ("Stable", "The loss left its recent range and stayed outside."),
    "LossClimbing": ("Stable", "The loss climbs, step by step, where no single step stands out."),
    "BrokenStart": ("Stable", "The loss has only risen since the first steps, or never fallen from an enormous one."),
    "GradientExploding": ("Stable", "Gradient norms, or updates, are far above the usual ones."),
    "NoStepEnded": ("Progressing", "Ranks live and no step ended for far longer than usual: a hang."),
    "GradientVanishing": ("Progressing", "The gradient fell to a hundredth and the loss has stood still since."),
    "Plateau": ("Progressing", "The loss came to a halt from a steady fall, or stands where guessing does."),
    "Overfitting": ("Generalizing", "The validation loss rises while the training loss goes on falling."),
    "ValidationRising": ("Generalizing", "The validation loss rises while the training loss stands still."),
    "Straggler": ("Efficient", "One rank, which is named, is waited for by the others."),
    "DataStarved": ("Efficient", "Steps wait for data, more than usual."),
    "CommBound": ("Efficient", "Collectives take more of the time than usual."),
    "ThroughputSag": ("Efficient", "Under 80 percent of the usual speed, for none of the reasons above."),
    "RanksDisagree": ("Synchronized", "A norm that was equal on all ranks differs between them."),
    "RankApart": ("Synchronized", "One rank is far from the others again and again: its arithmetic or its data."),
    "Silent": ("TelemetryFresh", "Nothing was heard for too long."),
    "NotStarted": ("TelemetryFresh", "Telemetry of a run that nobody started."),
    "StepsWentBack": ("TelemetryFresh", "Steps went back and no new attempt was announced."),
    "TelemetryLost": ("TelemetryFresh", "Steps or records were lost for good; the status stays what it was."),
    "NoCheckpointYet": ("Recoverable", "No checkpoint was saved while the run was stable, so far."),
    "CheckpointsRejected": ("Recoverable", "Every checkpoint that was saved while stable turned out unusable."),
    "InputDrifted": ("InDistribution", "A profiled input is distributed otherwise than in its first windows."),
}
"""Why a condition is False or Unknown."""

PHASES: Mapping[Phase, str] = {
    "Ended": "The run is over; the reason is its outcome.",
    "Diverged": "Finite is False, or Stable is False at ten times its bound.",
    "Recovering": "Something was applied, and whether it helped is being watched.",
    "Unknown": "TelemetryFresh is not True.",
    "Unstable": "Stable is False.",
    "Stalled": "No step ends: Progressing is False with NoStepEnded.",
    "Stressed": "Another condition is False, or the margin is under 0.25.",
    "Warmup": "There is no baseline yet.",
    "Normal": "None of these.",
}
"""When a run is in a phase: the first that holds, in this order."""
