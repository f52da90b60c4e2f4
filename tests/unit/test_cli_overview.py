"""Log lines, profiles and facts on one line, the machine in a few words, a fact as it was typed."""

import json
from typing import Any

import pytest

from pilothouse.cli.report_fact import fact_of, read_moment, read_numbers
from pilothouse.cli.views import LOG_COLUMNS, is_dirty, machine
from pilothouse.events.errors import UserMistake
from pilothouse.events.event_words import summary

SAID: dict[str, object] = {"fact": "latency", "subject": "gpt-7", "note": "", "who": "ci", "numbers": {"p95_ms": 4.0}}


@pytest.mark.parametrize(
    "kind, body, said",
    [
        ("log_lines", {"lines": [{"level": "ERROR", "text": "out of\nluck"}], "dropped": {"rate": 2, "bytes": 1}},
         "1 lines, 3 over the bounds: ERROR out of luck"),
        ("log_lines", {}, "0 lines"),
        ("pipeline_reported", SAID, "latency gpt-7 p95_ms=4 by ci"),
        ("data_profiled", {"feature": "length", "data_schema": "v2", "values_sampled": 6, "values_seen": 60,
                           "numbers": {"mean": 1.5, "greatest": "Infinity"}},
         "length v2 6 of 60 values mean=1.5 greatest=Infinity"),
    ],
)  # fmt: skip
def test_an_event_is_one_line(kind: str, body: dict[str, Any], said: str) -> None:
    assert summary(kind, body) == said


def test_a_machine_is_told_in_a_few_words() -> None:
    found = {"host": "node7", "python": "3.11.7", "gpus": {"count": 8, "models": ["NVIDIA H100"]},
             "packages": {"torch": "2.13.0", "numpy": "2.4"}}  # fmt: skip
    assert machine(found) == "node7, 8 × NVIDIA H100, Python 3.11.7, torch 2.13.0"
    assert machine({}) == ""


@pytest.mark.parametrize(
    "environment, dirty",
    [({"git": {"dirty": True}}, True), ({"git": {"dirty": False}}, False), ({"git": {}}, False), ({}, False)],
)
def test_only_what_is_known_to_differ_is_called_so(environment: dict[str, Any], dirty: bool) -> None:
    assert is_dirty({"environment": json.dumps(environment)}) is dirty


def test_a_line_of_a_stranger_does_nothing_to_the_terminal() -> None:
    row = {"at": 1, "attempt": 1, "rank": 0, "step": 3, "level": "INFO", "logger": "a\x1b", "text": "x\x1b[2J\nsecond"}
    told = {name: cell(row) for name, cell in LOG_COLUMNS}
    assert (told["logger"], told["text"]) == ("a\\x1b", "x\\x1b[2J\nsecond")


def test_the_same_report_with_the_same_word_is_the_same_event_and_without_one_another() -> None:
    one, two = (fact_of("run", SAID, 1, "build-42").event_id for _ in range(2))
    assert one == two
    assert fact_of("run", SAID | {"subject": "gpt-8"}, 1, "build-42").event_id != one
    assert fact_of("other", SAID, 1, "build-42").event_id != one
    assert len({fact_of("run", SAID, 1, "").event_id for _ in range(2)}) == 2


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"fact": "deployed"}, "no fact is called 'deployed'; there are artifacts, bias_test, "),
        ({"numbers": {}}, "latency takes p95_ms, p50_ms, p99_ms, requests and needs p95_ms; p95_ms is missing"),
        ({"who": ""}, "who: String should have at least 1 character"),
        ({"subject": "x" * 201}, "subject: String should have at most 200 characters"),
    ],
)
def test_a_mistake_in_a_fact_is_one_line(changed: dict[str, object], said: str) -> None:
    with pytest.raises(UserMistake) as refused:
        fact_of("run", SAID | changed, 1, "")
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


def test_numbers_are_pairs() -> None:
    assert read_numbers(["p95_ms=4", "requests=1e6"]) == {"p95_ms": 4.0, "requests": 1e6}
    with pytest.raises(UserMistake, match="'p95_ms=fast' is no number with its name; write it as"):
        read_numbers(["p95_ms=fast"])


def test_a_moment_is_of_the_past_and_with_its_zone() -> None:
    assert read_moment("2026-01-02T03:04:05+01:00") == 1_767_319_445_000_000
    assert read_moment("") > 1_767_319_445_000_000
    for text, said in (("soon", "is no time"), ("2999-01-01", "is not in the past"), ("1905-01-01", "not in the past")):
        with pytest.raises(UserMistake, match=said):
            read_moment(text)
