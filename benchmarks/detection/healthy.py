"""What a healthy training may look like, beside falling: schedules, pauses, restarts, changes that are meant. Pure."""

import numpy as np

from .draft import Change, Draft
from .series import Incident


def plain(_: Draft) -> None:
    """Nothing particular."""


def cosine(made: Draft) -> None:
    at = np.arange(made.rows)
    made.rate *= 0.1 + 0.45 * (1 + np.cos(np.pi * at / made.rows))


def step_schedule(made: Draft) -> None:
    """The rate falls by ten twice, and the loss with it."""
    for share in (0.5, 0.75):
        row = int(share * made.rows)
        made.rate[row:] *= 0.1
        fall = 0.08 * made.loss[row] * (1 - np.exp(-np.arange(made.rows - row) / 30.0))
        made.loss[row:] -= fall


def warmup(made: Draft) -> None:
    """A long warmup: flat at first, then a fall, with a bump as the rate nears its top."""
    rows = 400
    made.rate[:rows] = made.rate[-1] * np.arange(1, rows + 1) / rows
    late = np.concatenate([np.full(60, made.loss[0]), made.loss])[: made.rows]
    made.loss = late
    made.loss[150:400] += 0.03 * made.loss[150:400] * np.sin(np.linspace(0, np.pi, 250))


def resumed(made: Draft) -> None:
    """Stopped and started again, a little before where it was; the first steps are noisier."""
    row = made.onset()
    made.restarts.append(row)
    back = int(made.rng.integers(10, 60))
    made.steps = [*range(row), *range(row - back, row - back + made.rows - row)]
    made.noise[row : row + 10] *= 1.5


def accumulated(made: Draft) -> None:
    """Many micro-batches a step: little noise."""
    made.noise *= 0.25


def evaluated(made: Draft) -> None:
    """An evaluation of two minutes every 300 steps, announced."""
    made.pauses += range(299, made.rows - 1, 300)
    made.step_seconds[[row + 1 for row in made.pauses]] += 120.0


def batch_size(made: Draft) -> None:
    """Four times the batch, announced: half the noise."""
    row = made.onset()
    made.changes.append(row)
    made.noise[row:] *= 0.5
    made.norm[row:] *= 0.7


def data_mix(made: Draft) -> None:
    """Another mixture of data, announced: another level."""
    row = made.onset()
    made.changes.append(row)
    made.loss[row:] += made.rng.choice([-1.0, 1.0]) * made.rng.uniform(0.1, 0.4)


def hard_batches(made: Draft) -> None:
    """Single steps far out, as a hard batch makes them: what comes after is as before."""
    for row in made.rng.choice(np.arange(200, made.rows), size=4, replace=False):
        made.loss[row] += made.rng.uniform(0.3, 1.5)
        made.incidents.append(Incident("data_outlier", int(row), int(row), must=False, may=False))


HEALTHY: dict[str, Change] = {
    "plain": plain,
    "cosine schedule": cosine,
    "step schedule": step_schedule,
    "warmup": warmup,
    "resumed": resumed,
    "gradient accumulation": accumulated,
    "evaluation pauses": evaluated,
    "batch size changed": batch_size,
    "data mix changed": data_mix,
    "hard batches": hard_batches,
}
