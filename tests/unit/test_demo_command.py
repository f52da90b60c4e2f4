"""The demo's exit status, through the entry point; a stack and trainings stand in whose accounts are given."""

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

from pilothouse.cli.demo import command
from pilothouse.cli.demo.account import Account
from pilothouse.cli.demo.plan import Name
from pilothouse.settings import Settings
from pilothouse.tests.demo_accounts import CLOSED, OPEN, QUIET, RANKS, STEPS, proposal
from pilothouse.tests.stack_fixture import typed

Demo = Callable[..., "subprocess.CompletedProcess[str]"]


class NoStack:
    """Keeps `DemoStack`'s contract without starting anything: every command succeeds, or fails with `status`."""

    status = 0
    page = "http://127.0.0.1:1/"

    def __init__(self, data_dir: Path, _kafka_home: Path | None = None) -> None:
        self.data_dir = data_dir
        self.settings = Settings()

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess(words, self.status, "an answer\n", "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


class DeafStack(NoStack):
    status = 2


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Demo:
    """`pilothouse demo`, of which the archive then tells these accounts."""

    def run(accounts: Mapping[Name, Account], *options: str, stack: type[NoStack] = NoStack) -> Any:
        monkeypatch.setattr(command, "DemoStack", stack)
        monkeypatch.setattr(command, "tell_story", lambda *_, **__: accounts)
        return typed("demo", "--steps", str(STEPS), "--ranks", str(RANKS), *options, data_dir=tmp_path)

    return run


def test_a_loop_that_closed_is_status_0(demo: Demo) -> None:
    answer = demo(CLOSED)
    assert answer.returncode == 0, answer.stderr
    assert "The loop closed: all " in answer.stdout


@pytest.mark.parametrize("way", OPEN)
def test_a_loop_that_stayed_open_is_status_1_and_says_where(demo: Demo, way: str) -> None:
    name, told, promise = OPEN[way]
    answer = demo(CLOSED | {name: told})
    assert answer.returncode == 1, answer.stderr
    assert "The loop did not close: " in answer.stdout
    assert any(promise in line for line in answer.stdout.splitlines() if line.startswith("  ✗"))


def test_an_archive_that_does_not_answer_sql_is_an_open_loop(demo: Demo) -> None:
    answer = demo(CLOSED, stack=DeafStack)
    assert answer.returncode == 1
    assert "✗ the archive answers `pilothouse sql`  (0 of 5 answered)" in answer.stdout


def test_a_quiet_run_is_status_0_and_one_that_was_touched_1(demo: Demo) -> None:
    assert demo({"quiet": QUIET}, "--no-faults").returncode == 0
    assert demo({"quiet": replace(QUIET, interventions=[proposal()])}, "--no-faults").returncode == 1


def test_for_programs_the_report_goes_to_the_other_stream(demo: Demo) -> None:
    answer = demo(CLOSED, "--json")
    assert answer.stdout.startswith('{"closed": true')
    assert answer.stdout.count("\n") == 1
    assert "step 50 by ranks 0, 1" in answer.stderr
