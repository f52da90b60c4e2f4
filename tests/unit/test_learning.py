"""What a run learns, or does not, as conditions, phases and incidents: through the whole fold."""

import math
import random
from collections.abc import Callable, Sequence

import pytest

from pilothouse.events.decisions import ConditionChanged, IncidentOpened, InterventionProposed, PhaseChanged
from pilothouse.events.telemetry import EvalCompleted, RecipeChanged, StepBatch
from pilothouse.stream_processors.detectors.progress import FIRST_SIZE
from pilothouse.stream_processors.run_state import dump_state, load_state
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.run_builder import SECOND, START

Column = Callable[[int], float]


def trained(
    steps: int, evaluate: Column | None = None, run: GovernedRun | None = None, **columns: Column
) -> GovernedRun:
    """One rank that tells these columns, twenty steps a batch, and an evaluation after every fiftieth step."""
    run = run or GovernedRun(world=1, mode="observe").begin()
    rank, first = run.ranks[0], run.step
    for begun in range(first, first + steps, 20):
        rows = tuple(range(begun, begun + 20))
        metrics = {name: tuple(column(step) for step in rows) for name, column in columns.items()}
        times = tuple(START + step * SECOND for step in rows)
        run.tell(rank, rank.tell, StepBatch, at=times[-1], steps=rows, times=times, metrics=metrics)
        for step in rows:
            if evaluate is not None and step % 50 == 49:
                run.tell(rank, rank.tell, EvalCompleted, step=step, metrics={"loss": evaluate(step)})
        run.step = begun + 20
    return run


def noisy(seed: int, sigma: float) -> Callable[[], float]:
    generator = random.Random(seed)
    return lambda: math.exp(generator.gauss(0.0, sigma))


def failures(run: GovernedRun, condition: str) -> list[ConditionChanged]:
    return [found for found in run.of(ConditionChanged) if found.condition == condition and found.status == "False"]


def phases(run: GovernedRun) -> list[str]:
    return [changed.phase for changed in run.of(PhaseChanged)]


def severities(run: GovernedRun) -> set[tuple[str, str]]:
    return {(proposed.rule, proposed.severity) for proposed in run.of(InterventionProposed)}


def power(step: int) -> float:
    return 2.0 + 6.0 / math.sqrt(1.0 + step / 30.0)


def test_a_gradient_that_explodes_alone_makes_a_run_unstable_with_its_onset_and_evidence() -> None:
    noise = noisy(1, 0.01)
    run = trained(
        300,
        loss=lambda step: power(step) * noise(),
        grad_norm=lambda step: noise() * (20.0 if 200 <= step < 210 else 1.0),
    )
    [found] = failures(run, "Stable")
    assert (found.reason, found.since_step) == ("GradientExploding", 202)
    assert found.evidence["grad_norm"] > 15.0 > found.evidence["grad_baseline"]
    assert found.evidence["grad_explosion"] >= found.evidence["enter"] == 1.0
    assert "since step 200" in found.message
    assert [opened.onset_step for opened in run.of(IncidentOpened)] == [200]
    assert phases(run)[-2:] == ["Unstable", "Normal"]


def test_a_gradient_that_vanishes_is_stress_and_a_ticket_and_no_incident() -> None:
    noise = noisy(2, 0.02)
    run = trained(
        900,
        loss=lambda step: power(min(step, 600)) * noise(),
        grad_norm=lambda step: noise() * math.pow(10.0, -min(3.0, max(0, step - 600) / 50)),
    )
    first, *_ = failures(run, "Progressing")
    assert (first.reason, first.evidence["grad_vanishing"] >= 1.0) == ("GradientVanishing", True)
    assert 600 < first.step < 800
    assert phases(run)[-1] == "Stressed"
    assert run.of(IncidentOpened) == []
    assert severities(run) == {("not-learning", "ticket")}


def test_a_plateau_is_stress_and_a_ticket_and_no_incident_until_the_loss_falls_on() -> None:
    noise = noisy(3, 0.005)

    def loss(step: int) -> float:
        return power(min(step, 375) if step < 1_000 else 3 * (step - 990) + 375) * noise()

    run = trained(1_000, loss=loss, lr=lambda _: 1e-3)
    [found] = failures(run, "Progressing")
    assert (found.reason, found.evidence["plateau"]) == ("Plateau", 1.0)
    assert abs(found.evidence["plateau_since"] - 375) < 100
    assert phases(run)[-1] == "Stressed"
    assert run.of(IncidentOpened) == []
    assert severities(run) == {("not-learning", "ticket")}
    assert phases(trained(600, run=run, loss=loss, lr=lambda _: 1e-3))[-1] == "Normal"


