"""From the features of a step to the conditions they speak of: one judge a condition, each of them pure.

`judging` asks them in the order of `OF_A_STEP` and notes what they conclude. A judge that lacks what it needs leaves
its condition as it is: no data is no news.
"""

from collections.abc import Callable, Mapping

from ..events.decisions import ConditionType
from ..governance import conditions as judge
from ..governance.conditions import Condition, Verdict
from .detectors import hang, pace, updates, usual
from .detectors.hang import Wait
from .detectors.inputs import Drift
from .rank_verdicts import synchronized

Features = Mapping[str, float]
Judge = Callable[[Condition, Features, int], Verdict]
"""The condition as it stands (its statistic and its run-lengths are the judge's to keep), the features of one more
step, and the first step of what is wrong now (-1: nothing is).
"""
INSTABILITIES = ("instability", "broken_start", "grad_explosion", "update_excess")
"""Each in units of what it takes to alarm."""
OF_EVERY_STEP: tuple[ConditionType, ...] = ("Finite", "Stable", "Progressing")
"""What may change at any step; the others are judged by what is said of blocks of steps."""
NONFINITE_EVIDENCE = ("nonfinite", "nonfinite_losses", "nonfinite_rank", "overflows", "loss", "grad_norm")
NONE_ALLOWED = judge.Threshold(enter=1.0, exit=1.0, for_steps=1, keep_for=1)
STABLE_EVIDENCE = ("loss", "loss_z", "loss_baseline", "loss_scale", "loss_drift", "grad_z", "instability")
OF_THE_LOSS = {"LossAboveBaseline": "instability", "LossClimbing": "instability", "BrokenStart": "broken_start"}
"""What only a loss can tell, and the feature that tells it."""
OVERFLOWS = 8.0
"""Steps in a row whose gradients alone are not finite, while the loss is as usual. A loss scaler overflows now and
then, and some times in a row at the start; where it does not come back no step is taken any more. Who trains without
one has a NaN loss one step later.
"""
START_EVIDENCE = ("loss", "loss_at_start", "broken_start", "lr")
GRADIENT_EVIDENCE = ("grad_norm", "grad_baseline", "grad_z", "grad_explosion", "update_ratio", "update_excess", "loss")
VANISHING_EVIDENCE = ("grad_vanishing", "grad_norm_before", "grad_norm", "update_ratio", "lr", "loss")
PLATEAU_EVIDENCE = ("plateau", "plateau_since", "plateau_level", "plateau_expected", "guessing_among", "loss", "lr")
GENERALIZING_EVIDENCE = ("overfitting", "val_loss", "val_best", "val_best_step", "val_rise", "train_fall", "val_gap")
LEAST_TRAIN_FALL = 0.01
"""In logarithms: a training loss that fell by less since the best evaluation stands still."""
STEPS_ENDING = Verdict("True", "StepsEnding", "steps are ending")
AS_EFFICIENT = Verdict("True", "AsUsual", "the run is as fast as it usually is")

ALL_FINITE = Verdict("True", "AllFinite", "losses and gradient norms are finite")
WITHIN_BASELINE = Verdict("True", "WithinBaseline", "the loss is within its recent range")


def finite(condition: Condition, seen: Features, onset: int) -> Verdict:
    count = seen["nonfinite"]
    condition.x = count
    overflows = seen.get("overflows", 0.0)
    if overflows:
        if overflows < OVERFLOWS:
            return judge.unchanged(condition)
        message = f"gradient norms have been NaN or infinite for {overflows:.0f} steps, the losses were finite"
        return Verdict("False", "NonFinite", f"{message}, {_first_bad(seen)}", _nonfinite(seen, int(overflows), onset))
    if count:
        message = f"{count:.0f} losses or gradient norms are NaN or infinite, {_first_bad(seen)}"
        return Verdict("False", "NonFinite", message, _nonfinite(seen, 1, onset))
    if "loss" not in seen and "grad_norm" not in seen:
        return judge.unchanged(condition)
    return ALL_FINITE


