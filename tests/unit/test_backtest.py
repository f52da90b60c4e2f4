"""Another policy over an old run: what is compared, from where on it cannot be, and what is never counted."""

import json
import math
from functools import cache
from typing import Any, NamedTuple

import pytest

from pilothouse.events.decisions import IncidentOpened, InterventionIssued, InterventionProposed
from pilothouse.events.telemetry import RunStarted
from pilothouse.governance.policy import policy_hash
from pilothouse.stream_processors.backtest import Backtest, backtest
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.run_builder import activated, quiet_loss

CLIP = "{action: set_clip, value: 1.0}"
BACK = "{action: rollback, lr_factor: 0.5}"
NOTIFY = "{action: notify, message: look}"
NAN = "conditions.Finite == 'False'"
ALWAYS = "has(features.loss) && features.loss > 0.0"


class Candidate(NamedTuple):
    """One policy for whatever run."""

    name: str
    text: str

    def for_run(self, _: RunStarted) -> "Candidate":
        return self


def policy(*rules: tuple[str, str, str], mode: str = "enforce", more: str = "cooldown_steps: 500") -> str:
    """(name, when, action) each."""
    lines = [f'- {{name: {name}, when: "{when}", actions: [{action}], {more}}}\n' for name, when, action in rules]
    return f"name: p\nmode: {mode}\nrules: {'' if rules else '[]'}\n{''.join(lines)}"


def nan_at(*positions: int) -> Any:
    return lambda position, step, rank: math.nan if position in positions else quiet_loss(step, rank)


@cache
def run_under(text: str, *nans: int, obeys: bool = True) -> GovernedRun:
    run = GovernedRun(world=1, loss=nan_at(*nans), obeys=obeys).begin(text)
    return run.train(120, steps_per_tick=2).end()


def compared(run: GovernedRun, text: str, **told: Any) -> Backtest:
    return backtest(run.run_id, run.records, Candidate("candidate", text), **told)


WATCH = policy(("watch", NAN, NOTIFY))
HEAL = policy(("heal", NAN, BACK))


def test_the_same_policy_parts_nowhere_and_does_the_same() -> None:
    run = run_under(HEAL, 60)
    assert run.of(InterventionIssued)
    found = compared(run, HEAL, told=run.decisions)
    assert found.open_loop_from is None
    assert found.in_force == found.candidate
    assert [caught.catch for caught in found.incidents] == ["same"]
    assert found.told == found.redecided > 0


def test_an_intervention_that_was_not_given_parts_the_runs_at_its_step() -> None:
    run = run_under(WATCH, 60, 61, 90)
    found = compared(run, HEAL)
    assert found.open_loop_from == 60
    assert (found.candidate.sound.issued, found.candidate.sound.touching) == ({"rollback": 1}, 1)
    assert found.in_force.sound.issued == {"notify": 1}


def test_what_lies_behind_the_parting_is_marked_and_not_compared() -> None:
    run = run_under(WATCH, 60, 100)
    first, second = run.of(IncidentOpened)
    quick = policy(("heal", NAN, BACK), more="cooldown_steps: 1, ttl_steps: 2")
    found = compared(run, quick)
    assert [caught.opened_step for caught in found.incidents] == [first.step, second.step]
    assert [caught.catch for caught in found.incidents] == ["same", "open_loop"]
    assert found.incidents[1].change is None
    assert found.candidate.sound.proposed == {"rollback": 1}
    assert found.candidate.open_loop.proposed["rollback"] >= 1


def test_an_intervention_that_was_given_and_would_not_have_been_parts_them_too() -> None:
    found = compared(run_under(HEAL, 60), WATCH)
    assert found.open_loop_from == 60
    assert found.in_force.sound.issued == {"rollback": 1}
    assert found.candidate.sound.issued == {"notify": 1}


def test_a_notice_or_a_checkpoint_parts_nothing() -> None:
    save = policy(("save", NAN, "{action: checkpoint_now}"), ("watch", NAN, NOTIFY))
    found = compared(run_under(WATCH, 60), save)
    assert found.open_loop_from is None
    assert found.candidate.sound.issued == {"checkpoint_now": 1, "notify": 1}


