"""The benchmark of the SDK: its arithmetic, and that it measures what it says, where no broker is needed."""

import json
from pathlib import Path
from typing import Any

import pytest

from pilothouse.benchmarks.sdk.__main__ import main
from pilothouse.benchmarks.sdk.contestants import CONTESTANTS, OURS, TRACKER
from pilothouse.benchmarks.sdk.table import Row, lines, ratios, row_of


def block(took: list[int], wall: float = 0.0, cpu: float = 0.0) -> dict[str, Any]:
    return {"took_ns": took, "wall_s": wall, "cpu_s": cpu}


def test_a_row_is_of_all_calls_and_its_tax_of_neighbouring_blocks() -> None:
    blocks = {
        "hot": [block([1_000] * 98), block([9_000] * 2)],
        "plain": [block([0] * 10, wall=0.020), block([0] * 10, wall=0.020), block([0] * 10, wall=0.500)],
        "logged": [
            block([5_000] * 10, 0.021, 1e-4),
            block([7_000] * 10, 0.022, 1e-4),
            block([7_000] * 10, 0.502, 1e-4),
        ],
    }
    row = row_of("x", blocks)
    assert (row.p50_us, row.p99_us, row.cold_p50_us) == (1.0, 9.0, 7.0)
    assert row.tax_us == pytest.approx(200.0)
    assert row.cpu_us_per_step == pytest.approx(10.0)


def test_a_ratio_is_to_the_cheapest_tracker_of_each_figure_and_none_is_made_of_noise() -> None:
    ours = Row("pilothouse", 2.0, 5.0, 10.0, 20.0, -30.0, 15.0, 9.0)
    trackers = [Row("a", 40.0, 90.0, 300.0, 900.0, 500.0, 150.0), Row("b", 50.0, 90.0, 200.0, 900.0, 700.0, 300.0)]
    assert ratios(ours, trackers) == [
        "p50: 20 times less than a",
        "cold p50: 20 times less than b",
        "tax: under the noise of the harness; a: 500 µs",
        "CPU per step: 10 times less than a",
    ]
    assert lines([ours], {"pilothouse": "0.1.0"})[1].split() == [
        "pilothouse",
        *["2.0", "5.0", "10.0", "20.0", "-30.0", "15.0", "9.0", "0.1.0"],
    ]


def test_ours_and_the_trackers_are_among_the_contestants() -> None:
    kinds = [entry.kind for entry in CONTESTANTS.values()]
    assert (kinds.count(OURS), kinds.count(TRACKER)) == (1, 5)


def test_blocks_of_processes_of_their_own_make_the_rows_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bench" / "sdk.json"
    assert main(["no-op", "deque.append", "--rounds", "1", "--steps", "5", "--json", str(file)]) == 0
    rows = {row["name"]: row for row in json.loads(file.read_text())["rows"]}
    assert set(rows) == {"no-op", "deque.append"}
    for row in rows.values():
        assert {"name", "p50_us", "p99_us", "cold_p50_us", "tax_us", "cpu_us_per_step"} <= set(row)
        assert 0 < row["p50_us"] <= row["p99_us"]
    assert "deque.append" in capsys.readouterr().out


def test_a_contestant_that_cannot_be_opened_is_said_and_costs_the_others_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "wandb.py").write_text("raise ImportError('no such tracker')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert main(["wandb offline", "--rounds", "1", "--steps", "1"]) == 1
    assert "not measured: wandb offline (ImportError: no such tracker)" in capsys.readouterr().out
