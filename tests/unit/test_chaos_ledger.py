"""The judge of the chaos suite: what it counts, it finds."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pilothouse.events.actions import ScaleLr
from pilothouse.events.bounds import Bound, Quantity
from pilothouse.events.decisions import InterventionIssued
from pilothouse.events.envelope import LogPlace
from pilothouse.events.telemetry import InterventionReceipt
from pilothouse.events.union import AnyEvent
from pilothouse.tests.chaos import ledger
from pilothouse.tests.chaos.figures import figures
from pilothouse.tests.chaos.ledger import Row, applied_twice, differences, out_of_bounds, recorded


def issued(name: str = "i-1", bound: Bound | None = None) -> InterventionIssued:
    bounds: dict[Quantity, Bound] = {"lr_multiplier": bound} if bound else {}
    return InterventionIssued(
        at=1, run_id="r", attempt_id="a", attempt=1, decision_id=f"d-{name}", basis=LogPlace(0, 0, 1), step=3,
        policy_hash="", intervention_id=name, rule="halve", action=ScaleLr(factor=0.5), expires_step=9, bounds=bounds,
    )  # fmt: skip


def receipt(seq: int, name: str = "i-1", rank: int = 0, **told: Any) -> InterventionReceipt:
    fields: dict[str, Any] = {"outcome": "applied", "step": 4} | told
    return InterventionReceipt(
        at=1, run_id="r", writer_id=f"w{rank}", seq=seq, attempt_id="a", attempt=1, rank=rank, intervention_id=name,
        **fields,
    )  # fmt: skip


def test_what_should_be_there_and_what_should_not_is_counted_line_by_line() -> None:
    expected = {"steps": ["a", "b", "b"], "events": ["x"]}
    assert differences(expected, expected) == (0, 0)
    assert differences(expected, {"steps": ["a", "b"], "events": ["x", "x"], "more": ["y"]}) == (1, 2)
    assert differences(expected, {}) == (4, 0)


def test_a_command_is_applied_once_by_each_rank_and_never_without_one() -> None:
    once: list[AnyEvent] = [
        issued(),
        receipt(1),
        receipt(1, rank=1),
        receipt(2, outcome="rejected", reason="Duplicate"),
    ]
    assert applied_twice(once) == 0
    assert applied_twice([*once, receipt(3)]) == 1
    assert applied_twice([receipt(1, "nobody's")]) == 1


def test_a_value_outside_the_bounds_of_its_command_is_found() -> None:
    command = issued(bound=Bound(min=0.1, max=1.0))
    assert out_of_bounds([command, receipt(1, before={"lr_multiplier": 1.0}, after={"lr_multiplier": 0.5})]) == 0
    assert out_of_bounds([command, receipt(1, before={"lr_multiplier": 1.0}, after={"lr_multiplier": 0.05})]) == 1


@pytest.mark.parametrize("count", ["lost", "duplicated", "applied_twice", "out_of_bounds"])
def test_a_row_passes_only_when_nothing_is_wrong_and_something_was_looked_at(count: str) -> None:
    row = Row("s", "b", injected=1, events=10)
    assert row.concluded().passed
    assert not replace(row, **{count: 1}).concluded().passed  # type: ignore[arg-type]  # the counts are all numbers
    assert not Row("s", "b", injected=0, events=10).concluded().passed
    assert not Row("s", "b", injected=1, events=0).concluded().passed


def test_a_scenario_that_breaks_leaves_a_row_that_did_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "CHAOS_JSON", tmp_path / "build" / "chaos.json")

    def breaks() -> Row:
        raise ValueError("a stage that fell down")

    for name in ("one", "other"):
        recorded(name, "b", Row(name, "b", 1, 5).concluded)
    with pytest.raises(ValueError, match="fell down"):
        recorded("one", "b", breaks)
    rows = json.loads((tmp_path / "build" / "chaos.json").read_text())
    assert [(row["scenario"], row["passed"]) for row in rows] == [("one", False), ("other", True)]


def test_the_figures_say_first_what_did_not_pass() -> None:
    rows = [asdict(Row("a", "one", 1, 1_000, passed=True)), asdict(Row("b", "two", 2, 20, lost=3))]
    said, _, table = figures(rows, "2026-01-02").partition("\n\n")
    assert said.startswith("2026-01-02: 2 plays, 3 faults, 1,020 events, 3 lost")
    assert said.endswith("NOT PASSED: b (two).")
    assert table.splitlines()[2:] == ["| a | one | 1 | 1,000 | 0 | 0 | 0 | 0 |", "| b | two | 2 | 20 | 3 | 0 | 0 | 0 |"]
