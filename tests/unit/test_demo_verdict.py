"""The verdict must notice each way in which the loop can stay open."""

from dataclasses import replace

import pytest

from pilothouse.cli.demo.verdict import findings
from pilothouse.tests.demo_accounts import CLOSED, OPEN, QUIET, SETTING, proposal


def test_a_closed_loop_keeps_every_promise() -> None:
    assert [finding for finding in findings(SETTING, CLOSED) if not finding.held] == []


@pytest.mark.parametrize("way", OPEN)
def test_an_open_loop_is_seen(way: str) -> None:
    name, told, promise = OPEN[way]
    broken = [finding.promise for finding in findings(SETTING, CLOSED | {name: told}) if not finding.held]
    assert any(promise in said for said in broken), broken


def test_the_governed_run_alone_is_judged_by_what_it_is() -> None:
    governed = CLOSED["governed"]
    assert all(finding.held for finding in findings(SETTING, {"governed": governed}))
    ruined = replace(governed, validation_losses=[(199, float("nan"))])
    assert [one.promise for one in findings(SETTING, {"governed": ruined}) if not one.held] == ["governed: ends finite"]


def test_without_faults_an_untouched_run_is_all_that_is_asked() -> None:
    assert all(finding.held for finding in findings(SETTING, {"quiet": QUIET}))
    touched = replace(QUIET, interventions=[proposal()])
    assert not all(finding.held for finding in findings(SETTING, {"quiet": touched}))
