"""The reference is made of the code, whole: nothing in it is without its words."""

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

import pilothouse
from pilothouse.docs._site import reference
from pilothouse.events import union
from pilothouse.events.decisions import ConditionType, Phase
from pilothouse.events.topics import TOPICS
from pilothouse.governance.condition_words import CONDITIONS, PHASES, REASONS
from pilothouse.settings import Settings

ROOT = Path(__file__).parents[2]
JUDGES = [*(ROOT / "stream_processors").glob("*verdicts.py"), ROOT / "stream_processors/judging.py"]
CONSTANT_REASONS = {"Straggler", "DataStarved", "CommBound", "ThroughputSag", "NoStepEnded"}
"""Those that a judge takes from a table or a constant."""


@pytest.mark.parametrize("page", reference.PAGES)
def test_no_cell_of_the_second_column_is_without_words(page: str) -> None:
    """Names stand in the first, what they mean (or are) in the second."""
    rows = [line for line in reference.PAGES[page]().splitlines() if line.startswith("| `")]
    assert len(rows) > 10 or page.endswith("sdk.md")
    assert [row for row in rows if not re.split(r"(?<!\\)\|", row)[2].strip()] == []


def test_every_setting_says_what_it_is() -> None:
    said = reference.said_of_settings()
    assert set(said) == set(Settings.model_fields)
    assert all(said.values())


def test_every_event_topic_and_name_of_the_sdk_has_its_words() -> None:
    assert [leaf.__name__ for leaf in union.KINDS.values() if not leaf.__doc__] == []
    page = reference.PAGES["reference/events.md"]()
    assert [kind for kind in union.KINDS if f"Kind `{kind}`" not in page] == []
    assert all(f"`{topic.name}`" in page for topic in TOPICS)
    offered = [getattr(pilothouse, name) for name in pilothouse.__all__ if name != "__version__"]
    assert [each for each in offered if not each.__doc__] == []


def test_every_command_and_each_of_its_options_says_what_it_does() -> None:
    spoken = list(reference.spoken())
    assert len(spoken) > 50
    assert [path for path, command in spoken if not command.help] == []
    silent = {path: [row[0] for row in reference.parameters(command) if not row[1]] for path, command in spoken}
    assert {path: names for path, names in silent.items() if names} == {}


def test_every_column_of_every_view_says_what_it_is() -> None:
    views = reference.views()
    assert len(views) > 25
    silent = {name: [column[0] for column in columns if not column[2]] for name, columns in views.items()}
    assert {name: columns for name, columns in silent.items() if columns or not views[name]} == {}


def test_every_phase_condition_and_reason_of_the_judges_is_told_and_no_other() -> None:
    assert set(PHASES) == set(get_args(Phase))
    assert set(CONDITIONS) == set(get_args(ConditionType))
    assert {condition for condition, _ in REASONS.values()} == set(CONDITIONS)
    judged = {reason for path in JUDGES for reason in reasons_of(path.read_text(encoding="utf-8"))}
    assert judged | CONSTANT_REASONS == set(REASONS)


def reasons_of(source: str) -> list[str]:
    """The second argument of every verdict that does not say True."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    verdicts = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Verdict"]
    words = [
        [each.value if isinstance(each, ast.Constant) else None for each in call.args[:2]]
        for call in verdicts
        if len(call.args) > 1
    ]
    return [str(reason) for status, reason in words if status != "True" and reason is not None]
