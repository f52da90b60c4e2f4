"""Healthy trainings that are no language model's: whose losses swing, are negative, summed or mixed, whose norms follow
the loss, and whose loss follows the learning rate. Pure.
"""

import math

import numpy as np

from .draft import RANKS, Array, Change, Draft, correlated
from .series import Incident

LOG_2 = math.log(2.0)
TOP_RATE = 3e-4


def adversarial(made: Draft) -> None:
    """One of the two losses of a GAN: both begin near log 2; the generator's rises, the discriminator's falls, and each
    swings with the other.
    """
    at, swing = np.arange(made.rows), made.rng.uniform(0.03, 0.2)
    towards = made.rng.uniform(1.2, 4.0) if made.rng.random() < 0.5 else made.rng.uniform(0.5, 1.0)
    level = LOG_2 * (1.0 + (towards - 1.0) * (1.0 - np.exp(-at / made.rng.uniform(30.0, 300.0))))
    made.loss = level * np.exp(swing * correlated(made.rng, made.rows, math.exp(-1.0 / made.rng.uniform(10.0, 100.0))))
    made.noise = made.loss * made.rng.uniform(0.05, 0.2) * correlated(made.rng, made.rows, 0.3)
    made.norm = made.rng.uniform(0.3, 5.0) * np.exp(0.3 * correlated(made.rng, made.rows, 0.5))


def swinging(made: Draft) -> None:
    """Two losses about log 2 that take turns, in waves of some hundred steps."""
    at = np.arange(made.rows)
    wave = made.rng.uniform(0.1, 0.4) * np.sin(2.0 * np.pi * at / made.rng.uniform(100.0, 600.0))
    made.loss = LOG_2 * np.exp(wave)
    made.noise = made.loss * made.rng.uniform(0.05, 0.2) * correlated(made.rng, made.rows, 0.3)
    made.norm = made.rng.uniform(0.3, 5.0) * np.exp(0.3 * correlated(made.rng, made.rows, 0.5))


def policy_gradient(made: Draft) -> None:
    """A loss about zero, whose sign says nothing: an advantage times a ratio, noisy, with heavy tails."""
    size, at = 10.0 ** made.rng.uniform(-2.5, 0.0), np.arange(made.rows)
    made.loss = -size * made.rng.uniform(0.0, 0.5) * (1.0 - np.exp(-at / 500.0))
    made.noise = size * correlated(made.rng, made.rows, made.rng.uniform(0.0, 0.4))
    made.norm = made.rng.uniform(0.1, 1.0) * np.exp(0.4 * correlated(made.rng, made.rows, 0.3))


def divergence_penalty(made: Draft) -> None:
    """What GRPO logs of one update a batch: nothing but the penalty for having left the model it began as, which grows
    from nothing to where it is held.
    """
    at, top = np.arange(made.rows), 10.0 ** made.rng.uniform(-2.5, -0.5)
    made.loss = top * (1.0 - np.exp(-(((at + 1.0) / made.rng.uniform(100.0, 800.0)) ** made.rng.uniform(1.0, 1.5))))
    scatter = np.clip(made.rng.uniform(0.1, 0.4) * correlated(made.rng, made.rows, 0.3), -1.5, 1.5)
    made.noise = made.loss * (np.exp(scatter) - 1.0)
    made.norm = made.rng.uniform(0.1, 1.0) * np.exp(0.3 * correlated(made.rng, made.rows, 0.3))


def negated_reward(made: Draft) -> None:
    """The loss is what was not earned: it begins near zero, falls far below, and scatters with the episodes."""
    at, best = np.arange(made.rows), made.rng.uniform(1.0, 200.0)
    made.loss = 0.05 * best - best * (1.0 - np.exp(-at / made.rng.uniform(200.0, 1_000.0)))
    made.noise = best * made.rng.uniform(0.03, 0.15) * correlated(made.rng, made.rows, made.rng.uniform(0.0, 0.6))
    made.norm = made.rng.uniform(0.3, 5.0) * np.exp(0.5 * correlated(made.rng, made.rows, 0.3))