def _first_bad(seen: Features) -> str:
    what = "loss" if seen.get("nonfinite_losses") else "gradient norm"
    return f"first the {what} of rank {seen.get('nonfinite_rank', 0.0):.0f}"


def _nonfinite(seen: Features, window: int, onset: int) -> dict[str, float]:
    """Of that no more than one is allowed to be."""
    return judge.evidence(seen, NONFINITE_EVIDENCE, NONE_ALLOWED, window, onset)


def stable(condition: Condition, seen: Features, onset: int) -> Verdict:
    x = _most(seen, INSTABILITIES)
    if x is None or (x < judge.STABLE.enter and _waits_for_loss(condition, seen)):
        return judge.unchanged(condition)
    if judge.hysteresis(condition, judge.STABLE, x) == "True":
        return WITHIN_BASELINE
    if x < judge.STABLE.enter:
        return judge.unchanged(condition)  # on its way back
    return _unstable(condition, seen, x, onset)


def _waits_for_loss(condition: Condition, seen: Features) -> bool:
    """A row without a loss says nothing of one that was too high."""
    return condition.status == "False" and condition.reason in OF_THE_LOSS and "instability" not in seen


def _unstable(condition: Condition, seen: Features, x: float, onset: int) -> Verdict:
    """By what was told already, while it is an alarm, else by what has reached furthest; `x` is how far."""
    if (by := OF_THE_LOSS.get(condition.reason)) is not None and seen.get(by, 0.0) >= judge.STABLE.enter:
        x = seen[by]
    if seen.get("broken_start") == x:
        return _broken_start(seen, onset)
    if seen.get("instability") != x:
        return _gradient_exploding(seen, onset)
    evidence = judge.evidence(seen, STABLE_EVIDENCE, judge.STABLE, usual.WINDOW, onset)
    if seen["loss_drift"] >= x:
        message = f"the loss has climbed to {seen['loss']:.4g} since step {onset}"
        return Verdict("False", "LossClimbing", message, evidence)
    message = f"loss {seen['loss']:.4g} is {seen['loss_z']:.1f} scale units above its recent median"
    return Verdict("False", "LossAboveBaseline", f"{message} {seen['loss_baseline']:.4g}", evidence)


def _broken_start(seen: Features, onset: int) -> Verdict:
    message = f"the loss has not been lower than at its first steps, where it was {seen['loss_at_start']:.4g}"
    window = int(seen["steps_observed"])
    return Verdict("False", "BrokenStart", message, judge.evidence(seen, START_EVIDENCE, judge.STABLE, window, onset))


def _gradient_exploding(seen: Features, onset: int) -> Verdict:
    evidence = judge.evidence(seen, GRADIENT_EVIDENCE, judge.STABLE, usual.WINDOW, onset)
    if seen.get("grad_explosion", 0.0) >= seen.get("update_excess", 0.0):
        message = f"gradient norm {seen['grad_norm']:.4g}, usually {seen['grad_baseline']:.4g}, since step {onset}"
    else:
        message = "updates are more than a tenth of the weights, ten times what they were"
    return Verdict("False", "GradientExploding", message, evidence)


def progressing(condition: Condition, seen: Features, _: int) -> Verdict:
    """Steps end, or none of this would be asked; whether they lead anywhere."""
    condition.x = 0.0
    if seen.get("grad_vanishing", 0.0) >= _bound(condition, "GradientVanishing"):
        window, since = updates.BLOCK * updates.BLOCKS, seen.get("vanishing_since", -1.0)
        evidence = judge.evidence(seen, VANISHING_EVIDENCE, judge.LEARNING, window, since)
        message = "gradient norm or update fell to a hundredth of what it was, and the loss has stood still since"
        return Verdict("False", "GradientVanishing", message, evidence)
    if seen.get("plateau", 0.0) >= judge.LEARNING.enter:
        since = seen["plateau_since"]
        evidence = judge.evidence(seen, PLATEAU_EVIDENCE, judge.LEARNING, int(seen["plateau_window"]), since)
        return Verdict("False", "Plateau", _stuck(seen), evidence)
    return STEPS_ENDING


