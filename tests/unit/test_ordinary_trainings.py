"""What ordinary trainings do is no alarm, and what is wrong with one is seen wherever it is told."""

import math
from collections.abc import Callable, Sequence

from pilothouse.events.decisions import ConditionChanged, IncidentOpened, IncidentResolved, PhaseChanged
from pilothouse.events.telemetry import EvalCompleted, RunStarted, StepBatch
from pilothouse.events.union import AnyDecision
from pilothouse.stream_processors.detectors import start
from pilothouse.stream_processors.detectors.sample import StepSample
from pilothouse.stream_processors.detectors.start import StartState
from pilothouse.stream_processors.fold import fold
from pilothouse.stream_processors.run_state import new_state
from pilothouse.tests.run_builder import SECOND, START, Rank, log, quiet_loss

Row = dict[str, float | None]
Says = Callable[[int, int], Row]
"""What is told of (step, rank)."""


def decided(
    says: Says, steps: int, world: int = 1, evaluated: Sequence[tuple[int, str, float]] = ()
) -> list[AnyDecision]:
    """What is decided of a run whose ranks tell this, a row at a time."""
    ranks = [Rank("run", rank) for rank in range(world)]
    facts = []
    for rank in ranks:
        rank.tell(RunStarted, world_size=world, reason="start", first_step=0, steers=())
    facts += [rank.facts[0] for rank in ranks]
    for step in range(steps):
        for rank in ranks:
            row = {name: (value,) for name, value in says(step, rank.rank).items()}
            at = START + step * SECOND
            rank.tell(StepBatch, at=at, steps=(step,), times=(at,), metrics=row or {"nothing": (0.0,)})
            facts.append(rank.facts[-1])
        for at_step, split, value in evaluated:
            if at_step == step:
                ranks[0].tell(EvalCompleted, step=step, split=split, metrics={"loss": value})
                facts.append(ranks[0].facts[-1])
    state = new_state("run")
    decisions: list[AnyDecision] = []
    for record in log(facts):
        folded = fold(state, record)
        assert not folded.fault, folded.fault
        state = folded.state
        decisions += folded.decisions
    return decisions


def reasons(decisions: list[AnyDecision]) -> list[str]:
    return [one.reason for one in decisions if isinstance(one, ConditionChanged) and one.status == "False"]


def noisy(step: int) -> float:
    return 0.02 * math.sin(12.9898 * step) + 0.01 * math.sin(78.233 * step)


def test_the_loss_is_seen_where_only_the_last_rank_of_eight_knows_it() -> None:
    def says(step: int, rank: int) -> Row:
        return {"loss": quiet_loss(step) + (2.0 if step >= 150 else 0.0)} if rank == 7 else {"grad_norm": 1.0}

    assert reasons(decided(says, 170, world=8)) == ["LossAboveBaseline"]


def test_rows_without_a_loss_do_not_end_an_alarm_that_stands() -> None:
    def says(step: int, _: int) -> Row:
        loss = {"loss": 2.0 + noisy(step) + (1.5 if step >= 500 else 0.0)} if step % 10 == 0 else {}
        return {"grad_norm": 1.0 + noisy(step), **loss}

    decisions = decided(says, 900)
    assert len([one for one in decisions if isinstance(one, IncidentOpened)]) == 1
    assert not [one for one in decisions if isinstance(one, IncidentResolved)]


def test_gradients_that_overflow_now_and_then_are_a_loss_scaler_and_all_the_time_are_not() -> None:
    def scaler(step: int, _: int) -> Row:
        return {"loss": quiet_loss(step), "grad_norm": math.inf if step < 6 or step % 200 == 199 else 1.0}

    def stuck(step: int, _: int) -> Row:
        return {"loss": quiet_loss(step), "grad_norm": math.nan if step >= 100 else 1.0}

    assert reasons(decided(scaler, 1_000)) == []
    changed = [one for one in decided(stuck, 120) if isinstance(one, ConditionChanged) and one.status == "False"]
    assert [(one.reason, one.step) for one in changed] == [("NonFinite", 107)]


def test_a_loss_that_is_not_finite_is_said_at_once_whatever_its_gradient() -> None:
    def says(step: int, _: int) -> Row:
        return {"loss": math.nan if step >= 100 else quiet_loss(step), "grad_norm": math.nan if step >= 100 else 1.0}

    changed = [one for one in decided(says, 103) if isinstance(one, ConditionChanged) and one.status == "False"]
    assert [(one.reason, one.step) for one in changed] == [("NonFinite", 100)]


