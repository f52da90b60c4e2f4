"""Trainings by what they learn: gradients, evaluations, beginnings and ends of all kinds. Healthy and faulty. Pure."""

import numpy as np

from .draft import Change, Draft, correlated

EVALUATED_EVERY = 50


def norm_outliers(made: Draft) -> None:
    """One norm in a hundred is ten to a hundred times as large, and now and then two in a row are."""
    struck = np.arange(20, made.rows - 1, 100) + made.rng.integers(0, 90, len(range(20, made.rows - 1, 100)))
    struck = np.minimum(np.concatenate([struck, struck[::5] + 1]), made.rows - 1)
    made.norm[struck] *= 10.0 ** made.rng.uniform(1.0, 2.0, len(struck))


def clipped_norms(made: Draft) -> None:
    """What is logged is the norm after clipping: a constant, most of the time."""
    made.norm = np.minimum(made.norm, np.quantile(made.norm, 0.3))


def norms_that_grow(made: Draft) -> None:
    """Slowly, tenfold over the training, as the weights do."""
    made.norm *= 10.0 ** (np.arange(made.rows) / made.rows)


def memorised(made: Draft) -> None:
    """The loss falls to a hundredth by the end, and its gradient with it, to a thousandth and less."""
    fall = np.exp(-5.0 * np.arange(made.rows) / made.rows)
    made.loss *= fall
    made.noise *= fall
    made.norm *= fall**1.5


def converged(made: Draft) -> None:
    """Exponentially, within a third of the steps; then nothing happens any more, and need not."""
    level, at = made.loss[-1], np.arange(made.rows)
    made.loss = level * (1.0 + np.exp(-at / made.rng.uniform(30.0, 250.0)))


def noisy_evaluations(made: Draft) -> None:
    """Two to eight percent up and down, partly there again at the next evaluation."""
    scatter = made.rng.uniform(0.02, 0.08) * correlated(made.rng, made.rows // EVALUATED_EVERY + 1, 0.5)
    made.gap = 0.05 + made.loss * np.repeat(scatter, EVALUATED_EVERY)[: made.rows]


def gap_that_widens(made: Draft) -> None:
    """The training loss falls on, to a third, and the validation loss stands where it was."""
    first = made.onset()
    before = made.loss.copy()
    made.loss[first:] *= np.exp(-np.arange(made.rows - first) / made.rows)
    made.gap = before - made.loss + 0.02 * before * made.rng.standard_normal(made.rows)
    made.gap[first:] += before[first] - before[first:]


def broken_start(made: Draft) -> None:
    """Up by a quarter to a whole from the first steps on, within ten to forty of them, and never back."""
    rise = made.rng.uniform(0.25, 1.0) * np.minimum(1.0, np.arange(made.rows) / made.rng.uniform(10.0, 40.0))
    made.loss = made.loss[0] * (1.0 + rise)
    made.noise = made.loss * made.rng.uniform(0.005, 0.03) * correlated(made.rng, made.rows, 0.3)
    made.wrong("broken_start", 0, made.rows)


def nan_from_the_start(made: Draft) -> None:
    made.loss[:] = np.nan
    made.norm[:] = np.nan
    made.wrong("nan_from_the_start", 0, made.rows)


def slow_overfitting(made: Draft) -> None:
    """The validation loss creeps up by a tenth to a third of itself until the end, through noisy evaluations."""
    first = made.onset()
    val = made.loss + 0.05
    val[first:] = val[first] * np.linspace(1.0, 1.0 + made.rng.uniform(0.1, 0.33), made.rows - first)
    made.gap = val * (1.0 + 0.02 * made.rng.standard_normal(made.rows)) - made.loss
    made.wrong("slow_overfitting", first, made.rows)


LEARNING_HEALTHY: dict[str, Change] = {
    "norm outliers": norm_outliers,
    "clipped norms": clipped_norms,
    "norms that grow": norms_that_grow,
    "memorised": memorised,
    "converged": converged,
    "noisy evaluations": noisy_evaluations,
    "gap that widens": gap_that_widens,
}
LEARNING_FAULTS: dict[str, Change] = {
    "broken_start": broken_start,
    "nan_from_the_start": nan_from_the_start,
    "slow_overfitting": slow_overfitting,
}
