"""Which policy governs a run: exactly one, and a tie is found before any run starts."""

from pathlib import Path
from time import process_time
from typing import Any

import pytest

from pilothouse.events.errors import PolicyInvalid
from pilothouse.events.telemetry import RunStarted
from pilothouse.governance.applies_to import AppliesTo, Subject, chosen, subject_of, ties
from pilothouse.governance.policy import DEFAULT
from pilothouse.stream_processors.policy_text import read_policies

GPT = Subject("transformer", "gpt-small", "h100-east", "language", {"stage": "pretrain"})


def applies(**named: Any) -> AppliesTo:
    return AppliesTo.model_validate(named)


def started(**said: Any) -> RunStarted:
    identity: dict[str, Any] = {
        "run_id": "r",
        "writer_id": "w",
        "seq": 1,
        "at": 1,
        "attempt_id": "a",
        "attempt": 1,
        "rank": 0,
    }
    return RunStarted(**identity, reason="start", first_step=0, world_size=1, **said)


def write(folder: Path, name: str, applies_to: str = "{}", more: str = "") -> None:
    folder.joinpath(f"{name}.yaml").write_text(f"name: {name}\napplies_to: {applies_to}\nrules: []\n{more}")


@pytest.mark.parametrize(
    "named, fits",
    [
        ({}, True),
        ({"model_family": "transformer"}, True),
        ({"model_family": "Transformer"}, True),
        ({"model_family": ["rnn", "trans*"]}, True),
        ({"model_family": "rnn"}, False),
        ({"architecture": "gpt-*", "team": "language"}, True),
        ({"architecture": "gpt-*", "team": "vision"}, False),
        ({"cluster": "h?00-east"}, True),
        ({"tags": {"stage": "pretrain"}}, True),
        ({"tags": {"stage": "finetune"}}, False),
        ({"tags": {"owner": "*"}}, True),
        ({"tags": {"owner": "?*"}}, False),
        ({"team": "lang.age"}, False),
        ({"team": "[l]anguage"}, False),
    ],
)
def test_a_policy_is_for_the_runs_that_fit_everything_it_names(named: dict[str, Any], fits: bool) -> None:
    assert applies(**named).fits(GPT) is fits
    assert (applies(**named).misfit(GPT) == "") is fits


def test_a_strange_start_under_a_strange_pattern_stalls_nobody() -> None:
    subject = Subject(team="a" * 5_000)
    began = process_time()
    assert not applies(team="*a" * 40 + "b").fits(subject)
    assert process_time() - began < 1.0  # a pattern that tries every way takes years


def test_what_a_run_says_of_itself_is_what_it_is_chosen_by() -> None:
    said = {"model_family": "rnn", "model": "lstm-2", "cluster": "c", "team": "t", "tags": {"a": "b"}}
    assert subject_of(started(**said)) == Subject("rnn", "lstm-2", "c", "t", {"a": "b"})
    assert subject_of(started(model="m", config={"architecture": "mamba"})).architecture == "mamba"
    assert subject_of(started(model="m", tags={"architecture": "hyena"})).architecture == "hyena"


def test_the_highest_precedence_governs_and_among_equals_what_names_most() -> None:
    policies = [
        (applies(), "all"),
        (applies(team="language"), "team"),
        (applies(team="language", cluster="h100-*"), "both"),
    ]
    assert chosen(policies, GPT) == "both"
    assert chosen([*policies, (applies(precedence=1), "above")], GPT) == "above"
    assert chosen(policies, Subject(team="vision")) == "all"
    assert chosen(policies[1:], Subject(team="vision")) is None


@pytest.mark.parametrize(
    "one, other, run",
    [
        ({}, {}, "every run"),
        ({"team": "a"}, {"cluster": "b"}, "a run with team a and cluster b"),
        ({"team": ["a", "b"]}, {"team": ["c", "b"]}, "a run with team b"),
        ({"architecture": "gpt-*"}, {"architecture": "*-small"}, "a run with architecture "),
        ({"tags": {"x": "1"}}, {"tags": {"y": "2"}}, "a run with tags.x 1 and tags.y 2"),
        ({"team": "A"}, {"team": "a"}, "a run with team "),
        ({"team": "a?"}, {"team": "ab"}, "a run with team ab"),
        ({"team": "??c"}, {"team": "a*"}, "a run with team "),
    ],
)
def test_two_that_could_govern_the_same_run_are_a_tie(one: dict[str, Any], other: dict[str, Any], run: str) -> None:
    [said] = ties([("one", applies(**one)), ("other", applies(**other))])
    assert said.startswith(f"one and other would both govern {run}")
    assert "precedence" in said


@pytest.mark.parametrize(
    "one, other",
    [
        ({"team": "a"}, {"team": "b"}),
        ({"architecture": "gpt-*"}, {"architecture": "lstm-*"}),
        ({"team": "a"}, {"team": "a", "cluster": "b"}),
        ({"precedence": 1}, {}),
        ({"team": "a", "cluster": "x"}, {"team": "b", "architecture": "y"}),
        ({"architecture": "a?"}, {"architecture": "???"}),
    ],
)
def test_what_cannot_meet_or_yields_is_no_tie(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert list(ties([("one", applies(**one)), ("other", applies(**other))])) == []


def test_a_folder_of_policies_gives_each_run_the_one_that_is_for_it(tmp_path: Path) -> None:
    write(tmp_path, "transformers", "{model_family: transformer}")
    write(tmp_path, "recurrent", "{model_family: [rnn, lstm]}")
    policies = read_policies(tmp_path)
    assert policies.for_run(started(model_family="transformer")).name == "transformers"
    assert policies.for_run(started(model_family="LSTM")).name == "recurrent"
    assert policies.for_run(started(model_family="convnet")).name == DEFAULT
    assert policies.for_run(started()).activated("r", 1).name == DEFAULT


def test_without_policies_every_run_is_only_observed() -> None:
    assert read_policies(None).for_run(started()).name == DEFAULT


def test_everything_wrong_with_a_folder_is_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, "a", "{team: x}")
    write(tmp_path, "b", "{cluster: y}")
    write(tmp_path, "c", more="budgte: 3\n")
    tmp_path.joinpath("d.yml").write_bytes(b"\xff")
    tmp_path.joinpath("e.yaml").write_text("name: a\napplies_to: {precedence: 3}\nrules: []\n")
    with pytest.raises(PolicyInvalid) as wrong:
        read_policies(tmp_path)
    said = str(wrong.value)
    assert f"{tmp_path / 'c.yaml'}: line 4, column 1: budgte: no key 'budgte'; did you mean 'budget'?" in said
    assert f"{tmp_path / 'd.yml'} cannot be read: a policy is written in UTF-8; line 1 has the byte 0xff" in said
    assert "two policies are called a" in said
    assert "a and b would both govern a run with team x and cluster y" in said


def test_a_folder_without_policies_or_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyInvalid, match="has no policies"):
        read_policies(tmp_path)
    with pytest.raises(PolicyInvalid, match="cannot be read: No such file"):
        read_policies(tmp_path / "none.yaml")
