"""The parts of a run's page that tell a story: incidents as drafts of postmortems, decisions, samples. Pure.

Called by `run_page`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .charts import incident_name
from .document import Block, Facts, Items, Section, Verbatim, Words, table
from .figures import detection, moment, number, numbers, share, span, time_of_day, value_of

Row = Mapping[str, Any]
MOST_RECEIPTS = 16
MOST_SAMPLES = 24
BY_HAND = (
    "Root cause, confirmed by: …",
    "What went well: …",
    "What will be changed, by whom, until when: …",
)


def incident_sections(whole: Row) -> Iterator[Block]:
    """A summary, then the draft of a postmortem for each."""
    incidents = whole["incidents"]
    if not incidents:
        yield Words("None.", "good")
        return
    rows = [
        (
            incident_name(row["number"]), row["reason"], number(row["onset_step"]), number(row["opened_step"]),
            detection(row["seconds_to_detect"]), number(row["resolved_step"]), span(row["seconds_to_recover"]),
            row["outcome"], number(row["steps_lost"]),
        )
        for row in incidents
    ]  # fmt: skip
    headings = ("", "reason", "onset", "seen", "time to detect", "over at", "time to recover", "outcome", "steps lost")
    yield table(headings, rows, _means(incidents))
    unit = "GPU" if whole["effort"]["has_gpus"] else "rank"
    for row in incidents:
        yield Section(
            f"Postmortem (draft) {incident_name(row['number'])}: {row['reason']}", tuple(postmortem(row, unit))
        )


def _means(incidents: Sequence[Row]) -> str:
    """MTTD and MTTR."""
    told = []
    for name, key, shown in (
        ("Mean time to detect", "seconds_to_detect", detection),
        ("mean time to recover", "seconds_to_recover", span),
    ):
        known = [row[key] for row in incidents if row[key] is not None]
        told.append(
            f"{name} {shown(sum(known) / len(known)) if known else 'not known'} ({len(known)} of {len(incidents)})"
        )
    return ", ".join(told) + ". Recovery counts from the moment at which the incident was seen."


def postmortem(row: Row, unit: str) -> Iterator[Block]:
    """One incident: its times, what it may have come from, its timeline, and what a person must still say."""
    resolved = moment(row["resolved_at"]) if row["resolved_at"] is not None else "still open"
    pairs = [
        ("first evidence", f"{moment(row['onset_at'])}, step {number(row['onset_step'])}"),
        ("seen", f"{moment(row['opened_at'])}, step {number(row['opened_step'])}"),
        ("first answer applied", moment(row["first_applied_at"])),
        ("over", resolved),
        ("outcome", row["outcome"]),
        ("steps lost", number(row["steps_lost"])),
        (f"{unit}-hours while it lasted", number(row["device_hours"], 3)),
        ("condition", row["condition"]),
    ]
    yield Facts(tuple(pairs))
    if row["evidence"]:
        yield Words(f"Evidence when it was seen: {numbers(row['evidence'])}.")
    if row["suspected"]:
        rows = [(cause["kind"], cause["weight"], cause["evidence"]) for cause in row["suspected"]]
        note = "Suspicions from the record, not proof: a person confirms or strikes them out."
        yield Section("What it may have come from", (table(("tied to", "evidence is", "evidence"), rows, note),))
    else:
        yield Words("The record holds nothing that points at data, code or infrastructure.", "missing")
    rows_of_time = [
        (time_of_day(happened["at"]), number(happened["step"]), happened["what"]) for happened in row["timeline"]
    ]
    yield Section("Timeline", (table(("time", "step", "what"), rows_of_time),))
    if row["to_change"]:
        yield Section("For policy and runbook", (Items(tuple(row["to_change"])),))
    yield Section("To be filled in", (Items(BY_HAND),))


def intervention_blocks(whole: Row) -> Iterator[Block]:
    """Each decision: why, what, who applied it with which values, and whether it helped."""
    yield from intervention_sections(whole["interventions"])


def intervention_sections(interventions: Sequence[Row]) -> Iterator[Block]:
    """These decisions, numbered."""
    if not interventions:
        yield Words("Nothing was proposed.", "good")
    for order, one in enumerate(interventions, start=1):
        effect = one["verification"] or one["state"]
        yield Section(f"{order}. {one['rule']}: {one['action']} ({effect})", tuple(_intervention(one)))


def _intervention(one: Row) -> Iterator[Block]:
    together = "all ranks at one step" if one["same_step"] else "not all ranks at one step"
    ranks = f"{one['ranks_applied']} of {one['world_size']} ranks"
    applied = f"step {value_of(list(one['applied_steps']))} by {ranks}, {together}"
    agreed = one["approved_by"] or (f"declined by {one['declined_by']}" if one["declined_by"] else "nobody was asked")
    pairs = [
        ("why", one["reason"] or ""),
        ("proposed", f"{moment(one['proposed_at'])}, step {number(one['proposed_step'])}, mode {one['mode']}"),
        ("agreed", agreed),
        ("issued", f"{moment(one['issued_at'])}, step {number(one['issued_step'])}" if one["issued_at"] else "never"),
        ("applied", applied if one["applied_steps"] else "never"),
        ("effect", f"{one['verification']}: {one['verification_reason']}" if one["verification"] else "not verified"),
    ]
    yield Facts(tuple((name, text) for name, text in pairs if text))
    if one["evidence"]:
        yield Words(f"Evidence: {numbers(one['evidence'])}.")
    receipts = [
        (number(row["rank"]), row["outcome"], number(row["step"]), _change(row), row["reason"] or "")
        for row in one["receipts"][:MOST_RECEIPTS]
    ]
    if receipts:
        more = len(one["receipts"]) - len(receipts)
        note = f"{more} more receipts." if more > 0 else ""
        yield table(("rank", "receipt", "step", "before → after", "reason"), receipts, note)


def _change(receipt: Row) -> str:
    """What a rank says it changed."""
    before = receipt["before"]
    pairs = [f"{name} {number(before.get(name))} → {number(value)}" for name, value in receipt["after"].items()]
    return ", ".join(pairs) or "–"


def sample_blocks(whole: Row) -> Iterator[Block]:
    """What the model said, the last first, with what people said of it."""
    samples = whole["samples"]
    if not samples:
        yield Words("Sample outputs: none were recorded.", "missing")
        return
    rated = [row["mean_rating"] for row in samples if row["mean_rating"] is not None]
    mean = f", {share(sum(rated) / len(rated))} good on the mean" if rated else ""
    yield Words(f"{len(samples)} recorded, {len(rated)} rated{mean}. The last {min(len(samples), MOST_SAMPLES)}:")
    for row in samples[::-1][:MOST_SAMPLES]:
        rating = f", rated {share(row['mean_rating'])}" if row["mean_rating"] is not None else ", not rated"
        yield Section(f"{row['name']} at step {number(row['step'])}{rating}", tuple(_sample(row)))


def _sample(row: Row) -> Iterator[Block]:
    if row["prompt"]:
        yield Words("Prompt")
        yield Verbatim(row["prompt"])
        yield Words("Output")
    yield Verbatim(row["output"])
    ratings = [(one["who"], share(one["rating"]), one["text"]) for one in row["ratings"]]
    if ratings:
        yield table(("who", "rating", "words"), ratings)
