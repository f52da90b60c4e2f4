"""An upgrade in the middle of a run: records of the version before and of this one on the same topic, in one log.

With brokers and workers it is a scenario of chaos.
"""

from collections.abc import Callable

import pytest

from pilothouse.events.codec import KIND_HEADER, SCHEMA_HEADER, Malformed, decode, to_json
from pilothouse.events.envelope import TrainerFact
from pilothouse.events.telemetry import RunStarted
from pilothouse.events.union import KINDS, AnyEvent, Record
from pilothouse.stream_processors.replay import replay
from pilothouse.tests.before import as_now, before


def decided(upgraded: Callable[[AnyEvent], bool]) -> list[str]:
    """The decisions where the records of these writers are told by this version, and the others as they were."""
    records = []
    for wire in before():
        if wire.topic == "telemetry":
            told = as_now(wire) if upgraded(wire.event) else wire
            records.append(Record(wire.place, told.event))  # type: ignore[arg-type]  # telemetry alone
    [run_id] = {record.event.run_id for record in records if isinstance(record.event, RunStarted)}
    return [to_json(decision) for decision in replay(run_id, records)]


def test_every_record_of_the_version_before_is_read() -> None:
    old = {wire.headers[0][1].decode() for wire in before() if dict(wire.headers)[SCHEMA_HEADER] == b"1"}
    raised = {kind for kind, model in KINDS.items() if model.schema_version > 1}
    assert len(old & raised) >= 6, "kinds that have changed since"
    for wire in before():
        assert as_now(wire).event == wire.event or "nan" in repr(wire.event)


UPGRADED: dict[str, Callable[[AnyEvent], bool]] = {
    "the trainers": lambda event: isinstance(event, TrainerFact),
    "one rank of two": lambda event: isinstance(event, TrainerFact) and event.rank == 1,
    "the governor's ticker": lambda event: event.kind == "tick",
    "everybody from some moment on": lambda event: event.at > 1_795_278_930_000_000,
    "everybody": lambda _: True,
}


@pytest.mark.parametrize("who", UPGRADED)
def test_old_and_new_records_in_one_log_are_decided_as_all_of_one_version(who: str) -> None:
    as_it_was = decided(lambda _: False)
    assert len(as_it_was) > 40
    assert decided(UPGRADED[who]) == as_it_was


def test_a_reader_that_was_not_upgraded_gives_up_the_record_with_what_to_do_and_does_not_guess() -> None:
    wire = next(wire for wire in before() if dict(wire.headers)[KIND_HEADER] == b"run_started")
    later = b"%d" % (RunStarted.schema_version + 1)
    headers = [(name, later if name == SCHEMA_HEADER else value) for name, value in wire.headers]
    letter = decode(headers, wire.body)
    assert isinstance(letter, Malformed)
    assert letter.reason == "NewerSchema"
    assert "upgrade the reader" in letter.detail
    assert letter.body == wire.body, "kept whole: `pilothouse deadletter replay` brings it in after the upgrade"
