"""Policy expressions: CEL, compiled once, checked at load against what a run can know.

An expression sees `features` (doubles by name), `conditions` (status by type, as 'True', 'False' or 'Unknown'),
`reasons` (why, by type: the reason of `ConditionChanged`), `phase` (a string) and `margin` (a double, 1.0 while nothing
is known). A feature that is not known is absent, so an expression that needs it says `has(features.loss_z)`; one that
does not has no answer while it is absent, and is not true. `expression_check` looks at expressions when a policy is
loaded, `decide` asks once per judged step.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import product
from typing import Any, get_args

import cel
from msgspec.structs import replace

from ..events.decisions import ConditionType, Phase, Status
from . import comparisons
from .conditions import Condition

FEATURES: dict[str, str] = {
    "loss": "mean loss over the ranks, as logged",
    "grad_norm": "mean gradient norm over the ranks",
    "lr": "learning rate logged by rank 0",
    "val_loss": "last validation loss",
    "throughput": "throughput logged by rank 0, in its own unit",
    "step_s": "seconds of the step, logged by rank 0",
    "data_wait_s": "seconds the step waited for data, on rank 0",
    "compute_s": "seconds the step computed, on rank 0",
    "comm_s": "seconds of the step in collectives, on rank 0",
    "update_ratio": "size of the update over the size of the weights, logged by rank 0",
    "loss_z": "robust z score of the loss (its logarithm while it is positive) against the run's own recent past",
    "grad_z": "robust z score of the log gradient norm",
    "broken_start": "how far the loss has risen from its first steps, or not fallen from a huge one: 1 is an alarm",
    "loss_at_start": "median loss of the first eight steps, until the loss has fallen below it",
    "grad_baseline": "median gradient norm of the recent past",
    "grad_explosion": "how near the norms of the last three steps come to an explosion: 1 is one",
    "grad_vanishing": "how far the gradient (or the update) has vanished while the loss stands still: 1 is an alarm",
    "vanishing_since": "the first step at which the gradient had begun to vanish, while it has",
    "grad_norm_before": "what the gradient norm was before, in the older half of the last 512 steps",
    "update_excess": "how far update_ratio exceeds a tenth, and ten times what it was: 1 is an alarm",
    "plateau": "how abruptly a steadily falling loss has come to a halt: 1 is a plateau",
    "plateau_since": "the first step at which the loss was stuck",
    "plateau_window": "how many rows were looked at for it",
    "plateau_level": "where it is stuck",
    "guessing_among": "of how many classes a loss that stands at guessing would be, once it does",
    "plateau_expected": "by how much it should have fallen since, in its logarithm",
    "overfitting": "how far the validation loss has risen from its lowest and the training loss has not: 1 is an alarm",
    "val_gap": "validation loss minus loss_baseline, at the last evaluation",
    "val_best": "the lowest validation loss, as a mean of three",
    "val_best_step": "the step at which it was",
    "val_window": "over how many steps evaluations are compared",
    "val_rise": "by how much the validation loss is above it, in its logarithm",
    "train_fall": "by how much the training loss has fallen since then, in its logarithm",
    "loss_baseline": "median loss of the recent past",
    "loss_scale": "noise of the loss in the recent past (scaled median absolute deviation)",
    "loss_rise": "loss minus loss_baseline, in the unit of the loss",
    "loss_drift": "how far the loss has climbed, step by step, on the way to an alarm: 1 is one",
    "instability": "how near loss and gradient norm come to an alarm: 1 is one",
    "overflows": "steps in a row at which gradient norms were NaN or infinite while the loss was as usual",
    "nonfinite": "how many losses and gradient norms of this step were NaN or infinite, over all ranks",
    "nonfinite_losses": "how many of them are losses, where there are any",
    "nonfinite_rank": "the lowest rank that has one, where there are any: of the losses, if one of these is",
    "steps_observed": "steps judged since the detectors' windows were last restarted",
    "ranks_reporting": "ranks that reported this step",
    "data_wait_share": "share of the time that rank 0 waits for data, over the last block of steps",
    "data_wait_usual": "what it usually is in this run",
    "data_starved": "how far the run is starved of data: 1 is an alarm",
    "comm_share": "share of the time that collectives take on rank 0, over the last block of steps that told it",
    "comm_usual": "what it usually is in this run",
    "comm_bound": "how far the run is bound by communication: 1 is an alarm",
    "throughput_share": "speed of the last block of steps over the usual speed of this run",
    "throughput_sag": "how far the run is slower than usual: 1 is an alarm",
    "inefficient_since": "first step of what makes the run inefficient, while something is suspect",
    "input_drift": "how far the input that drifted most has drifted: 1 is a ticket; for rules that only notify",
    "input_psi": "its population stability index against its first windows; for rules that only notify",
    "input_ks": "its Kolmogorov-Smirnov distance from its first windows; for rules that only notify",
    "steps_since_good_checkpoint": "steps since the last good checkpoint",
    "straggler": "how much slower than the others the slowest rank is, lastingly: 1 is an alarm",
    "straggler_rank": "the rank that the others wait for; -1: none",
    "straggler_since": "the step since which they do; -1: none",
    "straggler_score": "relative score of the slowest rank: the time of the others over its own",
    "straggler_share": "share of the step that the others wait for the slowest rank",
    "straggler_victims": "how many ranks wait for it",
    "ranks_disagree": "whether a norm that was equal on all ranks differs between them, lastingly: 1 is an alarm",
    "disagreeing_rank": "the first rank that is apart from most; -1: there is no majority",
    "disagreeing_ranks": "about how many ranks are apart from most",
    "disagreeing_since": "the step since which ranks disagree; -1: they do not",
    "weights_spread": "how far the ranks' norms of the weights differ, relatively, where they must be equal",
    "grads_spread": "how far the ranks' norms of the reduced gradients differ, relatively, where they must be equal",
    "rank_apart": "evidence that one rank is struck again and again: 1 is an alarm",
    "apart_rank": "that rank; -1: none",
    "apart_since": "the step at which it was first; -1: none",
    "apart_strikes": "how often it was, in recent memory",
    "apart_factor": "how many times the others' value it had, or they its, the last time",
}
"""Every feature an expression may name, and what it is."""

FOR_PEOPLE = ("InDistribution", "input_drift", "input_psi", "input_ks")
"""What is said of the data, which people must judge: a rule that names it may notify and nothing else, and one that
does not name it does not see it.
"""

VARIABLES = ("features", "conditions", "reasons", "phase", "margin")

KNOWN: tuple[Status, ...] = ("True", "False")
UNKNOWN = "Unknown"
MOST_GUESSED = 4
"""Of so many unknown conditions every combination is tried."""

ALWAYS_KNOWN = frozenset({"nonfinite", "ranks_reporting", "steps_observed"})
"""The features that every judged step has; any other a run may lack."""


def holds(expression: str, facts: Mapping[str, Any]) -> bool:
    """Whether a checked expression is true of `facts`; what needs an absent feature is false."""
    try:
        return _question(expression)(facts) is True
    except Exception:  # noqa: BLE001  # the engine documents no tree of errors (seen: RuntimeError, ZeroDivisionError); none is true
        return False


def lacking(expression: str, facts: Mapping[str, Any]) -> list[str]:
    """The features for whose absence a checked expression has no answer; none where it has one, whatever is absent."""
    features: Mapping[str, float] = facts["features"]
    absent = [name for name in mentioned(expression) if name not in features]
    if not absent:
        return []
    try:
        return [] if isinstance(_question(expression)(facts), bool) else absent
    except Exception:  # noqa: BLE001  # as in `holds`: an error is CEL's word for what has no answer
        return absent


def undecided(expression: str, facts: Mapping[str, Any]) -> list[str]:
    """What a checked expression that is not true lacks, so that it might be: absent features, and conditions that are
    Unknown and that it names. None where it is false whatever those were, and where it speaks of 'Unknown' itself.
    """
    if absent := lacking(expression, facts):
        return [f"features.{name}" for name in absent]
    conditions: Mapping[str, Condition] = facts["conditions"]
    unknown = [name for name, known in conditions.items() if known.status == "Unknown" and _names(expression, name)]
    if not unknown or UNKNOWN in expression:
        return []
    guesses = product(KNOWN, repeat=min(len(unknown), MOST_GUESSED))
    might_hold = any(
        holds(expression, {**facts, "conditions": _guessed(conditions, unknown, each)}) for each in guesses
    )
    return [f"conditions.{name}" for name in unknown] if might_hold else []


def _names(expression: str, condition: str) -> bool:
    return re.search(rf"\bconditions\.{condition}\b", expression) is not None


def _guessed(
    conditions: Mapping[str, Condition], unknown: Sequence[str], statuses: Sequence[Status]
) -> dict[str, Condition]:
    """The conditions, were these known."""
    known = {name: replace(conditions[name], status=status) for name, status in zip(unknown, statuses, strict=False)}
    return {**conditions, **known}


@lru_cache(maxsize=1_024)
def mentioned(expression: str) -> tuple[str, ...]:
    """The features that an expression names, in the order of their declaration."""
    return tuple(name for name in FEATURES if re.search(rf"\b{name}\b", expression))


def facts_of(
    features: Mapping[str, float], conditions: Mapping[ConditionType, Condition], phase: Phase, margin: float | None
) -> dict[str, Any]:
    """What expressions are asked about. Nothing is copied: it holds as long as nothing is judged."""
    return {
        "features": features,
        "conditions": conditions,
        "phase": phase,
        "margin": 1.0 if margin is None else margin,
    }


@lru_cache(maxsize=1_024)
def reads_numbers(expression: str) -> bool:
    """Whether the answer may change while phase, conditions and their reasons stay what they are."""
    return not {"features", "margin"}.isdisjoint(_compiled(expression).variables())


@lru_cache(maxsize=1_024)
def _question(expression: str) -> comparisons.Question:
    """Where it only compares, a function of ours; else the engine, which alone says what an expression is."""
    program = _compiled(expression)
    return comparisons.compiled(expression) or (lambda facts: program.execute(_needed(expression, facts)))


def _needed(expression: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `facts` that the expression names: handing the engine all of them costs ten times the evaluation."""
    needed = {}
    for variable, members in _named(expression).items():
        known = _members(variable, facts)
        if members is None:
            needed[variable] = _unless_for_people(expression, known)
        else:
            needed[variable] = {name: known[name] for name in members if name in known}
    return needed


