"""Trainings whose time is the matter: where it goes, and when it stops. Healthy and faulty. Pure."""

import numpy as np

from .draft import Array, Change, Draft, correlated
from .series import Incident

QUIET_EVALUATION = 150.0
SLOW_ROWS = 60


def uneven(made: Draft) -> None:
    """Steps of a shared machine: a quarter more or less, and for some steps in a row."""
    factor = np.exp(0.12 * correlated(made.rng, made.rows, 0.7))
    made.step_seconds *= factor
    made.throughput /= factor


def quiet_checkpoints(made: Draft) -> None:
    """A checkpoint of ten to twenty seconds every hundred steps, that nobody announces."""
    rows = np.arange(99, made.rows, 100)
    took = made.rng.uniform(10.0, 20.0, len(rows))
    made.step_seconds[rows] += took
    made.throughput[rows] /= 1.0 + took


def slow_start(made: Draft) -> None:
    """Compilation, workers that start, caches that fill: a minute for the first step, and a tail."""
    tail = 1.0 + 60.0 * np.exp(-np.arange(made.rows) / 2.0)
    made.step_seconds *= tail
    made.throughput /= tail


def warm(made: Draft) -> None:
    """The clock of the device goes with its temperature: four percent, within the hour."""
    drift = 1.0 + 0.04 * np.sin(np.arange(made.rows) / made.rng.uniform(100.0, 500.0))
    made.step_seconds /= drift
    made.throughput *= drift


def timed(made: Draft) -> None:
    """Where the time goes is told: hardly any for data, a tenth for collectives, and now and then a late batch."""
    _spend(made, *_usual_times(made))


def slow_steps(made: Draft) -> None:
    """A step takes three minutes and some, and nobody knew."""
    cut(made, SLOW_ROWS)
    made.step_seconds *= made.rng.uniform(180.0, 220.0, made.rows)
    made.throughput /= made.step_seconds


def quiet_evaluations(made: Draft) -> None:
    """An evaluation of minutes every 300 steps that nobody announces: the first two look like a hang, and may alarm."""
    for number, row in enumerate(range(300, made.rows, 300)):
        made.step_seconds[row] += QUIET_EVALUATION
        if number < 2:
            made.incidents.append(Incident("quiet_evaluation", row - 1, row, must=False))


def data_starved(made: Draft) -> None:
    """The loader falls behind: from hardly any wait to a third of the step and more, evenly or every fourth batch."""
    first = made.onset()
    wait, comm = _usual_times(made)
    late = made.rng.uniform(0.7, 2.0)
    if made.rng.random() < 0.5:
        wait[first:] += late * np.exp(0.2 * made.rng.standard_normal(made.rows - first))
    else:
        wait[first::4] += 4.0 * late
    _spend(made, wait, comm)
    made.wrong("data_starved", first, made.rows)


def comm_bound(made: Draft) -> None:
    """A link is down to a fraction: collectives take from a tenth of the step to most of it."""
    first = made.onset()
    wait, comm = _usual_times(made)
    comm[first:] *= made.rng.uniform(8.0, 30.0)
    _spend(made, wait, comm)
    made.wrong("comm_bound", first, made.rows)


def hang_of_slow_steps(made: Draft) -> None:
    """No step ends any more, where one took half a minute."""
    cut(made, SLOW_ROWS)
    made.step_seconds *= made.rng.uniform(20.0, 40.0)
    made.silence = 900.0
    made.wrong("hang_of_slow_steps", made.rows - 1, made.rows)


def cut(made: Draft, rows: int) -> None:
    """Only the first rows of it."""
    for name in ("loss", "noise", "norm", "rate", "throughput", "step_seconds"):
        setattr(made, name, getattr(made, name)[:rows])
    made.rows, made.steps = rows, made.steps[:rows]
    for told in (made.pauses, made.changes):
        told[:] = [row for row in told if row < rows - 1]
    made.incidents[:] = [incident for incident in made.incidents if incident.last < rows]


def _usual_times(made: Draft) -> tuple[Array, Array]:
    """Seconds of each step for data and for collectives."""
    waits = 0.02 * np.exp(0.5 * made.rng.standard_normal(made.rows))
    waits[made.rng.random(made.rows) < 0.01] += made.rng.uniform(0.5, 5.0)
    return waits, 0.1 * np.exp(0.2 * made.rng.standard_normal(made.rows))


def _spend(made: Draft, waits: Array, comm: Array) -> None:
    """What rank 0 tells of its steps, and how long they take for it."""
    compute = np.full(made.rows, 0.85) * np.exp(0.03 * made.rng.standard_normal(made.rows))
    made.own[0] = {"data_wait_s": waits, "compute_s": compute, "comm_s": comm}
    usual = np.median((waits + compute + comm)[: made.rows // 20])
    made.step_seconds = made.step_seconds - 1.0 + waits + compute + comm
    made.throughput = made.throughput * usual / (waits + compute + comm)


PACE_HEALTHY: dict[str, Change] = {
    "uneven steps": uneven,
    "quiet checkpoints": quiet_checkpoints,
    "slow start": slow_start,
    "warm": warm,
    "timed": timed,
    "slow steps": slow_steps,
    "quiet evaluations": quiet_evaluations,
}
PACE_FAULTS: dict[str, Change] = {
    "data_starved": data_starved,
    "comm_bound": comm_bound,
    "hang_of_slow_steps": hang_of_slow_steps,
}
