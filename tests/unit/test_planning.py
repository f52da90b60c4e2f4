"""What of a run's history is done again by one that follows it."""

import math
from pathlib import Path

import pytest

from pilothouse.cli.plan_command import account
from pilothouse.cli.planning import plan_of
from pilothouse.events.actions import Rollback
from pilothouse.events.decisions import InterventionIssued
from pilothouse.producers.steering.plan import Plan, Planned
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.run_builder import quiet_loss

POLICY = """
name: p
mode: enforce
rules:
- name: heal
  when: conditions.Finite == 'False'
  actions: [{action: rollback, skip_batches: 2, lr_factor: 0.5}]
- name: tell
  when: conditions.Finite == 'False'
  actions: [{action: notify, message: look}]
"""


def governed(**fields: object) -> GovernedRun:
    broken = lambda position, step, rank: math.nan if position == 35 else quiet_loss(step, rank)  # noqa: E731  # a name for one line
    return GovernedRun(world=2, loss=broken, **fields).begin(POLICY)  # type: ignore[arg-type]  # whatever a case names


def planned(run: GovernedRun) -> Plan:
    return plan_of(run.run_id, run.records, run.decisions)


def what(plan: Plan) -> list[tuple[int, int, str]]:
    return [(done.stretch, done.step, done.action.action) for done in plan.interventions]


def test_what_was_applied_stands_with_its_step_and_what_only_people_heard_does_not() -> None:
    run = governed().train(60).end()
    plan = planned(run)
    back = next(one for one in run.of(InterventionIssued) if isinstance(one.action, Rollback))
    assert what(plan) == [(0, 36, "rollback")]
    assert plan.interventions[0].intervention_id == back.intervention_id
    assert (plan.complete, plan.world_size) == (True, 2)


def test_the_loss_of_each_stretch_stands_as_it_was_told() -> None:
    plan = planned(governed().train(60).end())
    first, second = plan.stretches
    assert first.steps == tuple(range(36))
    assert math.isnan(first.loss[-1] or 0.0)
    assert second.steps[0] == 31
    assert second.loss[0] == quiet_loss(31)


def test_what_was_never_applied_is_not_in_it() -> None:
    run = governed(obeys=False).train(60).end()
    assert run.of(InterventionIssued)
    assert planned(run).interventions == ()


def test_of_a_crash_and_a_restart_only_what_was_kept_stands() -> None:
    run = governed().train(50)
    run.begin_attempt("restart", "attempt-after-crash", 21)  # from a checkpoint that is older than the rollback
    run.loss = lambda _, step, rank: quiet_loss(step, rank)
    plan = planned(run.train(20).end())
    assert what(plan) == []
    assert [stretch.steps for stretch in plan.stretches] == [tuple(range(41))]
    later = governed().train(50)
    later.begin_attempt("restart", "attempt-after-crash", 41)  # newer than the rollback: it stays
    assert what(planned(later.train(10).end())) == [(0, 36, "rollback")]


def test_a_run_that_goes_on_has_a_plan_up_to_here() -> None:
    plan = planned(governed().train(40))
    assert not plan.complete
    assert "has not ended" in account(plan, Path("/p.json"), "run")


def test_a_plan_comes_back_from_its_file_equal_to_the_last_bit() -> None:
    plan = planned(governed().train(60).end())
    read = Plan.model_validate_json(plan.model_dump_json())
    assert read.model_dump_json() == plan.model_dump_json()
    assert math.isnan(read.stretches[0].loss[-1] or 0.0)


@pytest.mark.parametrize("change", [{"step": 3}, {"stretch": 0, "action": {"action": "rollback"}}])
def test_a_plan_that_cannot_be_followed_is_none(change: dict[str, object]) -> None:
    done = {"stretch": 0, "step": 5, "intervention_id": "i", "rule": "r", "action": {"action": "checkpoint_now"}}
    both = [Planned.model_validate(done), Planned.model_validate(done | {"intervention_id": "j"} | change)]
    with pytest.raises(ValueError, match=r"(intervention|rollback) j"):
        Plan(run_id="run", interventions=tuple(both))