def _stuck(seen: Features) -> str:
    stands = f"has stood at {seen['plateau_level']:.4g}"
    since = f"since step {seen['plateau_since']:.0f}"
    if "guessing_among" in seen:
        return f"the loss {stands}, where guessing among {seen['guessing_among']:.0f} classes does, {since}"
    return f"the loss fell steadily and {stands} {since}"


def generalizing(condition: Condition, seen: Features, _: int) -> Verdict:
    x = condition.x = seen.get("overfitting")
    if x is None:
        return judge.unchanged(condition)
    if judge.hysteresis(condition, judge.LEARNING, x) == "True":
        return Verdict("True", "ValidationFollows", "the validation loss has not risen from its lowest")
    message = (
        f"validation loss {seen['val_loss']:.4g}, at its lowest {seen['val_best']:.4g} "
        f"at step {seen['val_best_step']:.0f}"
    )
    best = seen["val_best_step"]
    evidence = judge.evidence(seen, GENERALIZING_EVIDENCE, judge.LEARNING, int(seen["val_window"]), best)
    if seen["train_fall"] >= LEAST_TRAIN_FALL:
        return Verdict("False", "Overfitting", f"{message}; the training loss goes on falling", evidence)
    return Verdict("False", "ValidationRising", f"{message}; the training loss stands still", evidence)


def _bound(condition: Condition, reason: str) -> float:
    """Where a condition fails for a reason, or, failing for it already, holds again."""
    holds_on = condition.status == "False" and condition.reason == reason
    return judge.LEARNING.exit if holds_on else judge.LEARNING.enter


# -------------------------------------------------------------------------------------------------- where time goes

CAUSES = (
    ("straggler", "Straggler"),
    ("data_starved", "DataStarved"),
    ("comm_bound", "CommBound"),
    ("throughput_sag", "ThroughputSag"),
)
"""By the feature that says so, 1 being an alarm: what causes the others goes before them."""
EFFICIENT_EVIDENCE = (
    *(name for name, _ in CAUSES),
    "straggler_rank",
    "straggler_since",
    "straggler_score",
    "straggler_share",
    "straggler_victims",
    "data_wait_share",
    "data_wait_usual",
    "comm_share",
    "comm_usual",
    "throughput_share",
    "inefficient_since",
)


def efficient(condition: Condition, seen: Features, _: int) -> Verdict:
    known = [(reason, seen[name]) for name, reason in CAUSES if name in seen]
    if not known:
        return judge.unchanged(condition)
    x = max(value for _, value in known)
    if judge.hysteresis(condition, judge.EFFICIENT, x) == "True":
        return AS_EFFICIENT
    reason = next((reason for reason, value in known if value >= judge.EFFICIENT.enter), condition.reason)
    since = seen.get("straggler_since" if reason == "Straggler" else "inefficient_since", -1.0)
    evidence = judge.evidence(seen, EFFICIENT_EVIDENCE, judge.EFFICIENT, pace.ROWS, since)
    return Verdict("False", reason, _slow(reason, seen), evidence)


def _slow(reason: str, seen: Features) -> str:
    since = f" since step {seen['inefficient_since']:.0f}" if "inefficient_since" in seen else ""
    match reason:
        case "Straggler":
            return _straggling(seen)
        case "DataStarved":
            return _taken("waits for data", seen, "data_wait") + since
        case "CommBound":
            return _taken("is in collectives", seen, "comm") + since
        case _:
            return f"the run has {seen.get('throughput_share', 0.0):.0%} of its usual speed{since}"


