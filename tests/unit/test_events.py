"""What the vocabulary promises: identities, order, and that nobody changes an event without saying so."""

import json
import sys
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from pilothouse.events.actions import Action, CheckpointRef
from pilothouse.events.commands import OperatorCommand, Tick
from pilothouse.events.envelope import LogPlace, derived_attempt_id, derived_id
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
    carried = {CheckpointRef, *get_args(get_args(Action)[0])}
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


if __name__ == "__main__":
    FROZEN.write_text(json.dumps(fields_now(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sys.stdout.write(f"wrote {FROZEN}\n")
