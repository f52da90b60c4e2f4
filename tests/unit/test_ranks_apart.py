"""Ranks against each other: who is slow, who disagrees, who is struck. Told as ranks tell it, judged as a run is."""

import math
import random
from collections.abc import Callable
from typing import NamedTuple

import pytest

from pilothouse.events.decisions import ConditionChanged
from pilothouse.events.telemetry import StepBatch
from pilothouse.stream_processors.detectors import agreement, apart, ranks, spread, straggler
from pilothouse.stream_processors.detectors.sample import StepSample
from pilothouse.stream_processors.detectors.spread import FINE, Spread
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.run_builder import START, quiet_loss


class At(NamedTuple):
    """A rank at a step, and what chance brings."""

    step: int
    rank: int
    noise: random.Random


Metrics = dict[str, float]
Told = Callable[[At], Metrics]
"""What a rank tells at a step, beside its loss and the reduced gradient norm."""
RANKS = 4
SLOW = 2


def alarms(told: Told, steps: int = 400, ranks: int = RANKS, seed: int = 1, rows: int = 20) -> list[ConditionChanged]:
    """The changes of `Synchronized` and `Efficient`, but for the first word that all is well."""
    noise = random.Random(seed)
    run = GovernedRun(world=ranks, mode="observe", checkpoint_every=0).begin()
    for first in range(0, steps, rows):
        tell(run, range(first, first + rows), told, noise)
    return changes(run)


def tell(run: GovernedRun, steps: range, told: Told, noise: random.Random) -> None:
    """So many steps, a batch of each rank."""
    for rank in run.ranks:
        beside = [told(At(step, rank.rank, noise)) for step in steps]
        metrics: dict[str, tuple[float | None, ...]] = {
            "loss": tuple(quiet_loss(step, rank.rank) for step in steps),
            "grad_norm": tuple(1.0 + 0.1 * math.sin(step) for step in steps),
        }
        metrics |= {name: tuple(row.get(name) for row in beside) for name in {name for row in beside for name in row}}
        run.tell(rank, rank.tell, StepBatch, steps=tuple(steps), times=(START,) * len(steps), metrics=metrics)


def changes(run: GovernedRun) -> list[ConditionChanged]:
    watched = [known for known in run.of(ConditionChanged) if known.condition in ("Synchronized", "Efficient")]
    return [known for known in watched if (known.was, known.status) != ("Unknown", "True")]


def status(run: GovernedRun) -> str:
    return run.state.conditions["Synchronized"].status


def working(at: At, slow: float = 1.0, jitter: float = 0.02) -> Metrics:
    """A step of a second, in which all wait for the slowest."""
    compute = 0.7 * slow * math.exp(jitter * at.noise.gauss(0, 1))
    return {"data_wait_s": 0.01 * math.exp(0.5 * at.noise.gauss(0, 1)), "compute_s": compute, "comm_s": 0.3}


def replicated(at: At, off: float = 0.0) -> Metrics:
    """Weights that are the same on all ranks, but for the last bits."""
    return {"param_norm": (100.0 + 0.01 * at.step) * (1.0 + 1e-7 * at.noise.gauss(0, 1)) * (1.0 + off)}


def own_gradient(at: At, sigma: float = 0.1) -> Metrics:
    """A gradient norm before it is reduced; every rank has data of its own."""
    common = 0.3 + 2.0 * math.exp(-at.step / 100)
    return {"local_grad_norm": common * (1.0 + at.rank) * math.exp(sigma * at.noise.gauss(0, 1))}


@pytest.mark.parametrize("factor", [1.5, 3.0])
def test_a_straggler_is_named_with_its_victims_and_let_go_when_it_recovers(factor: float) -> None:
    def told(at: At) -> Metrics:
        is_slow = at.rank == SLOW and 200 <= at.step < 300
        row = working(at, factor if is_slow else 1.0)
        if 200 <= at.step < 300 and not is_slow:
            row["comm_s"] += 0.7 * (factor - 1.0)
        return row

    began, ended = alarms(told)
    assert (began.condition, began.status, began.reason) == ("Efficient", "False", "Straggler")
    assert 200 < began.step <= 250
    assert f"rank {SLOW}" in began.message
    assert began.evidence["straggler_rank"] == SLOW
    assert ended.status == "True"
    assert 300 < ended.step <= 350


