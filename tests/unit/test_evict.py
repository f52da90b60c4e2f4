"""Who must go is named by what the run's own detectors say; where nobody is named, nobody goes."""

import math

import pytest

from pilothouse.events.actions import EvictRank
from pilothouse.events.decisions import InterventionDeclined, InterventionIssued
from pilothouse.events.envelope import LogPlace
from pilothouse.governance.decide import completed
from pilothouse.governance.desk import Desk, Header
from pilothouse.stream_processors.judging import situation
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.unit.test_decide import NOTIFY, policy, rule, running

EVICT = "{action: evict_rank}"


def own_norm(step: int, rank: int) -> dict[str, float]:
    """That of rank 2 is thirty times as large from step 80 on."""
    usual = 1.0 + 0.05 * math.sin(step + rank)
    return {"local_grad_norm": usual * (30.0 if rank == 2 and step >= 80 else 1.0)}


def test_the_rank_that_is_apart_is_the_one_that_goes() -> None:
    text = policy(rule(EVICT, when="\"conditions.Synchronized == 'False'\""))
    run = GovernedRun(beside=own_norm, checkpoint_every=0).begin(text).train(95)
    assert run.of(InterventionIssued)[0].action == EvictRank(rank=2)


def test_where_nobody_is_named_nobody_goes_and_the_ladder_goes_on() -> None:
    run = running(policy(rule(f"{EVICT}, {NOTIFY}")), 3)
    assert run.of(InterventionDeclined)[0].why == "nobody is named: apart_rank is not known"
    assert run.of(InterventionIssued)[0].action.action == "notify"


@pytest.mark.parametrize("named", [-1.0, math.nan])
def test_a_feature_that_names_nobody_is_no_rank(named: float) -> None:
    run = running(policy(rule(NOTIFY)), 1)
    run.state.last_features["straggler_rank"] = named
    desk = Desk(Header("run", "", 0, ""), LogPlace(0, 0, 0), {})
    _, obstacle = completed(EvictRank(named_by="straggler_rank"), situation(run.state, desk))
    assert str(obstacle).startswith("nobody is named: straggler_rank is ")
