"""Each incident of a run as a postmortem would tell it: times, what it cost, what was done, what it may have come from.

A draft: times, steps and effects are the archive's; the causes are suspicions with their evidence (`causes`), and what
a person must still say is left open. Pure; called by `overview`.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .causes import Around, suspected
from .effort import Effort
from .figures import numbers, value_of
from .material import Material, Row, Told

MICROS = 1_000_000
LEAST_MARGIN, MOST_MARGIN = 5 * MICROS, 120 * MICROS
"""How long before its onset and behind its end something belongs to the story of an incident: half as long as that."""
MOST_TIMELINE = 60


class Happened(NamedTuple):
    """One line of a timeline."""

    at: int
    step: int | None
    what: str


def incidents_of(material: Material, effort: Effort) -> list[Row]:
    """The run's incidents in their order."""
    return [_incident(material, row, number, effort) for number, row in enumerate(material.incidents, start=1)]


def _incident(material: Material, row: Row, number: int, effort: Effort) -> Row:
    began, opened, resolved = row["onset_at"], row["opened_at"], row["resolved_at"]
    end = resolved if resolved is not None else material.run["last_at"]
    start = began if began is not None else opened or end
    margin = min(MOST_MARGIN, max(LEAST_MARGIN, (end - start) // 2))
    answers = [one for one in material.interventions if one["incident_id"] == row["incident_id"]]
    around = Around(row, start - margin, end + margin, answers, material)
    applied = [receipt["at"] for one in answers for receipt in one["receipts"] if receipt["outcome"] == "applied"]
    return {
        "number": number,
        "incident_id": row["incident_id"],
        "condition": row["condition"],
        "reason": row["reason"],
        "onset_step": row["onset_step"],
        "opened_step": row["opened_step"],
        "resolved_step": row["resolved_step"],
        "outcome": row["outcome"] or "open",
        "onset_at": began,
        "opened_at": opened,
        "first_applied_at": min(applied, default=None),
        "resolved_at": resolved,
        "seconds_to_detect": row["detection_s"],
        "steps_to_detect": row["detection_steps"],
        "seconds_to_recover": row["recovery_s"],
        "steps_lost": row["steps_lost"],
        "device_hours": _device_hours(began or opened, end, effort),
        "evidence": dict(row["evidence"]),
        "answers": [one["intervention_id"] for one in answers],
        "timeline": [happened._asdict() for happened in _timeline(material, around, answers)],
        "suspected": [cause._asdict() for cause in suspected(around)],
        "to_change": list(_to_change(row, answers, applied)),
    }


def _device_hours(began: int | None, end: int, effort: Effort) -> float | None:
    if began is None or not effort.attempts_s:
        return None
    devices = effort.device_hours * 3_600 / effort.attempts_s
    return devices * max(0, end - began) / (3_600 * MICROS)


# -------------------------------------------------------------------------------------------------------- the timeline


def _timeline(material: Material, around: Around, answers: Sequence[Row]) -> list[Happened]:
    found = [*_events(material, around), *_phases(material, around)]
    for number, one in enumerate(answers, start=1):
        found += _answer(one, number)
    told: dict[tuple[int | None, str], Happened] = {}
    for happened in sorted(found, key=lambda happened: happened.at):
        told.setdefault((happened.step, happened.what), happened)  # an attempt is announced again when more is known
    return list(told.values())[:MOST_TIMELINE]


def _events(material: Material, around: Around) -> Iterator[Happened]:
    for told in material.told:
        if around.left <= told.at <= around.right and (what := _words(told)):
            yield Happened(told.at, told.step if told.step is not None and told.step >= 0 else None, what)


def _phases(material: Material, around: Around) -> Iterator[Happened]:
    for row in material.phases:
        if around.left <= row["from_at"] <= around.right:
            yield Happened(row["from_at"], row["from_step"], f"phase {row['was']} → {row['phase']} ({row['reason']})")


def _answer(one: Row, number: int) -> Iterator[Happened]:
    name = f"answer {number} ({one['rule']}, {one['action']})"
    if one["proposed_at"] is not None:
        yield Happened(one["proposed_at"], one["proposed_step"], f"{name} proposed: {one['reason'] or ''}")
    if one["issued_at"] is not None:
        yield Happened(one["issued_at"], one["issued_step"], f"{name} issued")
    receipts = [receipt for receipt in one["receipts"] if receipt["outcome"] == "applied"]
    if receipts:
        first = min(receipt["at"] for receipt in receipts)
        ranks = f"{one['ranks_applied']} of {one['world_size']} ranks"
        yield Happened(first, receipts[0]["step"], f"{name} applied by {ranks}")
    if one["verified_at"] is not None:
        told = f"{name} verified: {one['verification']}, {one['verification_reason']}"
        yield Happened(one["verified_at"], one["verified_step"], told)


def _words(told: Told) -> str:  # noqa: PLR0911  # one line for each kind
    """What an event means to a reader of a timeline; nothing for what is not of interest there."""
    body = told.body
    match told.kind:
        case "condition_changed" if "False" in (body.get("status"), body.get("was")):
            return f"{body.get('condition')} {body.get('was')} → {body.get('status')}: {body.get('message')}"
        case "run_started":
            return f"attempt {told.attempt} begins ({body.get('reason')}) at step {body.get('first_step')}"
        case "run_ended" if told.rank == 0 or body.get("outcome") != "completed":
            error = f": {body['error']}" if body.get("error") else ""
            return f"rank {told.rank} ended ({body.get('outcome')}){error}"
        case "operator_command":
            return f"{body.get('who')} ordered {body.get('verb')}: {body.get('why')}"
        case "checkpoint_restored" if told.rank == 0:
            return f"checkpoint of step {body.get('step')} restored"
        case "data_window_skipped" if told.rank == 0:
            return f"batches {body.get('first_batch')} to {body.get('last_batch')} skipped"
        case "recipe_changed":
            return f"the recipe changed: {body.get('what')} {numbers(body.get('numbers') or {})}"
        case "annotated":
            return f"{body.get('who')} noted: {body.get('text')}"
        case "intervention_approved" | "intervention_declined":
            return f"{told.kind.removeprefix('intervention_')} by {body.get('who')} {body.get('why') or ''}".rstrip()
        case _:
            return ""


# ----------------------------------------------------------------------------------------------------- what to change

SLOW_SECONDS = 300.0


def _to_change(row: Row, answers: Sequence[Row], applied: Sequence[int]) -> Iterator[str]:
    """What the record itself suggests for policy and runbook."""
    if not answers:
        yield f"No rule proposed anything: does the policy have one for {row['reason']}?"
    for one in answers:
        yield from _of_answer(one, min(applied, default=None))
    if row["detection_s"] is not None and row["detection_s"] > SLOW_SECONDS:
        yield f"It took {row['detection_s'] / 60:.0f} minutes from the first evidence to the alarm."
    if row["steps_lost"]:
        yield f"{row['steps_lost']} steps were lost: checkpoints nearer to each other lose fewer."
    if row["outcome"] == "ended":
        yield "The run ended before it was well again."


def _of_answer(one: Row, applied: int | None) -> Iterator[str]:
    told = f"{one['rule']} ({one['action']})"
    if one["mode"] == "observe":
        yield f"{told} was only recorded: the policy's mode is observe."
    elif one["verification"] == "recovered":
        yield f"{told} helped: keep it" + (", and consider to enforce it." if one["mode"] == "propose" else ".")
    elif one["verification"]:
        yield f"{told} was {one['verification']}: try another action first, or verify it otherwise."
    elif one["state"] in ("declined", "expired", "refused"):
        yield f"{told} was {one['state']} ({value_of(list(one['outcomes']))}): why?"
    waited = applied - one["proposed_at"] if applied is not None and one["proposed_at"] is not None else 0
    if waited > SLOW_SECONDS * MICROS:
        yield f"{told} waited {waited / MICROS / 60:.0f} minutes to be applied."