def test_the_evidence_of_a_straggler_says_how_slow_since_when_and_at_whose_cost() -> None:
    run = GovernedRun(world=RANKS, mode="observe", checkpoint_every=0).begin()
    noise = random.Random(1)
    for first in range(0, 160, 20):
        steps = range(first, first + 20)
        tell(run, steps, lambda at: working(at, 2.0 if at.rank == SLOW and at.step >= 80 else 1.0), noise)
    seen = run.state.last_features
    assert seen["straggler"] == pytest.approx(2.0, abs=0.2)
    assert seen["straggler_score"] == pytest.approx(0.5, abs=0.05)
    assert seen["straggler_share"] == pytest.approx(0.7 / 1.7, abs=0.05)
    assert seen["straggler_victims"] == RANKS - 1
    assert 72 <= seen["straggler_since"] <= 88


def test_where_computing_includes_the_waiting_the_collectives_tell_who_is_late() -> None:
    """As the SDK times it: all ranks take equally long, and the one that comes last waits least."""

    def told(at: At) -> Metrics:
        late = 0.6 if at.step >= 100 else 0.0
        wait = 0.2 + (0.0 if at.rank == SLOW else late)
        return {
            "compute_s": 1.0 + late + 0.01 * at.noise.gauss(0, 1),
            "comm_s": wait * math.exp(0.05 * at.noise.gauss(0, 1)),
        }

    [began] = alarms(told, 240)
    assert (began.reason, began.evidence["straggler_rank"]) == ("Straggler", SLOW)
    assert began.step <= 150


def test_a_rank_that_waits_for_its_data_is_the_straggler_though_all_steps_are_as_long() -> None:
    def told(at: At) -> Metrics:
        late = 0.8 if at.step >= 100 else 0.0
        wait = 0.01 * math.exp(0.3 * at.noise.gauss(0, 1)) + (late if at.rank == SLOW else 0.0)
        return {"data_wait_s": wait, "compute_s": 1.0 + late - wait}

    found = [known for known in alarms(told, 240) if known.reason == "Straggler"]
    assert [known.evidence["straggler_rank"] for known in found] == [SLOW]
    assert found[0].step <= 150


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(lambda at: working(at, jitter=0.3), id="jitter"),
        pytest.param(lambda at: working(at, slow=1.0 + 0.08 * at.rank), id="ranks of several kinds"),
        pytest.param(lambda at: working(at, slow=0.3 if at.rank == 1 else 1.0), id="one rank has less to do"),
        pytest.param(lambda at: working(at, slow=1e3 if at[:2] == (160, SLOW) else 1.0), id="one slow step"),
        pytest.param(lambda at: working(at, slow=30.0 if 156 <= at.step <= 160 and not at.rank else 1.0), id="a burst"),
        pytest.param(lambda at: working(at, slow=100.0 if at.step < 3 and at.rank == SLOW else 1.0), id="one compiles"),
        pytest.param(lambda at: working(at, slow=9.0 if at.step % 50 == 0 and not at.rank else 1.0), id="checkpoints"),
        pytest.param(lambda _: {"step_s": 1.0}, id="whole steps only"),
    ],
)
def test_ranks_that_are_not_slow_for_good_are_no_stragglers(told: Told) -> None:
    assert [known for known in alarms(told, 800) if known.reason == "Straggler"] == []


def test_times_that_are_nonsense_are_passed_over() -> None:
    wild = [math.nan, math.inf, -math.inf, -1.0, 0.0, 1e300, 1e-300]

    def told(at: At) -> Metrics:
        return {name: at.noise.choice(wild) for name in ("data_wait_s", "compute_s", "comm_s", "local_grad_norm")}

    alarms(told, 200)


