"""`pilothouse policy` as a person types it, without a stack."""

import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from pilothouse.cli.policy_sources import policy_path
from pilothouse.governance.policy import SHIPPED, shipped_policy_text
from pilothouse.governance.policy_schema import schema_text
from pilothouse.stream_processors.policy_text import read_policies
from pilothouse.tests.stack_fixture import refused, typed

RIGHT = "name: right\nrules:\n- {name: r, when: 'true', actions: [{action: stop}]}\n"
FAILING = RIGHT + "tests:\n- {name: '[it] is calm', series: {loss: 2.0x3}, expect: [{at: 2, alarms: []}]}\n"


@pytest.fixture
def policy(tmp_path: Path) -> Any:
    """Types `pilothouse policy ...`; files it is given by name are written first."""

    def run(*words: str, **files: str) -> "CompletedProcess[str]":
        for name, text in files.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        return typed("policy", *(word.replace("@", f"{tmp_path}/") for word in words), data_dir=tmp_path / "none")

    return run


def rows(answer: "CompletedProcess[str]") -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.stdout.splitlines()]


def test_check_tells_every_mistake_as_compilers_do_and_ends_with_2(policy: Any, tmp_path: Path) -> None:
    wrong = "name: p\nbudgte: 3\nrules:\n- {name: r, when: features.los > 1.0, actions: [{action: stop}]}\n"
    answer = policy("check", "@wrong.yaml", "@right.yaml", wrong=wrong, right=RIGHT)
    assert answer.returncode == 2
    assert answer.stdout == f"{tmp_path}/right.yaml: right (1 rules, 0 tests)\n"
    first, second = answer.stderr.splitlines()
    assert first.startswith(f"{tmp_path}/wrong.yaml:2:1: budgte: no key 'budgte'; did you mean 'budget'?")
    assert second == f"{tmp_path}/wrong.yaml:4:28: rules.0.when: no feature 'los'; did you mean 'loss'?"
    told = rows(policy("check", "@wrong.yaml", "@right.yaml", "--json"))
    assert [(row.get("line"), row.get("column"), row.get("part")) for row in told] == [
        (2, 1, "budgte"),
        (4, 28, "rules.0.when"),
        (None, None, None),
    ]


def test_check_of_a_folder_finds_ties(policy: Any, tmp_path: Path) -> None:
    answer = policy("check", "@", one=RIGHT, other=RIGHT.replace("right", "left"))
    assert answer.returncode == 2
    assert "right and left would both govern every run" in answer.stderr


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_policies_are_right_by_name(policy: Any, name: str) -> None:
    answer = policy("check", name)
    assert answer.returncode == 0
    assert answer.stdout.startswith(f"{name}: right (")


def test_a_failing_test_shows_what_was_expected_and_seen_and_what_happened(policy: Any) -> None:
    answer = policy("test", "@failing.yaml", failing=FAILING)
    assert answer.returncode == 1
    lines = [line.strip() for line in answer.stdout.splitlines()]
    assert lines[0].endswith("failing.yaml: [it] is calm")
    assert lines[0].startswith("FAIL")
    assert lines[1:4] == ["at 2, alarms", "expected  none", "seen      r"]
    assert "0  proposed r: stop checkpoint=True (proposed)" in lines
    assert lines[-1].endswith("failing.yaml: 0 of 1 tests passed")
    [row] = rows(policy("test", "@failing.yaml", "--json"))
    assert row["missed"] == [{"at": "2", "what": "alarms", "expected": "none", "seen": "r"}]


def test_a_passing_test_is_a_line_and_its_story_on_demand(policy: Any) -> None:
    passing = FAILING.replace("alarms: []", "alarms: [r]")
    short = policy("test", "@passing.yaml", passing=passing)
    assert (short.returncode, len(short.stdout.splitlines())) == (0, 2)
    assert "Warmup, margin" in policy("test", "-v", "@passing.yaml").stdout


def test_a_policy_without_tests_says_so(policy: Any) -> None:
    answer = policy("test", "@right.yaml", right=RIGHT)
    assert (answer.returncode, answer.stdout.split("/")[-1]) == (0, "right.yaml has no tests\n")


def test_explain_says_in_words_what_a_policy_does(policy: Any) -> None:
    told = policy("explain", "conservative").stdout
    assert "who agrees    a person; if nobody answers within 15 minutes, it is not done" in told
    [row] = rows(policy("explain", "conservative", "--json"))
    assert [rule["name"] for rule in row["rules"]][:3] == ["nonfinite", "skip-bad-data", "cut-learning-rate"]
    assert row["now"] is None


def test_diff_compares_two_policies_in_words(policy: Any) -> None:
    answer = policy("diff", "@right.yaml", "@changed.yaml", right=RIGHT, changed=RIGHT.replace("stop", "resume"))
    assert (
        answer.stdout == "rule r: does: end a pause, each time; was: stop the run with a last checkpoint, each time\n"
    )
    assert policy("diff", "autonomous", "autonomous").stdout == "they do the same\n"
    assert rows(policy("diff", "observe-only", "autonomous", "--json"))[0]["part"] == "name"


def test_list_shows_the_shipped_policies_or_those_of_a_folder(policy: Any, tmp_path: Path) -> None:
    assert [row["policy"] for row in rows(policy("list", "--json"))] == list(SHIPPED)
    [row] = rows(policy("list", "@", "--json", right=RIGHT))
    assert (row["policy"], row["from"]) == ("right", f"{tmp_path}/right.yaml")


def test_schema_is_what_editors_need(policy: Any) -> None:
    assert policy("schema").stdout == schema_text()


@pytest.mark.parametrize(
    "words, said",
    [
        (("check", "none.yaml"), "there is no file 'none.yaml'; policies that are shipped: observe-only, conservative"),
        (("explain", "cautious"), "there is no file 'cautious'"),
        (("explain", "@empty"), "has no policies: files that end in .yaml or .yml"),
        (("diff", "autonomous"), "name two policies, or one and --run"),
        (("activate", "autonomous"), "say for which runs: --run RUN, or --all"),
        (("activate", "autonomous", "--run", "x", "--all"), "say for which runs"),
        (("activate", "@failing.yaml", "--all"), "1 of the 1 tests of "),
        (("activate", "autonomous", "--all", "--skip-tests"), "pilothouse up"),
        (("list", "--runs"), "pilothouse up"),
        (("diff", "autonomous", "--run", "x"), "pilothouse up"),
        (("explain", "autonomous", "--run", "x"), "pilothouse up"),
        (("tst",), "No such command 'tst'"),
    ],
)
def test_a_persons_mistake_is_one_line(policy: Any, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    tmp_path.joinpath("empty").mkdir()
    assert said in refused(policy(*words, failing=FAILING))


def test_what_cannot_be_used_is_not_explained_but_told(policy: Any) -> None:
    answer = policy("explain", "@wrong.yaml", wrong="name: p\nmode: on\nrules: []\n")
    assert "wrong.yaml cannot be used: line 2, column 7: mode: no value 'on'" in refused(answer)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_stack_is_given_a_shipped_policy_by_its_name_too(name: str, tmp_path: Path) -> None:
    [known] = read_policies(policy_path(Path(name))).policies
    assert known.text == shipped_policy_text(name)
    assert policy_path(tmp_path / name) == tmp_path / name, "a path is a path"


def test_a_file_goes_before_a_shipped_policy_of_its_name(policy: Any, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        tmp_path.joinpath("autonomous").write_text(
            shipped_policy_text("autonomous").replace("name: autonomous", "name: ours")
        )
        [row] = rows(policy("list", "autonomous", "--json"))
    assert row["policy"] == "ours"
