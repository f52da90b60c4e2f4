"""One incident, laid out: the draft of its postmortem, the decisions about it, what was done the last times. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from .document import Block, Document, Facts, Section
from .figures import number
from .run_story import intervention_sections, postmortem
from .similar_page import past_incidents

Row = Mapping[str, Any]


def incident_page(told: Row, made_at: int) -> Document:
    """`told` is an incident of an `overview`, with its `run_id`, its `interventions`, their rules' `runbooks`, and its
    `past` as `likeness` has it.
    """
    unit = "GPU" if told["has_gpus"] else "rank"
    sections = (
        Section("What happened", tuple(postmortem(told, unit))),
        Section("What was decided", tuple(_decided(told))),
        Section("The last times", tuple(past_incidents(told["past"]))),
    )
    end = "still open" if told["outcome"] == "open" else told["outcome"]
    lead = f"{told['condition']}: {told['reason']}, from step {number(told['onset_step'])} on, {end}."
    return Document(f"Incident {told['number']} of {told['run_id']}", lead, sections, made_at)


def _decided(told: Row) -> Iterator[Block]:
    if told["runbooks"]:
        yield Facts(tuple((f"runbook of rule {rule}", words) for rule, words in told["runbooks"].items()))
    yield from intervention_sections(told["interventions"])