def test_ranks_disagree_within_ten_steps_and_the_one_that_is_apart_is_named() -> None:
    def told(at: At) -> Metrics:
        return replicated(at, off=1e-4 if at.rank == 3 and 200 <= at.step < 220 else 0.0)

    began, ended = alarms(told)
    assert (began.condition, began.status, began.reason) == ("Synchronized", "False", "RanksDisagree")
    assert began.step == 200 + agreement.LASTING - 1
    assert (began.evidence["disagreeing_rank"], began.evidence["disagreeing_since"]) == (3, 200)
    assert began.evidence["weights_spread"] == pytest.approx(1e-4, rel=0.1)
    assert "weights" in began.message
    assert "rank 3" in began.message
    assert (ended.status, ended.reason) == ("True", "RanksAgree")
    assert 220 < ended.step <= 230


def test_two_ranks_that_disagree_have_no_majority_and_that_is_said() -> None:
    [began] = alarms(lambda at: replicated(at, off=1e-3 * (at.rank == 1 and at.step >= 200)), 220, ranks=2)
    assert began.reason == "RanksDisagree"
    assert began.evidence["disagreeing_rank"] == -1
    assert "no majority" in began.message


def test_of_many_ranks_it_is_said_about_how_many_are_apart() -> None:
    [began] = alarms(lambda at: replicated(at, off=1e-3 * (at.rank in (5, 6, 9) and at.step >= 60)), 80, ranks=16)
    assert (began.evidence["disagreeing_rank"], began.evidence["disagreeing_ranks"]) == (5, 3)


def test_a_reduced_gradient_norm_is_held_to_what_it_was_seen_to_be() -> None:
    def told(at: At) -> Metrics:
        return {"grad_norm": (1.0 + 0.1 * math.sin(at.step)) * (1.01 if at.rank == 1 and at.step >= 100 else 1.0)}

    [began] = alarms(told, 120)
    assert (began.reason, began.evidence["disagreeing_rank"]) == ("RanksDisagree", 1)
    assert "gradients" in began.message


def test_a_rank_whose_weights_are_no_number_disagrees() -> None:
    def told(at: At) -> Metrics:
        return {"param_norm": math.nan} if at.rank == 1 and at.step >= 100 else replicated(at)

    [began] = alarms(told, 120)
    assert (began.reason, began.evidence["disagreeing_rank"]) == ("RanksDisagree", 1)


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(lambda at: {"param_norm": 50.0 + at.rank + 0.01 * at.step}, id="shards"),
        pytest.param(lambda at: replicated(at, off=1e-3 * (at[:2] == (200, 1))), id="a single step"),
        pytest.param(lambda at: replicated(at, off=5e-6 * at.rank), id="other kernels"),
        pytest.param(lambda at: {"grad_norm": 1.0 if at.step < 100 else 1.0 + at.rank}, id="clipped at first"),
        pytest.param(lambda at: replicated(at) if at.rank != 3 or at.step < 99 else {}, id="a rank falls silent"),
        pytest.param(lambda at: replicated(at) if at.rank == 0 or at.step % 10 == 0 else {}, id="thinned"),
    ],
)
def test_norms_that_need_not_be_equal_are_no_disagreement(told: Told) -> None:
    assert alarms(told) == []


def struck(rank: int, first: int, share: float, factor: float) -> Told:
    def told(at: At) -> Metrics:
        row = own_gradient(at)
        if at.rank == rank and at.step >= first and at.noise.random() < share:
            row["local_grad_norm"] *= factor
        return row

    return told


