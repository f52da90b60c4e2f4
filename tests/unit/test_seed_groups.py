"""Groups of seeds of a real training, small enough to run here: what differs is said to, what does not is not."""

from typing import Any

import numpy as np
import pytest

from pilothouse.control_room.report.comparison import Side, comparison, side_of
from pilothouse.control_room.report.material import Material, Told
from pilothouse.control_room.report.overview import SHOWN

STEPS, BATCH, HIDDEN, EVERY = 150, 64, 32, 30
SEEDS = {("fast", 0.3): range(4), ("fast-too", 0.3): range(4, 8), ("slow", 0.003): range(4)}
"""Seeds of each group of four, by what its runs are called and their learning rate. The name makes no difference; how
fast it learns does.
"""
ASKED = ("final evaluation", "best evaluation", "final training loss")


def spirals(random: np.random.Generator, count: int) -> tuple[Any, Any]:
    """Points on two arms, with noise, and which arm each is on."""
    arm = random.integers(0, 2, count)
    turn = random.uniform(0.5, 2.5, count)
    angle = turn * np.pi + arm * np.pi
    points = turn[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) + random.normal(0, 0.15, (count, 2))
    return points, arm


def train(seed: int, lr: float) -> tuple[list[float], list[float]]:
    """A net of one hidden layer, by gradient descent: its loss at every step, and at times on points it never saw."""
    random = np.random.default_rng(seed)
    first, second = random.normal(0, 1, (2, HIDDEN)), random.normal(0, HIDDEN**-0.5, (HIDDEN, 2))
    unseen = spirals(np.random.default_rng(7), 512)

    def outcome(points: Any, arm: Any) -> tuple[float, Any, Any]:
        hidden = np.tanh(points @ first)
        scores = hidden @ second
        chance = np.exp(scores - scores.max(1, keepdims=True))
        chance /= chance.sum(1, keepdims=True)
        wrong = chance - np.eye(2)[arm]
        return -float(np.log(chance[np.arange(len(arm)), arm]).mean()), hidden, wrong / len(arm)

    losses, evaluations = [], []
    for step in range(STEPS):
        points, arm = spirals(random, BATCH)
        loss, hidden, wrong = outcome(points, arm)
        back = points.T @ (wrong @ second.T * (1 - hidden**2))
        second -= lr * hidden.T @ wrong
        first -= lr * back
        losses.append(loss)
        if step % EVERY == EVERY - 1:
            evaluations.append(outcome(*unseen)[0])
    return losses, evaluations


def trained(name: str, seed: int, lr: float) -> Side:
    """A run of it, as a report reads it."""
    losses, evaluations = train(seed, lr)
    run = dict.fromkeys(SHOWN) | {"run_id": f"{name}-{seed}", "attempt_id": "a", "attempt_list": [], "conditions": []}
    config = {"lr": lr, "series": name, "seed": seed}
    started = Told("run_started", "e", "a", 1, 0, 0, 0, {"config": config, "attempt": 1})
    curve = {"metric": "loss", "attempt": 1, "attempt_id": "a", "values": 1, "non_finite": 0, "first_at": 0}
    evaluated = {"split": "validation", "metric": "loss", "attempt": 1, "attempt_id": "a", "at": 0}
    material = Material(
        run | {"dataset_version": ""},
        told=(started,),
        names={"loss": "loss"},
        curves=tuple(curve | {"from_step": step, "to_step": step, "mean": loss} for step, loss in enumerate(losses)),
        evals=tuple(evaluated | {"step": EVERY * (n + 1), "value": value} for n, value in enumerate(evaluations)),
    )
    return side_of(material, ())


@pytest.fixture(scope="module")
def tests_said() -> dict[tuple[str, ...], Any]:
    """What a comparison says of each two groups, by their names, and of each thing it tested."""
    sides = [trained(name, seed, lr) for (name, lr), seeds in SEEDS.items() for seed in seeds]
    found = comparison(sides, "step")
    assert [len(group["runs"]) for group in found["groups"]] == [4, 4, 4]
    return {(*sorted(test["groups"]), test["what"]): test for test in found["tests"]}


@pytest.mark.parametrize("what", ASKED)
def test_groups_that_learn_differently_are_said_to_differ(tests_said: dict[tuple[str, ...], Any], what: str) -> None:
    for fast in ("lr=0.3, series=fast", "lr=0.3, series=fast-too"):
        test = tests_said[*sorted((fast, "lr=0.003, series=slow")), what]
        assert (test["verdict"], test["p"]) == ("differs", test["least_p"]), test


@pytest.mark.parametrize("what", ASKED)
def test_groups_that_learn_alike_are_not_said_to_differ(tests_said: dict[tuple[str, ...], Any], what: str) -> None:
    test = tests_said["lr=0.3, series=fast", "lr=0.3, series=fast-too", what]
    assert test["verdict"] == "no difference seen", test
    assert test["least_p"] < 0.05  # four and four could have told
