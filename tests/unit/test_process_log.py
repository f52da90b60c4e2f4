"""A process's own log: one line an event, ids as fields, nothing in it that a terminal obeys."""

import json
import logging

import pytest

from pilothouse.events.decisions import PhaseChanged, RunAssessed
from pilothouse.events.envelope import LogPlace
from pilothouse.stream_processors.process_log import AsJson, OneLine, tell_decision

HEAD = {"at": 1, "attempt_id": "a", "attempt": 1, "decision_id": "d-1", "basis": LogPlace(1, 0, 9), "step": 40}


def decided(kind: type[PhaseChanged] | type[RunAssessed], **fields: object) -> PhaseChanged | RunAssessed:
    return kind.model_validate({**HEAD, "run_id": "evil\n\x1b[2Jrun", "policy_hash": "h", "phase": "Normal"} | fields)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    caplog.set_level(logging.INFO, "pilothouse.decisions")
    tell_decision(decided(RunAssessed, margin=1.0))
    tell_decision(decided(PhaseChanged, was="Warmup", reason="WithinBaseline"))
    [record] = caplog.records
    return record


def test_a_decision_is_one_line_of_json_with_its_run_and_its_own_id(told: logging.LogRecord) -> None:
    line = AsJson("governor", "0").format(told)
    assert line.isprintable()
    said = json.loads(line)
    assert said["run_id"] == "evil\n\x1b[2Jrun"
    assert (said["decision_id"], said["step"], said["attempt_id"]) == ("d-1", 40, "a")
    assert (said["process"], said["level"], said["logger"]) == ("governor", "info", "pilothouse.decisions")
    assert said["at"].endswith("+00:00")


def test_a_line_for_people_cannot_be_forged_by_a_name(told: logging.LogRecord) -> None:
    line = OneLine("governor").format(told)
    assert line.isprintable()
    assert "\\x1b[2Jrun step 40: phase_changed WithinBaseline" in line


def test_a_traceback_is_one_line_and_a_field() -> None:
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "went %s", ("wrong",), None)
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    said = json.loads(AsJson("archiver", "1").format(record))
    assert said["message"] == "went wrong"
    assert "ValueError: two" in said["exception"]
    assert "\n" not in OneLine("archiver").format(record)
