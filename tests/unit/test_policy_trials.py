"""The inline tests of a policy: their notation, what they see of the real fold, and that they can fail."""

import math
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

import pytest

from pilothouse.governance.policy import SHIPPED, load_policy, shipped_policy_text
from pilothouse.governance.trials import MAX_ENTRIES, expanded
from pilothouse.stream_processors.trial import Outcome, run_trials, words_of

RULES = """\
name: p
mode: enforce
rules:
  - {name: nan, when: conditions.Finite == 'False', actions: [{action: notify, message: m}], cooldown_steps: 0}
  - name: high
    when: has(features.loss) && features.loss > 5.0
    for: 2
    actions: [{action: skip_batches, count: 3}, {action: scale_lr, factor: 0.5}]
    cooldown_steps: 0
    verify: {window_steps: 8}
    approval: {by: APPROVAL, timeout_seconds: 20}
tests:
"""


def outcomes(*tests: str, approval: str = "auto") -> list[Outcome]:
    text = RULES.replace("APPROVAL", approval) + "".join(
        f"  - {{name: t{number}, {test}}}\n" for number, test in enumerate(tests)
    )
    return list(run_trials(load_policy(text), text))


def missed(test: str, **more: Any) -> list[str]:
    [outcome] = outcomes(test, **more)
    return [f"{one.at} {one.what}: {one.expected} / {one.seen}" for one in outcome.mismatches]


@pytest.mark.parametrize(
    "notation, values",
    [
        ("2.0+0x3 9x2 nan", [2.0, 2.0, 2.0, 2.0, 9.0, 9.0, 9.0, math.nan]),
        ("1+0.5x2 -1 _ _x1 inf", [1.0, 1.5, 2.0, -1.0, None, None, None, math.inf]),
        ("1-1x2 -inf .5 1e-3", [1.0, 0.0, -1.0, -math.inf, 0.5, 0.001]),
        ("3", [3.0]),
    ],
)
def test_a_series_is_written_as_in_promtool(notation: str, values: Sequence[float | None]) -> None:
    assert [repr(value) for value in expanded(notation)] == [repr(value) for value in values]


def test_noise_has_its_deviation_and_is_the_same_in_every_run() -> None:
    values = [value or 0.0 for value in expanded("2.0x1998~0.5")]
    assert values == list(expanded("2.0x1998~0.5"))
    assert mean(values) == pytest.approx(2.0, abs=0.05)
    assert stdev(values) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("notation", ["", "2.0x", "x3", "two", "_+1x3", "_x3~0.1", f"1x{MAX_ENTRIES}", "1x1000 1x1000"])
def test_what_is_no_series_is_refused(notation: str) -> None:
    with pytest.raises(ValueError, match=r"series"):
        expanded(notation)


def test_what_is_seen_is_compared_and_a_wrong_expectation_fails() -> None:
    assert missed("series: {loss: 2.0x20 nan 2.0x4}, expect: [{at: 21, phase: Diverged, alarms: [nan]}]") == []
    wrong = "{at: 20..21, phase: Normal, conditions: {Finite: true}, alarms: [], interventions: []}"
    assert missed(f"series: {{loss: 2.0x20 nan 2.0x4}}, expect: [{wrong}]") == [
        "21 phase: Normal / Diverged",
        "21 condition Finite: True / False",
        "21 alarms: none / nan",
        "20..21 interventions: none / nan: notify message=m (issued)",
    ]


def test_an_entry_that_was_never_trained_is_said() -> None:
    [said] = missed("series: {loss: 2.0x20}, expect: [{at: 21, phase: Normal}]")
    assert said.startswith("21 entry: to be trained / never was")


HIGH = "series: {loss: 2.0x20 9.0x3 2.0x19}"


def test_interventions_are_compared_in_order_with_their_values_and_their_end() -> None:
    skip = "{rule: high, action: skip_batches, having: {count: 3}, outcome: recovered}"
    assert missed(f"{HIGH}, expect: [{{at: 0..44, interventions: [{skip}]}}]") == []
    [said] = missed(f"{HIGH}, expect: [{{at: 0..44, interventions: [{skip.replace('3', '4')}]}}]")
    assert said == (
        "0..44 interventions: high: skip_batches count=4 (recovered) / high: skip_batches count=3 (recovered)"
    )


def test_another_end_than_the_expected_is_a_failure() -> None:
    ineffective = "[{at: 0..44, interventions: [{rule: high, action: skip_batches, outcome: ineffective}]}]"
    [said] = missed(f"{HIGH}, expect: {ineffective}")
    assert said.endswith("high: skip_batches (ineffective) / high: skip_batches count=3 (recovered)")


def test_skipped_entries_are_never_trained() -> None:
    [outcome] = outcomes(f"{HIGH}, expect: [{{at: 0, alarms: []}}]")
    assert [entry for entry in range(30) if entry not in outcome.seen] == [23, 24, 25]


def test_a_trainer_that_does_not_obey_lets_commands_expire_and_is_asked_again() -> None:
    asked = "{rule: high, action: skip_batches, outcome: issued}"
    expired = f"{asked.replace('issued', 'expired')}, {asked}"
    test = f"series: {{loss: 2.0x20 9.0x100}}, obeys: false, expect: [{{at: 0..120, interventions: [{expired}]}}]"
    assert missed(test) == []


@pytest.mark.parametrize("says, end", [("approve", "recovered"), ("decline", "declined")])
def test_people_answer_as_the_test_says(says: str, end: str) -> None:
    expect = f"[{{at: 0..44, interventions: [{{rule: high, action: skip_batches, outcome: {end}}}]}}]"
    assert missed(f"{HIGH}, people: [{{at: 24, says: {says}}}], expect: {expect}", approval="human") == []


def test_nobody_who_answers_in_time_is_a_default() -> None:
    declined = "[{at: 0..23, interventions: [{rule: high, action: skip_batches, outcome: declined}]}]"
    assert missed(f"{HIGH}, interval: 10, expect: {declined}", approval="human") == []


def test_another_mode_may_be_tested() -> None:
    observed = "[{at: 0..44, interventions: [{rule: high, action: skip_batches, outcome: proposed}]}]"
    assert missed(f"{HIGH}, mode: observe, expect: {observed}") == []


def test_silence_is_a_series_without_values() -> None:
    assert missed("series: {loss: 2.0x20 _x20}, expect: [{at: 40, conditions: {TelemetryFresh: 'False'}}]") == []


def test_what_a_trainer_cannot_do_is_declined() -> None:
    declined = "[{at: 22, interventions: [{rule: high, action: skip_batches, outcome: declined}]}]"
    assert missed(f"{HIGH}, steers: [scale_lr], expect: {declined}") == []


def test_a_trial_is_the_same_every_time() -> None:
    first, second = ([repr(decision) for _, decision in outcomes(f"{HIGH}, expect: [{{at: 0}}]")[0].said] for _ in "ab")
    assert first == second
    assert len(first) > 10


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_policy_passes_its_own_tests(name: str) -> None:
    text = shipped_policy_text(name)
    policy = load_policy(text)
    assert policy.name == name
    assert policy.tests
    failed = {
        outcome.trial.name: [*outcome.mismatches, *map(words_of, outcome.proposals)]
        for outcome in run_trials(policy, text)
        if not outcome.passed
    }
    assert failed == {}
