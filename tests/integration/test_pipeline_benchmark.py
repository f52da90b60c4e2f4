"""The benchmark of the whole way, on the smallest of its parts: ranks, a broker and governors that are processes."""

import json
from pathlib import Path

import pytest

from pilothouse.benchmarks.pipeline.__main__ import main


def test_governors_decide_a_backlog_and_the_tables_say_how_fast(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bench" / "pipeline.json"
    options = ["--brokers", "embedded", "--parts", "backlog", "--governors", "1", "--quick", "--json", str(file)]
    assert main(options) == 0, capsys.readouterr().err
    [part] = json.loads(file.read_text())["parts"]
    [row] = part["rows"]
    assert (row["broker"], row["governors"]) == ("embedded", 1)
    assert row["rank_steps"] > 0
    assert row["seconds"] > 0
    assert row["cpu_seconds"] > 0
    assert "| embedded broker | 1 |" in capsys.readouterr().out


def test_a_kafka_that_is_not_there_is_said_and_costs_the_others_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PILOTHOUSE_TEST_KAFKA", raising=False)
    assert main(["--brokers", "kafka", "--parts", "backlog"]) == 0
    assert "not measured: Apache Kafka" in capsys.readouterr().err
