"""A rollback to the lowest validation loss: which checkpoint it takes, and what it says where there is none."""

from typing import Any

import pytest

from pilothouse.events.actions import Rollback
from pilothouse.events.decisions import InterventionDeclined, InterventionIssued
from pilothouse.events.telemetry import EvalCompleted
from pilothouse.governance.policy import load_policy
from pilothouse.governance.policy_words import of_rule
from pilothouse.tests.governed_run import GovernedRun

OVERFITTING = """
name: p
mode: enforce
rules:
- name: overfitting
  when: has(features.val_rise) && features.val_rise > 0.05
  actions: [{action: rollback, to: best_validation, lr_factor: 0.5}]
  cooldown_steps: 50
"""
LOWEST = 60


def evaluated(run: GovernedRun, evaluations: int, lowest: int = LOWEST) -> GovernedRun:
    """Ten steps, a checkpoint and an evaluation, over and over; the validation loss is lowest at step `lowest`."""
    for _ in range(evaluations):
        run.train(1)
        step = run.step - 1
        loss = 2.0 + abs(step - lowest) * 0.004
        run.tell(run.ranks[0], run.ranks[0].tell, EvalCompleted, step=step, metrics={"loss": loss})
        run.train(9)
    return run


def rollbacks(run: GovernedRun) -> list[Any]:
    return [one.action for one in run.of(InterventionIssued) if isinstance(one.action, Rollback)]


def test_it_takes_the_checkpoint_of_the_lowest_validation_loss_and_not_the_newest_good_one() -> None:
    run = evaluated(GovernedRun().begin(OVERFITTING), 14)
    [action] = rollbacks(run)
    assert action.checkpoint.step == LOWEST
    assert action.lr_factor == 0.5


@pytest.mark.parametrize("evaluations", [12, 60])
def test_a_person_may_order_it_however_long_ago_it_was(evaluations: int) -> None:
    run = evaluated(GovernedRun().begin(), evaluations)
    run.order("intervene", action=Rollback(to="best_validation"))
    [action] = rollbacks(run)
    assert action.checkpoint.step == LOWEST


@pytest.mark.parametrize("evaluations", [0, 5])
def test_before_a_lowest_is_known_it_is_declined_in_words(evaluations: int) -> None:
    run = evaluated(GovernedRun().begin(), evaluations).train(10)
    run.order("intervene", action=Rollback(to="best_validation"))
    assert rollbacks(run) == []
    assert run.of(InterventionDeclined)[0].why.startswith("no validation loss is known to be the lowest yet")


def test_where_the_checkpoint_of_the_lowest_is_unusable_an_older_one_is_taken() -> None:
    run = GovernedRun()
    run.corrupt = frozenset({f"checkpoint-{LOWEST}"})
    evaluated(run.begin(OVERFITTING), 16)
    assert [action.checkpoint.step for action in rollbacks(run)][:2] == [LOWEST, LOWEST - 10]


def test_explained_in_words() -> None:
    [rule] = load_policy(OVERFITTING).rules
    said = of_rule(rule, "enforce")["does"]
    assert said.startswith("go back to the last good checkpoint up to the lowest validation loss, on all ranks")
