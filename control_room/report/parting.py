"""The first decision in which two runs differ. Pure.

Compared is what was decided: which condition, phase, rule, action, outcome. Identities, clocks, evidence and words are
each run's own. The step at which it was decided is told apart from the rest: seeds move steps, policies and faults
change decisions. Called by `comparison`, with decisions in the order in which they were taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from ...events.decisions import RunAssessed
from ...events.union import AnyDecision

OWN = frozenset(
    {
        *(
            "run_id",
            "attempt_id",
            "attempt",
            "decision_id",
            "basis",
            "policy_hash",
            "at",
            "evidence",
            "message",
            "margin",
        ),
        *("checkpoint_id", "path", "manifest_sha256", "intervention_id", "incident_id", "request_id"),
        "window_steps",
    }
)
STEPS = frozenset({"step", "since_step", "onset_step", "expires_step", "steps_lost"})
WORDY = frozenset({"intervention_proposed", "intervention_verified", "intervention_expired", "checkpoint_rejected"})
"""Kinds whose `reason` is a text with the run's own figures in it."""

NAMING = ("condition", "status", "phase", "rule", "action.action", "outcome")
"""What a decision is called by."""

Essence = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Parting:
    """Decision `number` (from 1) of each run; None where one of them decided nothing more. `alike` were the same before
    it."""

    number: int
    ours: AnyDecision | None
    theirs: AnyDecision | None

    @property
    def alike(self) -> int:
        return self.number - 1


@dataclass(frozen=True)
class Partings:
    """Where two histories differ at all, and where in more than the step at which the same was decided."""

    decisions: tuple[int, int]
    first: Parting | None
    in_substance: Parting | None


def partings(ours: Sequence[AnyDecision], theirs: Sequence[AnyDecision]) -> Partings:
    """Assessments, one a second, are no decisions that anything follows from."""
    left = [one for one in ours if not isinstance(one, RunAssessed)]
    right = [one for one in theirs if not isinstance(one, RunAssessed)]
    return Partings(
        (len(left), len(right)), _first(left, right, with_steps=True), _first(left, right, with_steps=False)
    )


def essence(decision: AnyDecision, *, with_steps: bool) -> Essence:
    """What was decided, as named values."""
    return tuple(_leaves("", decision.model_dump(mode="json"), decision.kind, with_steps))


def words(decision: AnyDecision | None, other: AnyDecision | None) -> str:
    """What was decided, for a person: beside another decision of its kind, only what differs and what names it."""
    if decision is None:
        return "nothing more"
    alike: frozenset[tuple[str, Any]] = frozenset()
    if other is not None and other.kind == decision.kind:
        same = frozenset(essence(decision, with_steps=False)) & frozenset(essence(other, with_steps=False))
        alike = frozenset((name, value) for name, value in same if name not in NAMING)
    told = [pair for pair in essence(decision, with_steps=False) if pair[0] != "kind" and pair not in alike]
    parts = [f"{name} {value}" for name, value in told if value not in ("", None)]
    return f"step {decision.step}: {decision.kind.replace('_', ' ')}: {', '.join(parts)}"


def _first(ours: Sequence[AnyDecision], theirs: Sequence[AnyDecision], *, with_steps: bool) -> Parting | None:
    for number, (left, right) in enumerate(zip_longest(ours, theirs), start=1):
        if (
            left is None
            or right is None
            or essence(left, with_steps=with_steps) != essence(right, with_steps=with_steps)
        ):
            return Parting(number, left, right)
    return None


def _leaves(above: str, value: Any, kind: str, with_steps: bool) -> Any:
    if not isinstance(value, dict):
        yield above, tuple(value) if isinstance(value, list) else value
        return
    for name, item in value.items():
        own = name in OWN or (name == "reason" and kind in WORDY) or (name in STEPS and not with_steps)
        if not own:
            yield from _leaves(f"{above}.{name}" if above else name, item, kind, with_steps)