def summed(made: Draft) -> None:
    """Over tokens or pixels instead of a mean: thousands, and flat while the rate warms up."""
    warm, unit = int(made.rng.integers(30, 300)), 10.0 ** made.rng.uniform(1.5, 4.5)
    made.rate = TOP_RATE * np.minimum(1.0, (np.arange(made.rows) + 1) / warm)
    late = np.concatenate([np.full(warm // 2, made.loss[0]), made.loss])[: made.rows]
    made.loss, made.noise, made.norm = late * unit, made.noise * unit, made.norm * unit


def summed_and_trained_before(made: Draft) -> None:
    """A sum that has long come down: hundreds, and no way further."""
    level = 10.0 ** made.rng.uniform(1.3, 3.5)
    made.loss = level * (1.0 - 0.01 * np.arange(made.rows) / made.rows)
    made.noise = made.loss * made.rng.uniform(0.005, 0.05) * correlated(made.rng, made.rows, 0.2)


def rises_first(made: Draft) -> None:
    """A term that is switched on slowly, or a queue that fills: up by a tenth to twice over some tens of steps, and
    then down for the rest.
    """
    at, rise = np.arange(made.rows), made.rng.uniform(0.1, 1.1)
    up, down = made.rng.uniform(10.0, 60.0), made.rng.uniform(150.0, 600.0)
    level = 10.0 ** made.rng.uniform(-2.0, 1.0)
    made.loss = level * (1.0 + rise * (1.0 - np.exp(-at / up))) * (0.3 + 0.7 * np.exp(-at / down))
    made.noise = made.loss * made.rng.uniform(0.01, 0.08) * correlated(made.rng, made.rows, 0.3)


def tasks_in_turn(made: Draft) -> None:
    """Two to four tasks, of losses and norms far apart: one after the other, or as it comes."""
    count = int(made.rng.integers(2, 5))
    factors = np.exp(made.rng.uniform(-0.8, 0.8, count))
    in_turn = made.rng.random() < 0.5
    task = np.arange(made.rows) % count if in_turn else made.rng.integers(0, count, made.rows)
    made.loss, made.noise = made.loss * factors[task], made.noise * factors[task]
    made.norm *= factors[task] ** made.rng.uniform(0.0, 2.0)


def a_small_task(made: Draft) -> None:
    """One batch in four to ten is of another task, whose loss is half as high again to three times as high."""
    share, factor = made.rng.uniform(0.1, 0.25), made.rng.uniform(1.5, 3.0)
    rows = made.rng.random(made.rows) < share
    made.loss[rows] *= factor
    made.norm[rows] *= factor ** made.rng.uniform(0.0, 2.0)


def rare_harder_task(made: Draft) -> None:
    """One batch in fifty is from a harder set: up by 0.3 to 1.5 nats, with a norm of up to five times."""
    rows = made.rng.random(made.rows) < 0.02
    made.loss[rows] += made.rng.uniform(0.3, 1.5)
    made.norm[rows] *= made.rng.uniform(1.5, 5.0)


def loss_scaler(made: Draft) -> None:
    """fp16: the first norms overflow until the scale is found, and one does each time that it is raised."""
    made.norm[: int(made.rng.integers(3, 7))] = math.inf
    made.norm[int(made.rng.integers(100, 500)) :: int(made.rng.integers(200, 1_000))] = math.inf


def coupled_norms(made: Draft) -> None:
    """A batch that is harder has a larger gradient: norms follow the noise of the loss."""
    scatter = made.noise / np.maximum(1e-9, np.std(made.noise / made.loss) * made.loss)
    made.norm *= np.exp(made.rng.uniform(0.1, 0.4) * scatter)


def coupled_hard_batches(made: Draft) -> None:
    """Single steps far out, and their norms with them; what comes after is as before."""
    coupled_norms(made)
    for row in made.rng.choice(np.arange(200, made.rows), size=6, replace=False):
        height = made.rng.uniform(0.3, 1.5)
        made.loss[row] += height
        made.norm[row] *= 1.0 + height * made.rng.uniform(1.0, 6.0)
        made.incidents.append(Incident("data_outlier", int(row), int(row), must=False, may=False))


def rewarmed(made: Draft) -> None:
    """The rate was low and is raised again over some hundred steps; the loss follows by 3 to 15 percent, and falls on
    when the top is reached.
    """
    row, took = made.onset(), int(made.rng.integers(100, 800))
    made.rate[:row] *= np.maximum(0.02, np.linspace(1.0, -0.2, row))
    raised = np.linspace(made.rate[row - 1], TOP_RATE, took)
    made.rate[row : row + took] = raised[: made.rows - row]
    made.loss *= _following_rate(made, row, took, made.rng.uniform(0.03, 0.15))


def warmed_up_anew(made: Draft) -> None:
    """A model that was trained before, whose rate is warmed up from nothing: its loss rises first, and falls then."""
    took = int(made.rng.integers(100, 800))
    made.rate = TOP_RATE * np.minimum(1.0, (np.arange(made.rows) + 1) / took)
    made.loss = made.loss[-1] * (1.0 - 0.03 * np.arange(made.rows) / made.rows)
    made.noise = made.loss * made.rng.uniform(0.005, 0.02) * correlated(made.rng, made.rows, 0.3)
    made.loss *= _following_rate(made, 0, took, made.rng.uniform(0.02, 0.12))


def _following_rate(made: Draft, row: int, took: int, rise: float) -> Array:
    after = np.maximum(0, np.arange(made.rows) - row)
    up = np.minimum(1.0, after / took)
    factor: Array = 1.0 + rise * up * np.exp(-np.maximum(0, after - took) / 300.0)
    return factor


def triangular(made: Draft) -> None:
    """A rate that goes up and down again and again (Smith 2017, arXiv 1506.01186), and the loss with it by 2 to 10
    percent.
    """
    half = int(made.rng.integers(100, 500))
    at = np.arange(made.rows)
    height = 1.0 - np.abs(at % (2 * half) / half - 1.0)
    made.rate = TOP_RATE * (0.1 + 0.9 * height)
    made.loss *= 1.0 + made.rng.uniform(0.02, 0.1) * height * np.minimum(1.0, at / half)


def doubling_restarts(made: Draft) -> None:
    """SGDR: the rate falls as a cosine and is back at its top, each period twice as long as the one before."""
    period, first = int(made.rng.integers(150, 400)), 0
    rise = made.rng.uniform(0.03, 0.15)
    while first < made.rows:
        rows = np.arange(min(period, made.rows - first))
        made.rate[first : first + period] = TOP_RATE * (0.01 + 0.495 * (1.0 + np.cos(np.pi * rows / period)))
        if first:
            bump = rise * (1.0 - np.exp(-rows / 20.0)) * np.exp(-rows / (period / 3.0))
            made.loss[first : first + period] *= 1.0 + bump
        first, period = first + period, 2 * period


def pipeline(made: Draft) -> None:
    """The layers are spread over the ranks: only the last knows the loss, each has norms and times of its own."""
    made.ranks, made.knows_loss = RANKS, RANKS - 1
    weights = np.linspace(1.0, 1.2, made.rows)
    for rank in range(RANKS):
        compute = 0.7 * made.rng.uniform(0.92, 1.08) * np.exp(0.02 * made.rng.standard_normal(made.rows))
        made.own[rank] = {
            "compute_s": compute,
            "comm_s": np.maximum(0.01, 0.95 - compute) * np.exp(0.05 * made.rng.standard_normal(made.rows)),
            "grad_norm": made.norm * made.rng.uniform(0.3, 3.0) * np.exp(0.1 * made.rng.standard_normal(made.rows)),
            "param_norm": made.rng.uniform(30.0, 300.0) * weights,
        }


ORDINARY: dict[str, Change] = {
    "GAN": adversarial,
    "swinging losses": swinging,
    "policy gradient": policy_gradient,
    "divergence penalty": divergence_penalty,
    "negated reward": negated_reward,
    "summed": summed,
    "summed, trained before": summed_and_trained_before,
    "rises first": rises_first,
    "tasks in turn": tasks_in_turn,
    "a small task": a_small_task,
    "rare harder task": rare_harder_task,
    "loss scaler": loss_scaler,
    "coupled norms": coupled_norms,
    "coupled hard batches": coupled_hard_batches,
    "rate re-warmed": rewarmed,
    "warmed up anew": warmed_up_anew,
    "triangular rate": triangular,
    "doubling restarts": doubling_restarts,
    "pipeline": pipeline,
}