def test_what_is_not_finite_is_told_with_its_metric_and_its_first_rank() -> None:
    def says(step: int, rank: int) -> Row:
        norm = math.inf if step >= 60 and rank in (2, 5) else 1.0
        return {"loss": math.nan if step >= 60 and rank in (3, 6) else quiet_loss(step), "grad_norm": norm}

    [found] = [one for one in decided(says, 62, world=8) if isinstance(one, ConditionChanged) and one.status == "False"]
    assert found.message == "4 losses or gradient norms are NaN or infinite, first the loss of rank 3"
    told = {name: found.evidence[name] for name in ("nonfinite", "nonfinite_losses", "nonfinite_rank", "onset_step")}
    assert told == {"nonfinite": 4.0, "nonfinite_losses": 2.0, "nonfinite_rank": 3.0, "onset_step": 60.0}


def test_rows_that_come_when_their_steps_were_judged_are_said_to_be_lost() -> None:
    ranks = [Rank("run", rank) for rank in range(2)]
    for rank in ranks:
        rank.tell(RunStarted, world_size=2, reason="start", first_step=0, steers=())
    for step in range(300):
        ranks[0].log([step], [quiet_loss(step)])
    ranks[1].log(range(100), [quiet_loss(step) for step in range(100)])
    state = new_state("run")
    decisions: list[AnyDecision] = []
    for record in log([ranks[0].facts[0], ranks[1].facts[0], *ranks[0].facts[1:], *ranks[1].facts[1:]]):
        folded = fold(state, record)
        state = folded.state
        decisions += folded.decisions
    lost = [one for one in decisions if isinstance(one, ConditionChanged) and one.reason == "TelemetryLost"]
    assert [one.evidence["lost"] for one in lost] == [76.0]
    assert "rows of rank 1 came after their steps were judged" in lost[0].message


def test_zeros_among_positive_losses_change_nothing() -> None:
    """A triplet loss of batches without a pair, a loss printed with few decimals."""

    def says(step: int, _: int) -> Row:
        return {"loss": 0.0 if step % 5 < 3 else 0.2 * math.exp(-step / 400) * (1.0 + 3.0 * noisy(step))}

    assert reasons(decided(says, 1_500)) == []


def test_a_climb_that_stands_is_unstable_and_not_diverged() -> None:
    def says(step: int, _: int) -> Row:
        return {"loss": (2.0 + 0.002 * max(0, min(step - 400, 120))) * (1.0 + 0.3 * noisy(step))}

    decisions = decided(says, 1_400)
    assert "LossClimbing" in reasons(decisions)
    assert "Diverged" not in [one.phase for one in decisions if isinstance(one, PhaseChanged)]


def test_another_split_is_no_rise_of_the_validation_loss() -> None:
    def says(step: int, _: int) -> Row:
        return {"loss": quiet_loss(step)}

    first = [(step, "validation", quiet_loss(step) + 0.05) for step in range(20, 800, 20)]
    harder = [(step, "hard", 2.0 * quiet_loss(step)) for step in range(400, 800, 20)]
    assert reasons(decided(says, 800, evaluated=[*first, *harder])) == []


def test_a_gradient_norm_that_is_noisy_at_its_new_level_is_usual_there_in_the_end() -> None:
    def says(step: int, _: int) -> Row:
        level = 6.0 if step >= 300 else 1.0
        return {"loss": quiet_loss(step), "grad_norm": level * math.exp(15.0 * noisy(step))}

    changed = [one for one in decided(says, 900) if isinstance(one, ConditionChanged) and one.condition == "Stable"]
    assert [one.status for one in changed] == ["True", "False", "True"]
    assert changed[-1].step < 600


def test_what_a_start_was_blamed_for_is_forgotten_where_the_run_goes_back() -> None:
    state = StartState()
    for step in range(40):
        start.observe(state, StepSample(step, 0, 1, 3.0 if step < 8 else 6.0, None, 0))
    assert start.onset(state) == 0
    start.rewind(state, 10)
    assert start.onset(state) == -1
    assert start.observe(state, StepSample(11, 0, 1, 2.9, None, 0))["broken_start"] == 0.0
