"""docs/policies.md says what is so: its policy is right and passes its tests, its commands are those that there are."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from pilothouse.cli import operator
from pilothouse.cli.main import commands
from pilothouse.events.bounds import Quantity
from pilothouse.governance.policy import DEFAULT, SHIPPED, NoData, load_policy, shipped_policy_text
from pilothouse.stream_processors.trial import run_trials

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")


def test_the_policy_on_the_page_is_right_and_passes_its_own_tests() -> None:
    text, _ = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    policy = load_policy(text)
    assert policy.tests
    assert [outcome.mismatches for outcome in run_trials(policy, text)] == [[] for _ in policy.tests]


def test_the_window_on_the_page_can_be_measured_and_what_may_be_bounded_is_told() -> None:
    _, verify = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    indented = "".join(f"    {line}\n" for line in verify.splitlines())
    halve = "    actions: [{action: scale_lr, factor: 0.5}]\n"
    rule = load_policy(
        f"name: p\nrules:\n  - name: r\n    when: conditions.Stable == 'False'\n{halve}{indented}"
    ).rules[0]
    assert (rule.verify.measurements, rule.verify.on_failure) == (4, "revert")
    assert all(f"`{name}`" in PAGE for name in get_args(Quantity))


def test_every_order_of_people_stands_on_the_page() -> None:
    told = set(re.findall(r"^pilothouse (\w+) (?:RUN|\[RUN\])", PAGE, re.MULTILINE)) | {"resume"}
    assert told >= {command.__name__ for command in (*operator.COMMANDS, operator.pending)}


def test_every_command_of_policies_stands_on_the_page() -> None:
    root: Any = typer.main.get_command(commands)
    told = set(re.findall(r"^pilothouse policy (\w+)", PAGE, re.MULTILINE))
    assert told == set(root.commands["policy"].commands)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_policy_says_when_to_use_it(name: str) -> None:
    assert re.search(rf"^\| `{name}`", PAGE, re.MULTILINE)
    assert load_policy(shipped_policy_text(name)).description


def test_the_default_and_every_way_to_miss_data_are_told() -> None:
    assert f"`{DEFAULT}` (the default)" in PAGE
    assert re.findall(r"^\| `(\w+)` \| (?:counts|changes)", PAGE, re.MULTILINE) == list(get_args(NoData))