def overfitted(step: int) -> float:
    return power(step) + 0.1 + 0.001 * max(0, step - 1_000)


@pytest.mark.parametrize(
    "train, reason", [(power, "Overfitting"), (lambda step: power(min(step, 1_000)), "ValidationRising")]
)
def test_a_validation_loss_that_rises_is_stress_with_the_step_of_its_best(train: Column, reason: str) -> None:
    noise = noisy(4, 0.005)
    run = trained(2_000, evaluate=lambda step: overfitted(step) * noise(), loss=lambda step: train(step) * noise())
    found, *_ = failures(run, "Generalizing")
    assert found.reason == reason
    assert 1_000 < found.step < 1_700
    assert found.evidence["val_loss"] > found.evidence["val_best"]
    assert 700 < found.evidence["val_best_step"] < 1_400
    assert phases(run)[-1] == "Stressed"
    assert run.of(IncidentOpened) == []
    assert ("overfitting", "ticket") in severities(run)


def test_nothing_is_known_of_how_a_run_generalizes_before_enough_evaluations() -> None:
    run = trained(400, evaluate=power, loss=power)
    assert run.state.conditions["Generalizing"].status == "Unknown"
    run = trained(400, evaluate=power, run=run, loss=power)
    assert run.state.conditions["Generalizing"].status == "True"


def test_what_is_no_loss_is_not_watched_as_one() -> None:
    run = GovernedRun(world=1, mode="observe").begin()
    for _ in range(40):
        trained(20, run=run, loss=power)
        run.tell(
            run.ranks[0], run.ranks[0].tell, EvalCompleted, step=run.step - 1, metrics={"accuracy": run.step / 1e3}
        )
    assert run.state.conditions["Generalizing"].status == "Unknown"


def test_an_evaluation_counts_the_same_however_batches_are_cut() -> None:
    def told(batches: Sequence[int]) -> list[str]:
        run = GovernedRun(world=1, mode="observe").begin()
        rank, step = run.ranks[0], 0
        for size in batches:
            rows = range(step, step + size)
            for at in rows:
                if at % 50 == 49:
                    run.tell(rank, rank.tell, EvalCompleted, step=at, metrics={"loss": overfitted(at)})
            run.tell(rank, rank.log, rows, [power(at) for at in rows])
            step += size
        return [f"{found.step} {found.status} {found.reason} {found.evidence}" for found in run.of(ConditionChanged)]

    assert told([1] * 2_000) == told([100] * 20)


@pytest.mark.parametrize(
    "loss, within",
    [
        (lambda _: math.nan, 0),
        (lambda step: 12.0 + 5.0 * min(1.0, step / 40), 48),
        (lambda _: 19.0, 1_010),
        (lambda _: math.inf, 0),
    ],
    ids=["NaN", "rising", "enormous", "infinite"],
)
def test_a_run_that_starts_broken_is_found_broken(loss: Column, within: int) -> None:
    noise = noisy(5, 0.01)
    run = trained(max(100, within + 20), loss=lambda step: loss(step) * noise())
    [found] = [*failures(run, "Finite"), *failures(run, "Stable")]
    assert found.step is not None
    assert found.step <= within
    assert found.reason in ("NonFinite", "BrokenStart")
    assert run.of(IncidentOpened)[0].onset_step == 0
    assert phases(run)[-1] in ("Diverged", "Unstable")


def test_a_new_recipe_is_compared_with_nothing_that_was_before() -> None:
    noise = noisy(6, 0.01)
    run = trained(1_200, evaluate=lambda step: power(step) * noise(), loss=lambda step: power(step) * noise())
    run.tell(run.ranks[0], run.ranks[0].tell, RecipeChanged, step=run.step - 1, what="data mix")
    trained(400, run=run, evaluate=lambda _: 4.0 * noise(), loss=lambda _: 3.0 * noise(), grad_norm=lambda _: 50.0)
    assert run.state.features.progress.size == FIRST_SIZE
    trained(800, run=run, evaluate=lambda _: 4.0 * noise(), loss=lambda _: 3.0 * noise(), grad_norm=lambda _: 50.0)
    assert not [found for found in run.of(ConditionChanged) if found.status == "False"]
    assert run.state.features.generalization.highest < math.log(4.2)


def test_what_is_remembered_of_learning_is_small_and_survives_a_restart_of_the_governor() -> None:
    noise = noisy(7, 0.01)
    run = trained(
        4_000,
        evaluate=lambda step: power(step) * noise(),
        loss=lambda step: power(step) * noise(),
        grad_norm=lambda _: noise(),
        lr=lambda _: 1e-3,
        update_ratio=lambda _: 1e-3 * noise(),
    )
    body = dump_state(run.state)
    assert len(body) < 40_000
    assert dump_state(load_state(body)) == body