def _members(variable: str, facts: Mapping[str, Any]) -> Any:
    """A variable as the engine is to see it."""
    match variable:
        case "conditions":
            return {name: condition.status for name, condition in facts["conditions"].items()}
        case "reasons":
            return {name: condition.reason for name, condition in facts["conditions"].items()}
        case _:
            return facts[variable]


def for_people(expression: str) -> str | None:
    """What the expression names of that which only people may act on; None where it names nothing of it."""
    return next((word for word in FOR_PEOPLE if re.search(rf"\b{word}\b", expression)), None)


def _unless_for_people(expression: str, members: Any) -> Any:
    if not isinstance(members, Mapping):
        return members
    return {name: value for name, value in members.items() if name not in FOR_PEOPLE or name in expression}


@lru_cache(maxsize=1_024)
def _named(expression: str) -> dict[str, tuple[str, ...] | None]:
    """By variable, the members that the expression names; None where it may use any (an index, a macro) or has none."""
    named: dict[str, tuple[str, ...] | None] = {}
    for variable in _compiled(expression).variables():
        members = tuple(dict.fromkeys(re.findall(rf"\b{variable}\.(\w+)", expression)))
        uses = len(re.findall(rf"\b{variable}\b", expression))
        is_plain = members and uses == len(re.findall(rf"\b{variable}\.\w+\b(?!\()", expression))
        named[variable] = members if is_plain else None
    return {variable: members for variable, members in named.items() if variable in VARIABLES}


@lru_cache(maxsize=1_024)
def _compiled(expression: str) -> cel.Program:
    return cel.compile(expression)


@lru_cache(maxsize=1)
def trial() -> dict[str, Any]:
    """What the engine is given to try an expression: a run of which everything is known."""
    conditions = {name: Condition(name, status="True", reason="True") for name in get_args(ConditionType)}
    facts = facts_of(dict.fromkeys(FEATURES, 1.0), conditions, "Normal", 1.0)
    return {variable: _members(variable, facts) for variable in VARIABLES}
