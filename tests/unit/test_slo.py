"""The file of service levels: what it says, and how its mistakes are told."""

from pathlib import Path

import pytest

from pilothouse.events.commands import PIPELINE_FACTS
from pilothouse.events.errors import SettingsInvalid
from pilothouse.storage.slo import SHIPPED, load_objectives, view_statements

ONE = """
objectives:
  - {id: A, name: n, formula: f, target: "o'clock", samples: SELECT 1, value: ratio, low: 1, window_days: 7, needs: x}
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "slo.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_shipped_ones_are_m1_to_m15_and_use_every_fact_of_the_pipeline() -> None:
    objectives = load_objectives()
    assert [objective.id for objective in objectives] == [f"M{number}" for number in range(1, 16)]
    text = SHIPPED.read_text(encoding="utf-8")
    assert [fact for fact in PIPELINE_FACTS if f"'{fact}'" not in text or f"report-fact RUN {fact}" not in text] == []


def test_a_text_of_the_file_is_a_text_in_sql(tmp_path: Path) -> None:
    declared, samples, *_ = view_statements(load_objectives(written(tmp_path, ONE)))
    assert r"'o\'clock' AS target" in declared
    assert "CAST(1.0, 'Nullable(Float64)') AS low, CAST(NULL, 'Nullable(Float64)') AS high" in declared
    assert "SELECT 'A' AS id" in samples


@pytest.mark.parametrize(
    "had, has, said",
    [
        ("low: 1, ", "", "objectives.0: give low, high or both"),
        ("low: 1", "low: 2, high: 1", "objectives.0: low 2 is above high 1"),
        ("value: ratio", "value: count, budget: 0.1", "objectives.0: a count has no budget"),
        (
            "value: ratio",
            "value: mode",
            "objectives.0.value: Input should be 'ratio', 'mean', 'median', 'p95' or 'count'",
        ),
        ("window_days: 7", "window_days: 0", "objectives.0.window_days: Input should be greater than 0"),
        ("needs: x", "needs: x, colour: red", "objectives.0.colour: Extra inputs are not permitted"),
        ("id: A", "id: 1 2", "objectives.0.id:"),
        ("objectives:", "- objectives", "cannot be read"),
        (ONE, "", "file: Input should be"),
        (ONE, ONE + ONE.strip().partition("\n")[2], "name A twice"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, had: str, has: str, said: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        load_objectives(written(tmp_path, ONE.replace(had, has)))
    assert said in str(refused.value)
    assert str(tmp_path / "slo.yaml") in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"nowhere\.yaml cannot be read"):
        load_objectives(tmp_path / "nowhere.yaml")