@pytest.mark.parametrize(
    "factor, ranks", [(10.0, 2), (10.0, 4), (10.0, 16), (1e4, 4), (0.01, 4), (math.inf, 4), (math.nan, 4)]
)
def test_a_rank_that_is_struck_again_and_again_is_named_within_fifty_steps(factor: float, ranks: int) -> None:
    [began] = alarms(struck(1, 160, 0.25, factor), 240, ranks)
    assert (began.condition, began.status, began.reason) == ("Synchronized", "False", "RankApart")
    assert began.evidence["apart_rank"] == 1
    assert began.step <= 220
    assert 160 <= began.evidence["apart_since"] <= began.step
    assert "rank 1" in began.message


def test_a_rank_that_is_struck_no_more_is_let_go() -> None:
    def told(at: At) -> Metrics:
        row = own_gradient(at)
        if at.rank == 1 and 100 <= at.step < 160 and at.step % 4 == 0:
            row["local_grad_norm"] *= 100.0
        return row

    began, ended = alarms(told)
    assert (began.reason, ended.status) == ("RankApart", "True")
    assert ended.step < 360


def test_where_ranks_tell_no_gradient_of_their_own_their_losses_are_compared() -> None:
    def told(at: At) -> Metrics:
        return {
            "loss": quiet_loss(at.step, at.rank)
            * (3.0 if at.rank == 1 and at.step >= 160 and at.step % 5 == 0 else 1.0)
        }

    [began] = [known for known in alarms(told, 240) if known.condition == "Synchronized"]
    assert (began.reason, began.evidence["apart_rank"]) == ("RankApart", 1)


def heavy_tails(at: At) -> Metrics:
    row = own_gradient(at)
    return {name: value * (6.0 if at.noise.random() < 0.01 else 1.0) for name, value in row.items()}


def hard_for_all(at: At) -> Metrics:
    row = own_gradient(at)
    return {name: value * (1e3 if at.step % 40 == 0 else 1.0) for name, value in row.items()}


def newly_uneven(at: At) -> Metrics:
    row = own_gradient(at)
    return {name: value * (3.0 if at.rank == 2 and at.step > 500 else 1.0) for name, value in row.items()}


def falling_together(at: At) -> Metrics:
    return {"local_grad_norm": 10.0 ** -(at.step / 50) * math.exp(0.2 * at.noise.gauss(0, 1))}


@pytest.mark.parametrize(
    "told",
    [
        own_gradient,
        heavy_tails,
        hard_for_all,
        newly_uneven,
        falling_together,
        pytest.param(lambda at: own_gradient(at, sigma=0.6), id="noisy"),
    ],
)
@pytest.mark.parametrize("ranks", [2, 4, 16])
def test_ranks_with_other_data_or_bad_luck_are_not_apart(told: Told, ranks: int) -> None:
    assert alarms(told, 800 if ranks < 16 else 200, ranks) == []


@pytest.mark.parametrize("rate", [0.001, 0.003, 0.01, 0.03])
def test_strikes_that_may_hit_any_rank_are_no_alarm_however_common(rate: float) -> None:
    """20,000 steps here; 480,000 of 2 to 16 ranks gave none when this was written, and none with a bound of 8."""
    noise, state = random.Random(1), apart.ApartState()
    for step in range(5_000):
        spreads: dict[int, Spread] = {}
        for rank in range(RANKS):
            away = 0.1 * noise.gauss(0, 1) + 3.0 * (noise.random() < rate)
            spread.merge(spreads, spread.LOCAL_NORM, int(spread.COARSE * away), rank)
        seen = apart.observe(state, StepSample(step, 0, RANKS, 1.0, 1.0, 0, {}, spreads))
        assert seen.get("rank_apart", 0.0) < 1.0


