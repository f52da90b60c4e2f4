"""A revert is an intervention like any other: a run that follows does it at the same step, to the last bit."""

from pathlib import Path

from pilothouse.cli.planning import plan_of
from pilothouse.events.decisions import InterventionVerified
from pilothouse.producers.ranks.ballots import LocalBallots
from pilothouse.producers.steering.safe_point import Links
from pilothouse.tests.pilot_world import links_of
from pilothouse.tests.run_builder import activated
from pilothouse.tests.unit.test_follow import GovernedTape, Training, follower, same

IN_VAIN = """
name: in-vain
mode: enforce
rules:
- name: decay
  when: features.steps_observed > 8.0
  actions: [{action: set_weight_decay, value: 0.3}, {action: scale_lr, factor: 0.3}]
  cooldown_steps: 20
  limit: {count: 2}
  verify: {window_steps: 6, success: features.loss < 0.0, on_failure: revert}
"""
STEPS = 60


def test_what_was_put_back_is_put_back_again_where_another_run_follows(tmp_path: Path) -> None:
    tape = GovernedTape()
    tape._fold(activated("run-1", IN_VAIN, seq=2))
    first = Training(tape, tmp_path / "first", links=lambda *_: Links(LocalBallots(), tape)).train(STEPS)
    plan = plan_of("run-1", tape.records, tape.decisions)
    kinds = [planned.action.action for planned in plan.interventions]
    assert kinds == ["set_weight_decay", "revert", "scale_lr", "revert"]
    verified = [each.outcome for each in tape.decisions if isinstance(each, InterventionVerified)]
    assert verified == ["reverted", "reverted"]
    assert (first.pilot.lr_multiplier, first.optimizer.param_groups[0]["weight_decay"]) == (1.0, 0.01)
    another, following = follower(plan)
    again = Training(another, tmp_path / "again", following, links=links_of(None)).train(STEPS)
    assert (following.fault, following.done) == ("", 4)
    assert same(again.rows) == same(first.rows)
    assert again.weights() == first.weights()