def _straggling(seen: Features) -> str:
    others, lost = seen.get("straggler_victims", 0.0), seen.get("straggler_share", 0.0)
    since = seen.get("straggler_since", -1.0)
    return (
        f"rank {seen.get('straggler_rank', -1.0):.0f} is slower than the {others:.0f} others, which wait for it "
        f"since step {since:.0f}: {lost:.0%} of the step"
    )


def _taken(doing: str, seen: Features, name: str) -> str:
    usual = f", usually {seen[f'{name}_usual']:.0%}" if f"{name}_usual" in seen else ""
    return f"the run {doing} for {seen.get(f'{name}_share', 0.0):.0%} of its time{usual}"


def no_step_ended(wait: Wait, stage: str) -> Verdict:
    """Nothing ended for longer than is allowed in this stage."""
    what = "no step ended" if stage in hang.TRAINING else f"stage {stage} has not ended"
    usually = f"; it usually takes up to {wait.usual:.0f} s" if wait.usual else ""
    evidence = {"waited_s": wait.waited, "allowed_s": wait.allowed}
    if wait.usual:
        evidence["usual_s"] = wait.usual
    return Verdict("False", judge.NO_STEP_ENDED, f"{what} for {wait.waited:.0f} s{usually}", evidence)


def in_distribution(condition: Condition, drift: Drift) -> Verdict:
    """Whether the inputs still come from where they came from."""
    if judge.hysteresis(condition, judge.DRIFT, drift.x) == "True":
        return Verdict("True", "InputsAsBefore", "profiled inputs are distributed as in their first windows")
    psi, since = drift.evidence["psi"], f" since step {drift.since}" if drift.since >= 0 else ""
    message = f"input {drift.name!r} is distributed otherwise than in its first windows{since}: PSI {psi:.3g}"
    return Verdict("False", "InputDrifted", message, drift.evidence | {"since_step": float(drift.since)})


OF_A_STEP: tuple[tuple[ConditionType, Judge], ...] = (
    ("Finite", finite), ("Stable", stable), ("Progressing", progressing), ("Generalizing", generalizing),
    ("Efficient", efficient), ("Synchronized", synchronized),
)  # fmt: skip

BY_BLOCKS: tuple[tuple[ConditionType, tuple[str, ...], float], ...] = (
    ("Generalizing", ("overfitting",), judge.LEARNING.enter),
    ("Efficient", tuple(name for name, _ in CAUSES), judge.EFFICIENT.enter),
    ("Synchronized", ("ranks_disagree", "rank_apart"), judge.SYNCHRONIZED.enter),
)
"""What is judged by what detectors say of blocks of steps: the features it is judged by, and where it fails."""


def goes_on_well(conditions: Mapping[ConditionType, Condition], seen: Features, *, news: bool) -> bool:
    """Whether all judges would say of this step what they said of the last, where that was that all is well or nothing
    is known; their statistics are noted as they would. `news`: detectors have spoken of a block of steps.
    """
    known = all(conditions[name].status == "True" for name in OF_EVERY_STEP)
    x = _most(seen, INSTABILITIES)
    if not known or seen["nonfinite"] or x is None or x >= judge.STABLE.enter:
        return False
    if news and not _blocks_go_on_well(conditions, seen):
        return False
    conditions["Finite"].x = conditions["Progressing"].x = 0.0
    conditions["Stable"].x = x
    return True


def _blocks_go_on_well(conditions: Mapping[ConditionType, Condition], seen: Features) -> bool:
    if max(seen.get("grad_vanishing", 0.0), seen.get("plateau", 0.0)) >= judge.LEARNING.enter:
        return False
    for name, features, enter in BY_BLOCKS:
        condition, x = conditions[name], _most(seen, features)
        if condition.status == "True" and x is not None and x < enter:
            condition.x = x
        elif condition.status != "Unknown" or x is not None:
            return False
    return True


def _most(seen: Features, names: tuple[str, ...]) -> float | None:
    """The largest of those that are known."""
    most = None
    for name in names:
        x = seen.get(name)
        if x is not None and (most is None or x > most):
            most = x
    return most
