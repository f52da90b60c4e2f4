"""Groups of seeds of a real training, small enough to run here: what differs is said to, what does not is not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilothouse.tests.archived_runs import RunArchive
from pilothouse.tests.endpoint_fixture import EndpointProcess

STEPS, BATCH, HIDDEN, EVERY = 150, 64, 32, 30
SEEDS = {("lr", 0.5): range(4), ("lr", 0.01): range(4), ("logger", "a"): range(10, 14), ("logger", "b"): range(20, 24)}
"""What a group of four is told otherwise than the one it is held against, and its seeds. How fast it learns makes a
difference; what it is logged by makes none.
"""


def spirals(random: np.random.Generator, count: int) -> tuple[Any, Any]:
    """Points on two arms, with noise, and which arm each is on."""
    arm = random.integers(0, 2, count)
    turn = random.uniform(0.5, 2.5, count)
    angle = turn * np.pi + arm * np.pi
    points = turn[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) + random.normal(0, 0.15, (count, 2))
    return points, arm


def train(folder: Path, seed: int, lr: float, told: dict[str, Any]) -> None:
    """A net of one hidden layer, by gradient descent; logged as Lightning's CSVLogger does."""
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

    lines = ["step,train_loss,val_loss"]
    for step in range(STEPS):
        points, arm = spirals(random, BATCH)
        loss, hidden, wrong = outcome(points, arm)
        back = points.T @ (wrong @ second.T * (1 - hidden**2))
        second -= lr * hidden.T @ wrong
        first -= lr * back
        lines.append(f"{step},{loss!r},{outcome(*unseen)[0]!r}" if step % EVERY == EVERY - 1 else f"{step},{loss!r},")
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "hparams.yaml").write_text(
        json.dumps({"lr": lr, "hidden": HIDDEN, "seed": seed} | told), encoding="utf-8"
    )


@pytest.fixture(scope="module")
def archive(endpoint: EndpointProcess, tmp_path_factory: pytest.TempPathFactory) -> RunArchive:
    kept, logs = RunArchive(endpoint, tmp_path_factory.mktemp("home")), tmp_path_factory.mktemp("logs")
    for (name, value), seeds in SEEDS.items():
        for seed in seeds:
            lr = value if name == "lr" else 0.1
            train(logs / f"{name}-{value}-{seed}", seed, float(lr), {} if name == "lr" else {name: value})
    brought = kept.cli("import", str(logs), "--json")
    assert brought.returncode == 0, brought.stderr
    return kept


def said_of(archive: RunArchive, name: str) -> dict[str, dict[str, Any]]:
    """What `compare` says of the groups that were told different things under this name, by what it tested."""
    runs = [f"{told}-{value}-{seed}" for (told, value), seeds in SEEDS.items() if told == name for seed in seeds]
    answer = archive.cli("compare", *runs, "--json")
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert [len(group["runs"]) for group in found["groups"]] == [4, 4], found["groups"]
    return {test["what"]: test for test in found["tests"]}


def test_two_groups_of_seeds_that_learn_differently_are_said_to_differ(archive: RunArchive) -> None:
    told = said_of(archive, "lr")
    for what in ("final evaluation", "best evaluation", "final training loss"):
        assert (told[what]["verdict"], told[what]["p"]) == ("differs", told[what]["least_p"]), told[what]
        assert told[what]["groups"] == ["lr=0.5", "lr=0.01"]


def test_two_groups_of_seeds_that_learn_alike_are_not_said_to_differ(archive: RunArchive) -> None:
    told = said_of(archive, "logger")
    for what in ("final evaluation", "best evaluation", "final training loss"):
        assert told[what]["verdict"] == "no difference seen", told[what]
        assert told[what]["least_p"] < 0.05  # four and four could have told
