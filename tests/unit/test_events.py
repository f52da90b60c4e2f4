"""What the vocabulary promises: identities, order, and that nobody changes an event without saying so."""

import json
import re
import sys
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from pydantic import ValidationError

from pilothouse.events.action_surface import NumberChoice
from pilothouse.events.actions import Action, CheckpointRef
from pilothouse.events.codec import KIND_HEADER, SCHEMA_HEADER, decode
from pilothouse.events.commands import PIPELINE_FACTS, OperatorCommand, PipelineFact, PipelineReported, Tick
from pilothouse.events.envelope import LogPlace, derived_attempt_id, derived_id
from pilothouse.events.telemetry import LogLine
from pilothouse.events.topics import TELEMETRY, partition_key, partition_of
from pilothouse.events.union import KINDS

FROZEN = Path(__file__).parent / "test_events_fields.json"
INSTRUCTION = """
The fields of {kind} are not what they were at schema {version}. A reader of this schema cannot read such an event,
and the archive holds events of the old form. Raise `schema_version` of its class, add an upcast from {version} to the
next in `events/codec.py`, and only then freeze the new fields: python tests/unit/test_events.py
"""


def fields_now() -> dict[str, dict[str, object]]:
    """Every event's fields, and the actions' that some of them carry."""
    events = {
        kind: {"schema_version": model.schema_version, "fields": sorted(model.model_fields)}
        for kind, model in sorted(KINDS.items())
    }
    carried = {CheckpointRef, LogLine, NumberChoice, *get_args(get_args(Action)[0])}
    return events | {part.__name__: {"fields": sorted(part.model_fields)} for part in carried}


@pytest.mark.parametrize("kind", sorted(fields_now()))
def test_fields_change_only_with_the_schema_version(kind: str) -> None:
    frozen = json.loads(FROZEN.read_text(encoding="utf-8"))
    assert kind in frozen, f"{kind} is new: freeze its fields with `python tests/unit/test_events.py`"
    version = frozen[kind].get("schema_version", "n of every event that carries it")
    assert fields_now()[kind] == frozen[kind], INSTRUCTION.format(kind=kind, version=version)


def test_no_event_disappears() -> None:
    gone = set(json.loads(FROZEN.read_text(encoding="utf-8"))) - set(fields_now())
    assert not gone, f"the archive may hold {gone}: an event that is not written any more must still be read"


def test_facts_are_told_apart_by_writer_and_number() -> None:
    tick = Tick(at=1, partition=2, writer_id="ticker", seq=3)
    assert tick.event_id == "ticker:3"
    assert partition_key(tick) == b"partition-2"


def test_places_of_a_later_epoch_come_later_whatever_their_offset() -> None:
    assert LogPlace(0, 0, 9).precedes(LogPlace(1, 0, 0))
    assert LogPlace(1, 0, 1).precedes(LogPlace(1, 0, 2))
    assert not LogPlace(1, 0, 2).precedes(LogPlace(1, 0, 2))


def test_derived_ids_never_change() -> None:
    # written down once: the archive and running trainers hold ids that were derived like this
    assert derived_id("run", "attempt", "phase", "step 1", 1) == "21f9906b-1f62-5c21-b733-907ea9ba8a08"
    assert derived_attempt_id("attempt", "intervention") == "0105708e21745004ade346f5aad491bf"


def test_a_run_has_one_partition_for_ever() -> None:
    assert [partition_of(f"run-{number}", TELEMETRY.partitions) for number in range(6)] == [1, 3, 1, 3, 0, 2]


@pytest.mark.parametrize(
    "verb, missing", [("approve", "intervention_id"), ("decline", "intervention_id"), ("intervene", "action")]
)
def test_an_order_without_what_it_is_about_is_refused(verb: str, missing: str) -> None:
    with pytest.raises(ValidationError, match=missing):
        OperatorCommand(at=1, run_id="r", writer_id="w", seq=1, verb=verb, who="a", why="b")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "kind, fields",
    [
        ("run_started", {"reason": "start", "first_step": 0, "world_size": 2, "config": {"lr": 0.1}}),
        ("data_profiled", {"step": 1, "feature": "x"}),
        ("telemetry_gap", {"dropped": {"queue_full": 3}}),
    ],
)
def test_what_was_told_in_schema_1_is_still_read(kind: str, fields: dict[str, object]) -> None:
    who = {"run_id": "r", "writer_id": "w", "seq": 1, "at": 1, "attempt_id": "a", "attempt": 1, "rank": 0}
    body = msgspec.msgpack.encode({"kind": kind, **who, **fields})
    read = decode([(KIND_HEADER, kind.encode()), (SCHEMA_HEADER, b"1")], body)
    assert isinstance(read, KINDS[kind]), read
    assert read.model_dump(include=set(fields)) == fields


def reported(fact: str, **numbers: float) -> PipelineReported:
    return PipelineReported(at=1, run_id="r", writer_id="w", seq=1, who="ci", fact=fact, numbers=numbers)  # type: ignore[arg-type]  # by its name


@pytest.mark.parametrize(
    "fact, numbers, said",
    [
        (
            "latency",
            {"p50_ms": 3.0},
            "latency takes p95_ms, p50_ms, p99_ms, requests and needs p95_ms; p95_ms is missing",
        ),
        ("latency", {"p95_ms": 3.0, "p94_ms": 1.0}, "got 'p94_ms'"),
        ("promotion", {"count": 1.0}, "promotion takes no numbers; got 'count'"),
        ("data_freshness", {"age_hours": -1.0}, "age_hours of data_freshness must be a number from 0, got -1.0"),
        ("data_freshness", {"age_hours": float("nan")}, "must be a number from 0, got nan"),
        ("deployment", {}, "Input should be 'artifacts'"),
    ],
)
def test_a_fact_of_the_pipeline_has_the_numbers_of_its_kind(fact: str, numbers: dict[str, float], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        reported(fact, **numbers)


def test_an_evaluation_may_be_negative() -> None:
    assert reported("held_out_evaluation", value=-1.5).numbers == {"value": -1.5}


def test_every_kind_of_pipeline_fact_has_its_numbers() -> None:
    assert set(PIPELINE_FACTS) == set(get_args(PipelineFact))


if __name__ == "__main__":
    FROZEN.write_text(json.dumps(fields_now(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sys.stdout.write(f"wrote {FROZEN}\n")
