"""What a healthy training may look like, beside falling: schedules, pauses, restarts, changes that are meant. Pure.

A change that nobody announced must be told from a failure only where it can be: less noise, or a loss that falls, is no
reason to alarm; a level that rises by itself looks the same whatever the cause, and an alarm at it is neither asked for
nor held against a detector.
"""

import numpy as np

from .draft import Change, Draft, correlated
from .learning_families import LEARNING_HEALTHY
from .ordinary_families import ORDINARY
from .pace_families import PACE_HEALTHY
from .rank_families import RANK_HEALTHY
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


def rough(made: Draft) -> None:
    """The noise of small batches: three to six percent of the loss, and most of it there again at the next step."""
    made.noise = made.loss * made.rng.uniform(0.03, 0.06) * correlated(made.rng, made.rows, made.rng.uniform(0.6, 0.9))


def fine_tuned(made: Draft) -> None:
    """A handful of examples a step: the loss scatters by a quarter to a half, and hardly falls."""
    level = made.rng.uniform(0.3, 1.5)
    made.loss = level * (1.0 + 0.5 * np.exp(-np.arange(made.rows) / 100.0))
    scatter = made.rng.uniform(0.25, 0.5) * made.rng.standard_normal(made.rows)
    made.noise = made.loss * (np.exp(scatter) - 1.0)
    made.norm *= np.exp(0.3 * made.rng.standard_normal(made.rows))


def running_mean(made: Draft) -> None:
    """What is logged is the mean since the epoch began: it saws, and wanders while an epoch is young."""
    epoch = int(made.rng.integers(150, 600))
    raw = made.loss + 2.0 * made.noise
    for first in range(0, made.rows, epoch):
        part = raw[first : first + epoch]
        made.loss[first : first + epoch] = np.cumsum(part) / np.arange(1, len(part) + 1)
    made.noise[:] = 0.0


def epochs(made: Draft) -> None:
    """What was seen before is known better: a step down at each epoch, and slowly up again within."""
    epoch = int(made.rng.integers(300, 900))
    at = np.arange(made.rows)
    made.loss *= 0.93 ** (at // epoch) * (1.0 + 0.03 * (at % epoch) / epoch)


def sparse(made: Draft) -> None:
    """A row in 50 steps, the mean of them, after ten single ones."""
    made.steps = [*range(10), *range(50, 50 * (made.rows - 9), 50)]
    made.noise[10:] *= 0.3


def warm_restarts(made: Draft) -> None:
    """The rate goes back to its top three times, in view, and the loss up by 3 to 15 percent until it has come down."""
    period = made.rows // 4
    at = np.arange(made.rows)
    made.rate = 3e-4 * (0.02 + 0.49 * (1.0 + np.cos(np.pi * (at % period) / period)))
    rise = made.rng.uniform(0.03, 0.15) * (1.0 - np.exp(-(at % period) / 30.0)) * np.exp(-(at % period) / (period / 3))
    made.loss *= 1.0 + np.where(at >= period, rise, 0.0)


def quietly_another_batch_size(made: Draft) -> None:
    """Another batch size that nobody announced: the noise is half or twice what it was."""
    row = made.onset()
    made.noise[row:] *= made.rng.choice([0.5, 2.0])


def quietly_other_data(made: Draft) -> None:
    """Another mixture of data that nobody announced: another level."""
    row, change = made.onset(), made.rng.choice([-1.0, 1.0]) * made.rng.uniform(0.1, 0.4)
    made.loss[row:] += change
    if change > 0.0:
        made.incidents.append(Incident("unannounced_change", row, min(row + 200, made.rows - 1), must=False))


def hard_batches(made: Draft) -> None:
    """Single steps far out, as a hard batch makes them: what comes after is as before."""
    for row in made.rng.choice(np.arange(200, made.rows), size=4, replace=False):
        made.loss[row] += made.rng.uniform(0.3, 1.5)
        made.incidents.append(Incident("data_outlier", int(row), int(row), must=False, may=False))


HEALTHY: dict[str, Change] = (
    {
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
        "rough": rough,
        "fine-tuned": fine_tuned,
        "running mean": running_mean,
        "epochs": epochs,
        "sparse log": sparse,
        "warm restarts": warm_restarts,
        "batch size changed quietly": quietly_another_batch_size,
        "data mix changed quietly": quietly_other_data,
    }
    | PACE_HEALTHY
    | RANK_HEALTHY
    | LEARNING_HEALTHY
    | ORDINARY
)
