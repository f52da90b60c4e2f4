"""The benchmark of the whole way: what it sends is what ranks send, and its tables say what was measured."""

import json
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from pilothouse.benchmarks.pipeline.__main__ import main
from pilothouse.benchmarks.pipeline.latency import CONTROL
from pilothouse.benchmarks.pipeline.probes import POLICY
from pilothouse.benchmarks.pipeline.simulated import Load, Sent, Trainings
from pilothouse.benchmarks.pipeline.table import findings, text
from pilothouse.events.codec import Malformed, decode
from pilothouse.events.envelope import LogPlace
from pilothouse.events.telemetry import RunEnded, StepBatch
from pilothouse.events.union import AnyInput, Record
from pilothouse.governance.policy import load_policy
from pilothouse.stream_processors.admission import Verdict
from pilothouse.stream_processors.fold import fold
from pilothouse.stream_processors.run_state import RunState, new_state

MACHINE = {"cores": 2, "platform": "Linux", "python": "3.11.7", "at": "2026-11-22"}


def sent(load: Load, seconds: float) -> list[Sent]:
    return list(takewhile(lambda record: record.due < seconds, Trainings(load, 1_790_000_000_000_000).records()))


def folded(records: list[Sent]) -> dict[str, RunState]:
    states: dict[str, RunState] = {}
    for offset, record in enumerate(records):
        event = decode(record.wire.headers, record.wire.body)
        assert not isinstance(event, Malformed), event
        assert isinstance(event, AnyInput)
        state = states.setdefault(record.run_id, new_state(record.run_id))
        result = fold(state, Record(LogPlace(0, 0, offset), event))
        assert (result.verdict, result.fault) == (Verdict.FOLDED, "")
    return states


def test_simulated_ranks_are_judged_as_real_ones_and_send_as_many_steps_as_they_log() -> None:
    load = Load("x", runs=2, ranks=3, steps_per_second=10.0)
    records = sent(load, 20.0)
    states = folded(records)
    assert len(states) == 2
    for state in states.values():
        assert state.current is not None
        assert 180 <= state.ledger.judged <= 200
        assert state.phase in ("Warmup", "Normal")
    assert sum(record.rank_steps for record in records) == pytest.approx(20.0 * load.rank_steps_per_second, rel=0.1)


def test_a_simulated_run_that_has_lived_ends_and_another_begins() -> None:
    states = folded(sent(Load("x", runs=1, ranks=2, steps_per_second=10.0, life_seconds=5.0), 12.0))
    assert [state.ended for state in states.values()] == [True, True, False]


def test_records_come_in_the_order_in_which_they_are_due_and_ends_are_told_by_rank_0() -> None:
    records = sent(Load("x", runs=3, ranks=4, steps_per_second=5.0, life_seconds=4.0), 9.0)
    assert [record.due for record in records] == sorted(record.due for record in records)
    events = [decode(record.wire.headers, record.wire.body) for record in records]
    assert {event.rank for event in events if isinstance(event, RunEnded)} == {0}
    assert {event.rank for event in events if isinstance(event, StepBatch)} == {0, 1, 2, 3}


def test_the_policy_of_the_probes_can_be_used() -> None:
    assert load_policy(POLICY).mode == "enforce"


def told(**changed: Any) -> dict[str, Any]:
    latency = {
        "broker": "kafka", "rank_steps_per_s": 0.0, "probes": 90, "unanswered": 0, "floor_stamps": 9,
        "stages": {CONTROL: (12.0, 40.0)}, "floor": (9.0, 17.0),
    }  # fmt: skip
    killed = {
        "broker": "kafka", "probes": 50, "without_control_s": 4.0, "slowest_answer_s": 5.0, "unanswered": 0,
        "doubled": 0, "replayed": 8, "differing": {},
    }  # fmt: skip
    backlog = {
        "broker": "kafka", "governors": 1, "runs": 16, "ranks": 64, "records": 10_000, "rank_steps": 40_000,
        "seconds": 2.0, "cpu_seconds": 1.5,
    }  # fmt: skip
    steady = {
        "broker": "kafka", "runs": 16, "ranks": 64, "records_per_s": 2_500.0, "rank_steps_per_s": 10_000.0,
        "decided_records_per_s": 2_500.0, "cores": {"governor": 0.4}, "governor_lag": (9.0, 90.0),
        "archiver_lag": (9.0, 90.0),
    }  # fmt: skip
    rows = {"latency": latency, "killed": killed, "backlog": backlog, "steady": steady}
    parts = [
        {"part": name, "broker": "kafka", "load_before": 1.0, "load_after": 2.0, "seconds": 3.0,
         "rows": [row | changed.get(name, {})]}
        for name, row in rows.items()
    ]  # fmt: skip
    return {"machine": MACHINE, "parts": parts}


def test_what_is_wanted_is_reached_or_not_by_the_figures() -> None:
    assert all(finding.held for finding in findings(told()))
    for part, change in (
        ("latency", {"stages": {CONTROL: (31.0, 40.0)}}),
        ("latency", {"stages": {CONTROL: (12.0, 151.0)}}),
        ("latency", {"unanswered": 1}),
        ("killed", {"without_control_s": 10.1}),
        ("killed", {"doubled": 1}),
        ("killed", {"differing": {"probe-1": "decision 3 differs"}}),
        ("backlog", {"cpu_seconds": 2.1}),
        ("steady", {"cores": {"governor": 0.51}}),
        ("steady", {"decided_records_per_s": 1_000.0, "cores": {"governor": 0.1}}),
    ):
        missed = [finding for finding in findings(told(**{part: change})) if not finding.held]
        assert len(missed) == 1, change


def test_the_tables_have_every_part_that_was_measured() -> None:
    said = text(told())
    assert f"| {CONTROL} | 12 / 40 |" in said
    assert "| Apache Kafka | 1 | 20,000 | 5,000 | 26,667 | 150 |" in said
    assert "| Apache Kafka | 4.0 | 5.0 | 0 of 50 | 0 | 0 of 8 |" in said


def test_what_was_measured_before_is_kept_beside_what_is_measured_now(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.json"
    file.write_text(json.dumps(told()))
    assert main(["--parts", "--keep", "--json", str(file)]) == 0
    assert [part["part"] for part in json.loads(file.read_text())["parts"]] == [
        "latency",
        "killed",
        "backlog",
        "steady",
    ]