def test_an_incident_is_caught_earlier_or_later_by_so_many_steps() -> None:
    slow = policy(("watch", NAN, NOTIFY), more="cooldown_steps: 500, for: 3")
    run = run_under(WATCH, *range(60, 70))
    [caught] = compared(run, slow).incidents
    assert (caught.catch, caught.change, caught.in_force, caught.candidate) == ("later", 2, 60, 62)
    [caught] = compared(run_under(slow, *range(60, 70)), WATCH).incidents
    assert (caught.catch, caught.change) == ("earlier", -2)


@pytest.mark.parametrize(
    "was, now, catch",
    [(WATCH, policy(), "missed"), (policy(), WATCH, "newly_caught"), (policy(), policy(), "caught_by_neither")],
)
def test_an_incident_that_one_of_them_does_not_see(was: str, now: str, catch: str) -> None:
    [caught] = compared(run_under(was, 60), now).incidents
    assert caught.catch == catch


def test_on_a_healthy_run_whatever_is_done_is_false() -> None:
    run = run_under(WATCH)
    found = compared(run, policy(("clip", ALWAYS, CLIP), ("watch", ALWAYS, NOTIFY)))
    assert (found.healthy, found.incidents, found.outcome) == (True, (), "Completed")
    assert found.candidate.sound.touching == 1
    assert found.candidate.sound.alarms == {"ticket": 2}
    assert found.in_force.sound.alarms == {}


def test_a_run_that_crashed_without_an_incident_is_not_healthy() -> None:
    run = GovernedRun(world=1).begin(WATCH).train(30).end("crashed")
    assert not compared(run, WATCH).healthy


def test_what_people_ordered_is_no_doing_of_a_policy() -> None:
    run = GovernedRun(world=1).begin(WATCH).train(20)
    run.order("pause")
    run.train(5).order("resume")
    found = compared(run.train(20).end(), WATCH)
    assert found.open_loop_from is None
    assert (found.in_force.sound.issued, found.in_force.sound.rules) == ({}, {})


def test_a_run_that_nobody_governed_is_governed_by_the_candidate_from_its_start() -> None:
    run = GovernedRun(world=1, loss=nan_at(60))
    run.tell(run.ranks[0], run.ranks[0].started, 1)
    found = compared(run.train(100).end(), WATCH)
    assert found.policies == ()
    assert found.in_force.sound.proposed == {}
    assert found.candidate.sound.proposed == {"notify": 1}


def test_another_policy_that_people_switched_to_is_replaced_as_well() -> None:
    run = GovernedRun(world=1, loss=nan_at(60)).begin(policy()).train(50)
    run.fold(activated("run", WATCH, seq=2))
    run.train(50).end()
    found = compared(run, policy())
    assert found.in_force.sound.proposed == {"notify": 1}
    assert found.candidate.sound.proposed == {}


def test_the_policy_is_chosen_by_what_the_run_says_of_itself() -> None:
    class ByModel:
        def for_run(self, started: RunStarted) -> Candidate:
            return Candidate(f"for-{started.model}", WATCH)

    run = GovernedRun(world=1).begin(HEAL, model="gpt").train(20).end()
    found = backtest("run", run.records, ByModel())
    assert (found.policy, found.policy_hash) == ("for-gpt", policy_hash(WATCH))
    assert found.policies == ("default",)


def test_proposals_that_wait_for_people_are_counted_and_answered_by_their_timeout() -> None:
    asked = policy(("heal", NAN, BACK), more="cooldown_steps: 500, approval: {by: human, timeout_seconds: 5}")
    found = compared(run_under(WATCH, 60), asked)
    assert found.candidate.sound.waiting == 1
    assert found.candidate.sound.rules["heal"] == {"proposed": 1, "declined": 1}
    assert found.open_loop_from is None


def test_in_observe_mode_nothing_is_issued_and_what_would_be_done_is_counted() -> None:
    found = compared(run_under(WATCH, 60), policy(("heal", NAN, BACK), mode="observe"))
    assert (found.candidate.sound.would_touch, found.candidate.sound.touching) == (1, 0)
    assert found.open_loop_from is None


def test_a_core_that_decides_otherwise_today_is_seen() -> None:
    run = run_under(HEAL, 60)
    told = [one.model_copy(update={"decision_id": "other"}) if isinstance(one, InterventionProposed) else one
            for one in run.decisions]  # fmt: skip
    found = compared(run, HEAL, told=told)
    assert found.told - found.redecided == 1


def test_it_gives_the_same_every_time() -> None:
    run = run_under(WATCH, 60, 100)
    assert json.dumps(repr(compared(run, HEAL))) == json.dumps(repr(compared(run, HEAL)))
