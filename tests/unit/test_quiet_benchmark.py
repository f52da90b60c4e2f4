"""What the quiet benchmark calls quiet, and its exit status; the trainings' accounts are given."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from pilothouse.benchmarks import quiet
from pilothouse.cli.demo.account import Account
from pilothouse.cli.demo.plan import RANKS, STEP_SECONDS, STEPS, Setting, legs_of
from pilothouse.tests.demo_accounts import QUIET, incident, proposal, with_run

WHOLE = replace(QUIET, steps_by_rank=dict.fromkeys(range(RANKS), STEPS))
LOUD: dict[str, Account] = {
    "something was proposed": replace(WHOLE, interventions=[proposal()]),
    "an incident was opened": with_run(WHOLE, incident_list=[incident(1)]),
    "a rank was not seen": replace(WHOLE, steps_by_rank={0: STEPS}),
    "a step was not seen": replace(WHOLE, steps_by_rank=dict.fromkeys(range(RANKS), STEPS - 1)),
    "the run did not complete": with_run(WHOLE, outcome="crashed"),
    "nobody judged it": replace(WHOLE, phases=[]),
    "its loss is not finite": replace(WHOLE, validation_losses=[(STEPS - 1, float("nan"))]),
}

Bench = Callable[..., int]


class NoStack:
    """Stands where the stack would."""

    def __init__(self, _folder: Path) -> None: ...
    def __enter__(self) -> "NoStack":
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Setting]:
    """The settings that were trained."""
    return []


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, asked: list[Setting]) -> Bench:
    """The benchmark's exit status, where the archive then tells these accounts, seed by seed."""

    def run(accounts: Iterable[Account], *options: str) -> int:
        left = iter(accounts)

        def train(_stack: object, setting: Setting, leg: object, _screen: object) -> Account:
            assert leg == legs_of(setting, "quiet")[0], "what `pilothouse demo --no-faults` trains"
            asked.append(setting)
            return next(left)

        monkeypatch.setattr(quiet, "DemoStack", NoStack)
        monkeypatch.setattr(quiet, "train_leg", train)
        return quiet.main(list(options))

    return run


def test_twelve_quiet_seeds_of_the_demos_own_setting_are_status_0(bench: Bench, asked: list[Setting]) -> None:
    assert bench([WHOLE] * 12) == 0
    assert [setting.seed for setting in asked] == list(range(12))
    assert {(setting.steps, setting.ranks, setting.step_seconds) for setting in asked} == {(STEPS, RANKS, STEP_SECONDS)}


@pytest.mark.parametrize("way", LOUD)
def test_one_seed_that_was_not_quiet_is_status_1(bench: Bench, way: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench([WHOLE, LOUD[way], WHOLE], "--seeds", "3") == 1
    assert "2 of 3 seeds were quiet" in capsys.readouterr().out


def test_a_smaller_setting_can_be_asked_for(bench: Bench, asked: list[Setting], tmp_path: Path) -> None:
    small = replace(WHOLE, steps_by_rank={0: 150, 1: 150})
    assert bench([small], "--seeds", "1", "--quick", "--json", str(tmp_path / "out.json")) == 0
    assert (asked[0].ranks, asked[0].steps, asked[0].step_seconds) == (2, 150, 0.0)
    told = json.loads((tmp_path / "out.json").read_text())
    assert told["setting"] == {"steps": 150, "ranks": 2, "step_seconds": 0.0, "mode": "enforce"}
    assert [seed["quiet"] for seed in told["seeds"]] == [True]


@pytest.mark.parametrize("options", [("--seeds", "0"), ("--steps", "10"), ("--ranks", "0")])
def test_nothing_trained_proves_nothing(bench: Bench, options: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as end:
        bench([], *options)
    assert end.value.code == 2