def test_another_attempt_starts_over_but_remembers_what_must_be_equal() -> None:
    noise = random.Random(1)
    run = GovernedRun(world=RANKS, mode="observe", checkpoint_every=0).begin()
    tell(run, range(40), replicated, noise)
    tell(run, range(40, 80), lambda at: replicated(at, off=1e-3 * (at.rank == 3 and at.step >= 70)), noise)
    assert [known.reason for known in changes(run)] == ["RanksDisagree"]
    run.begin_attempt("restart", "attempt-2", 60)
    assert status(run) == "Unknown"
    tell(run, range(60, 80), replicated, noise)
    assert status(run) == "True"
    assert [known.reason for known in changes(run)] == ["RanksDisagree"]
    assert run.state.last_features["disagreeing_rank"] == -1
    run.begin_attempt("restart", "attempt-3", 80)
    tell(run, range(80, 84), lambda at: replicated(at, off=1e-3 * (at.rank == 2)), noise)
    assert status(run) == "False"
    assert run.state.last_features["disagreeing_rank"] == 2


def test_a_checkpoint_of_ranks_that_disagree_is_no_good_one() -> None:
    noise = random.Random(1)
    run = GovernedRun(world=RANKS, mode="observe", checkpoint_every=0).begin()
    tell(run, range(40), replicated, noise)
    tell(run, range(40, 60), lambda at: replicated(at, off=1e-3 * (at.rank == 3 and at.step >= 50)), noise)
    run.tell(run.ranks[0], run.ranks[0].checkpoint, 59)
    assert [known.stable for known in run.state.candidates] == [False]
    tell(run, range(60, 80), replicated, noise)
    run.tell(run.ranks[0], run.ranks[0].checkpoint, 79)
    assert run.state.candidates[-1].stable


def test_another_attempt_may_have_other_data_and_other_machines() -> None:
    noise = random.Random(1)
    run = GovernedRun(world=RANKS, mode="observe", checkpoint_every=0).begin()
    tell(run, range(60), own_gradient, noise)
    run.begin_attempt("restart", "attempt-2", 60)
    for first in range(60, 220, 20):
        steps = range(first, first + 20)
        tell(run, steps, lambda at: {"local_grad_norm": own_gradient(at)["local_grad_norm"] * 1e3**at.rank}, noise)
    assert changes(run) == []
    assert run.state.last_features["rank_apart"] == 0.0


def test_an_attempt_whose_weights_are_sharded_is_not_held_to_what_they_were() -> None:
    noise = random.Random(1)
    run = GovernedRun(world=RANKS, mode="observe", checkpoint_every=0).begin()
    tell(run, range(40), replicated, noise)
    run.begin_attempt("restart", "attempt-2", 40)
    sharded = (50.0, 60.0, 71.0, 80.0)
    tell(run, range(40, 90), lambda at: {"param_norm": sharded[at.rank] + 0.01 * at.step}, noise)
    assert changes(run) == []


def test_a_run_of_one_rank_is_not_compared() -> None:
    run = GovernedRun(world=1, mode="observe", checkpoint_every=0).begin()
    tell(run, range(100), lambda at: working(at) | replicated(at) | own_gradient(at), random.Random(1))
    assert status(run) == "Unknown"
    assert run.state.ranks_past == bytearray()
    names = {"straggler", "ranks_disagree", "rank_apart"}
    assert not names & run.state.last_features.keys()


def test_anchors_are_those_of_their_sources() -> None:
    assert straggler.SCORE == 0.75
    assert pytest.approx(1e-5, rel=0.05) == agreement.TOLERANCE / FINE
    assert apart.STRUCK == 0.1


def test_while_nothing_changes_the_same_is_said_by_the_same_object() -> None:
    """By which `features` knows that nobody needs to be asked."""
    spreads = {
        what: Spread(4, 4 * level, level, 0, level, 0) for what, level in ((spread.WEIGHTS, 9_000), (spread.GRADS, 7))
    }
    spreads[spread.LOCAL_NORM] = Spread(4, 0, -20, 1, 20, 2)
    state = ranks.RanksState()
    said = [ranks.observe(state, StepSample(step, 0, 4, 1.0, 1.0, 0, {}, spreads)) for step in range(200)]
    assert said[-1]["rank_apart"] == 0.0
    assert {id(known) for known in said[100:]} == {id(said[-1])}
