"""Events as rows: what becomes a row, what does not, and what its columns say."""

from typing import Any

import pytest

from pilothouse.events.commands import Tick
from pilothouse.events.envelope import LogPlace
from pilothouse.events.telemetry import RunStarted
from pilothouse.events.topics import TELEMETRY
from pilothouse.storage import rows as storage_rows
from pilothouse.storage.rows import EVENT_LOG, TICK_LOG, Archived, Row, Table, rows_of
from pilothouse.tests.archive_events import NAN, Writer, decided, logged, rows_in, story

PLACE = LogPlace(2, 1, 7)


def named(table: Table, row: Row) -> dict[str, Any]:
    return dict(zip(table.columns, row, strict=True))


def test_a_batch_is_a_row_for_each_metric_with_what_was_logged() -> None:
    batch = Writer("r", rank=3).steps([5, 4], loss=[1.0, None], lr=[-0.0, NAN])
    [block] = rows_of([Archived(TELEMETRY.name, PLACE, batch)]).steps
    rows = rows_in(block)
    assert [(row["metric"], row["first_step"], row["rows"], row["steps"]) for row in rows] == [
        ("loss", 5, [0], [5]),
        ("lr", 4, [], [5, 4]),
    ]
    assert [str(row["bits"]) for row in rows] == ["[1.0]", "[-0.0, nan]"]
    assert {(row["rank"], row["log_epoch"], row["log_partition"], row["log_offset"]) for row in rows} == {(3, 2, 1, 7)}


def test_batches_with_and_without_holes_stand_in_one_block_in_their_order() -> None:
    told = [
        Writer("r").steps([1, 2], loss=[1.0, 2.0], lr=[0.1, 0.1]),
        Writer("r", seq=1).steps([3, 4], loss=[None, 4.0]),
    ]
    [block] = rows_of(logged(told)).steps
    assert [
        (row["metric"], row["seq"], row["log_offset"], row["steps"], row["times"], row["bits"])
        for row in rows_in(block)
    ] == [
        ("loss", 1, 0, [1, 2], [1_000, 2_000], [1.0, 2.0]),
        ("lr", 1, 0, [1, 2], [1_000, 2_000], [0.1, 0.1]),
        ("loss", 2, 1, [4], [4_000], [4.0]),
        ("", 2, 1, [3], [3_000], [0.0]),
    ]


def test_many_values_go_in_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_rows, "BLOCK_VALUES", 5)
    told = [Writer("r", seq=seq).steps([1, 2], loss=[1.0, 2.0], lr=[1.0, 2.0]) for seq in range(3)]
    assert [[row["seq"] for row in rows_in(block)] for block in rows_of(logged(told)).steps] == [[1, 1], [2, 2], [3, 3]]


@pytest.mark.parametrize(
    "columns, kept",
    [
        ({"loss": [1.0, None]}, [("loss", [0]), ("", [1])]),
        ({"loss": [1.0, 2.0], "lr": [None, None]}, [("loss", []), ("lr", [])]),
        ({"loss": [None, None]}, [("loss", []), ("", [0, 1])]),
        ({"loss": [1.0, None], "lr": [None, 1.0]}, [("loss", [0]), ("lr", [1])]),
    ],
)
def test_only_where_nothing_was_logged_a_row_keeps_the_steps(
    columns: dict[str, list[float | None]], kept: list[tuple[str, list[int]]]
) -> None:
    [block] = rows_of(logged([Writer("r").steps([1, 2], **columns)])).steps
    assert [(row["metric"], row["rows"]) for row in rows_in(block)] == kept


def test_a_tick_is_nothing_but_its_time_and_place() -> None:
    tick = Tick(at=9, partition=1, writer_id="t", seq=4)
    rows = rows_of([Archived(TELEMETRY.name, PLACE, tick)])
    assert rows.ticks == [(1, "t", 4, 9, 2, 1, 7)]
    assert [table for table, _ in rows.by_table()] == [TICK_LOG]


def test_a_fact_says_who_told_it_and_a_decision_has_no_rank() -> None:
    started = Writer("r").tell(RunStarted, reason="start", first_step=3, world_size=1)
    verdict = next(event for event in story("r") if event.kind == "phase_changed")
    fact, decision = (named(EVENT_LOG, row) for row in rows_of(logged([started, verdict])).events)
    assert (fact["event_id"], fact["rank"], fact["seq"], fact["step"]) == ("r-w0:1", 0, 1, 3)
    assert (decision["event_id"], decision["rank"], decision["seq"], decision["step"]) == ("r-d9", None, 0, 9)
    assert decision["topic"] == "pilothouse.control"


def test_every_row_has_a_value_for_every_column() -> None:
    assessed = decided("r", type(next(e for e in story("r") if e.kind == "run_assessed")), 1, phase="Normal")
    rows = rows_of(logged([*story("r"), assessed]))
    for table, lines in rows.by_table():
        assert {len(line) for line in lines} == {len(table.columns)}
    assert {len(column) for block in rows.steps for column in block.columns.values()} == {len(rows.steps[0])}
