"""What an incident may have come from: data, code or infrastructure. Suspicions, each with its evidence. Pure.

Nothing here is proof. A suspicion weighs as much as its evidence: what was seen near the onset, and what the run did
after something was changed. A person confirms or strikes it out. Called by `incident_story`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from .material import Material, Row

Kind = Literal["data", "code", "infrastructure"]
SKIPPING = ("rollback", "skip_batches")
OF_CODE: Mapping[str, str] = {
    "GradientExploding": "gradients explode where the learning rate, the clipping or the initialisation allow it",
    "GradientVanishing": "gradients vanish with depth, saturation or a wrong initialisation",
    "BrokenStart": "a run that is unwell from its first step on was set up so",
    "Overfitting": "validation parts from training where the model has room to learn by heart",
    "ValidationRising": "validation parts from training where the model has room to learn by heart",
    "Plateau": "a loss that stands still is a matter of schedule, capacity or data",
}
OF_INFRASTRUCTURE: Mapping[str, str] = {
    "NoStepEnded": "no rank ended a step: a hang of collectives, storage or a node",
    "Straggler": "one rank is slower than the others: a node, a device or its network",
    "CommBound": "most of a step is spent in communication: the network between the nodes",
    "ThroughputSag": "the same work takes longer than before: throttling, or a neighbour",
    "RankApart": "one rank computes otherwise than the others: memory, a device, or what it reads",
    "RanksDisagree": "ranks hold different weights: a collective that failed, or memory",
    "Silent": "telemetry fell silent: a process, a node or the network",
    "TelemetryLost": "telemetry was lost on its way",
}
ENDED_BY = ("out_of_memory", "preempted", "crashed")
RISEN = 1.5
"""By this factor a learning rate must have risen to be suspected."""
STRONG, SOME, WEAK = "strong", "some", "weak"
ORDER = {STRONG: 0, SOME: 1, WEAK: 2}


class Around(NamedTuple):
    """An incident and its neighbourhood in time."""

    incident: Row
    left: int
    right: int
    answers: Sequence[Row]
    material: Material


class Cause(NamedTuple):
    """One suspicion. `weight` is strong, some or weak."""

    kind: Kind
    weight: str
    evidence: str


def suspected(around: Around) -> list[Cause]:
    """The suspicions, the strongest first; none is an answer, too."""
    found = [*_by_reason(around), *_by_learning_rate(around), *_by_neighbours(around), *_by_effect(around)]
    found += _by_record(around)
    return sorted(dict.fromkeys(found), key=lambda cause: ORDER[cause.weight])


def _by_reason(around: Around) -> Iterator[Cause]:
    reason = around.incident["reason"]
    if reason in OF_CODE:
        yield Cause("code", SOME, f"{reason}: {OF_CODE[reason]}")
    if reason in OF_INFRASTRUCTURE:
        yield Cause("infrastructure", SOME, f"{reason}: {OF_INFRASTRUCTURE[reason]}")


def _by_learning_rate(around: Around) -> Iterator[Cause]:
    """A rate that rose where the run went wrong."""
    onset, opened = around.incident["onset_step"], around.incident["opened_step"] or around.incident["onset_step"]
    metric = around.material.names.get("lr", "")
    rows = [
        row
        for row in around.material.curves
        if row["metric"] == metric
        and row["attempt_id"] == around.incident["attempt_id"]
        and row["greatest"] is not None
    ]
    before = [row["mean"] for row in rows if row["to_step"] < onset - 1]
    near = [row["greatest"] for row in rows if onset - 1 <= row["to_step"] and row["from_step"] <= opened]
    if before and near and before[-1] > 0 and max(near) >= RISEN * before[-1]:
        yield Cause(
            "code", STRONG, f"the learning rate rose from {before[-1]:.3g} to {max(near):.3g} near step {onset}"
        )


def _by_neighbours(around: Around) -> Iterator[Cause]:
    """Other conditions that failed near the onset, and what the trainer itself had changed."""
    opened = around.incident["opened_at"] or around.right
    for told in around.material.of("condition_changed"):
        body = told.body
        if not around.left <= told.at <= opened or body.get("status") != "False":
            continue
        reason, message = str(body.get("reason")), str(body.get("message"))
        if reason == "InputDrifted":
            yield Cause("data", SOME, f"an input drifted just before: {message}")
        elif reason == "DataStarved":
            yield Cause("infrastructure", WEAK, f"steps waited for data: {message}")
        elif reason in OF_INFRASTRUCTURE and reason != around.incident["reason"]:
            yield Cause("infrastructure", SOME, f"{reason} at the same time: {message}")
    for told in around.material.of("recipe_changed"):
        if around.left <= told.at <= opened:
            yield Cause("code", SOME, f"the trainer changed {told.body.get('what')} at step {told.step}")
    for told in around.material.of("run_ended"):
        if around.left <= told.at <= around.right and told.body.get("outcome") in ENDED_BY:
            outcome = str(told.body["outcome"])
            kind: Kind = "code" if outcome == "crashed" else "infrastructure"
            yield Cause(kind, STRONG, f"rank {told.rank} ended: {outcome} {told.body.get('error') or ''}".rstrip())


def _by_effect(around: Around) -> Iterator[Cause]:
    """What helped tells of what was wrong."""
    for one in around.answers:
        if one["verification"] != "recovered":
            continue
        action = one["action"]
        if action in SKIPPING:
            yield Cause("data", SOME, f"the run went well again after {action}, with other data at the same weights")
        elif action in ("scale_lr", "set_clip", "set_weight_decay", "set_dropout"):
            yield Cause("code", SOME, f"the run went well again after {action}: the recipe was at its limit")


def _by_record(around: Around) -> Iterator[Cause]:
    if around.incident["reason"] == "NonFinite":
        yield Cause("data", WEAK, "values that are not finite come from corrupt inputs as often as from overflow")
    versions = {row["code_version"] for row in around.material.run["attempt_list"] if row["code_version"]}
    if len(versions) > 1:
        yield Cause("code", WEAK, f"the attempts of this run are of different code: {', '.join(sorted(versions))}")
    if any(row["code_dirty"] for row in around.material.run["attempt_list"]):
        yield Cause("code", WEAK, "the code had changes that were not committed")
    hot = [row for row in around.material.resources if row["name"] == "gpu_temperature_c" and row["greatest"] >= 85]
    if hot:
        yield Cause("infrastructure", WEAK, f"a device was {hot[0]['greatest']:.0f} °C hot")
