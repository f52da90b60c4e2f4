"""A history to store: many runs of 800 steps and twelve metrics, and one of a million steps and four.

The same to the last bit for every store, from one seed. Values have the precision of float32, as a training logs them:
ten of the twelve metrics are noisy, so that each carries some three bytes of information; one is a schedule, one a
constant. Steps are some 20 ms apart, with jitter, in microseconds; batches are of 25 steps, the half second between
a trainer's flushes. Besides, each run has the life around its steps: an announcement,
assessments, phases, checkpoints, evaluations, and in every third run an incident with a rollback.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilothouse.events.actions import CheckpointRef, Rollback
from pilothouse.events.decisions import (
    IncidentOpened,
    IncidentResolved,
    InterventionIssued,
    InterventionProposed,
    InterventionVerified,
    PhaseChanged,
    RunAssessed,
)
from pilothouse.events.envelope import Decision, LogPlace
from pilothouse.events.telemetry import (
    CheckpointSaved,
    EvalCompleted,
    InterventionReceipt,
    RunEnded,
    RunStarted,
    StepBatch,
)
from pilothouse.events.topics import CONTROL, TELEMETRY
from pilothouse.events.union import AnyEvent
from pilothouse.storage.archive import Archived

STEPS, LONG_STEPS = 800, 1_000_000
BATCH = 25
STEP_US = 20_000
BEGAN = 1_760_000_000_000_000
LONG_RUN = "long"
METRICS = (
    "loss", "lr", "grad_norm", "param_norm", "data_wait_s", "compute_s", "comm_s", "accuracy", "aux_loss", "throughput",
    "gpu_memory", "tokens",
)  # fmt: skip
LONG_METRICS = ("loss", "lr", "grad_norm", "compute_s")
PARTITIONS = 16

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One run's numbers. `values` has a column for each of `metrics`, `times` are microseconds."""

    number: int
    run_id: str
    metrics: tuple[str, ...]
    times: NDArray[np.int64]
    values: dict[str, Floats]

    @property
    def steps(self) -> int:
        return len(self.times)

    @property
    def points(self) -> int:
        return self.steps * len(self.metrics)

    @property
    def troubled(self) -> bool:
        """Whether something went wrong in it."""
        return self.number % 3 == 1 and self.run_id != LONG_RUN


def runs(points: int) -> Iterator[Run]:
    """About `points` values: the long run, and as many of the others as it takes."""
    long = _run(0, LONG_RUN, LONG_METRICS, LONG_STEPS)
    yield long
    for number in range(1, 1 + max(1, (points - long.points) // (STEPS * len(METRICS)))):
        yield _run(number, f"run-{number:05}", METRICS, STEPS)


def _run(number: int, run_id: str, metrics: tuple[str, ...], steps: int) -> Run:
    random = np.random.default_rng(number)
    at = np.arange(steps)
    jitter = random.normal(0, 300, steps).astype(np.int64)
    times = BEGAN + number * 60_000_000 + at * STEP_US + jitter
    share = at / steps
    drawn = {
        "loss": 2.2 + 8 * np.exp(-share * 6) + random.normal(0, 0.05, steps),
        "lr": 6e-4 * 0.5 * (1 + np.cos(np.pi * share)),
        "grad_norm": random.lognormal(-0.5, 0.3, steps),
        "param_norm": 90 + 10 * share + random.normal(0, 0.01, steps),
        "data_wait_s": random.lognormal(-7, 0.5, steps),
        "compute_s": random.lognormal(-4, 0.05, steps),
        "comm_s": random.lognormal(-5, 0.1, steps),
        "accuracy": 0.6 * (1 - np.exp(-share * 5)) + random.normal(0, 0.01, steps),
        "aux_loss": 0.1 + random.exponential(0.02, steps),
        "throughput": random.normal(51_200, 800, steps),
        "gpu_memory": 6.1e10 + random.normal(0, 1e8, steps),
        "tokens": np.full(steps, 65_536.0),
    }
    kept = {name: drawn[name].astype(np.float32).astype(np.float64) for name in metrics}
    return Run(number, run_id, metrics, times, kept)


# ------------------------------------------------------------------------------------------------ as records of our log


class Log:
    """Numbers records by topic and partition, as a broker does."""

    def __init__(self) -> None:
        self._offsets = {
            (topic, partition): count() for topic in (TELEMETRY.name, CONTROL.name) for partition in range(PARTITIONS)
        }

    def placed(self, event: AnyEvent, partition: int) -> Archived:
        topic = CONTROL.name if isinstance(event, Decision) else TELEMETRY.name
        return Archived(topic, LogPlace(0, partition, next(self._offsets[topic, partition])), event)


def records(run: Run, log: Log) -> Iterator[Archived]:
    """The run as the archiver would get it, decoded."""
    partition = run.number % PARTITIONS
    for event in (*_before(run), *_batches(run), *_after(run)):
        yield log.placed(event, partition)


def _batches(run: Run) -> Iterator[StepBatch]:
    columns = {name: values.tolist() for name, values in run.values.items()}
    times = run.times.tolist()
    for seq, start in enumerate(range(0, run.steps, BATCH), start=1_000):
        end = min(start + BATCH, run.steps)
        # What the codec has decoded has been validated there; to do it again is no part of storing.
        yield StepBatch.model_construct(
            run_id=run.run_id,
            attempt_id=f"{run.run_id}-1",
            attempt=1,
            rank=0,
            writer_id=f"{run.run_id}-w",
            seq=seq,
            at=times[end - 1],
            steps=tuple(range(start, end)),
            times=tuple(times[start:end]),
            metrics={name: tuple(column[start:end]) for name, column in columns.items()},
        )


def _before(run: Run) -> Iterator[AnyEvent]:
    told = _fact(run, 1, int(run.times[0]))
    config = {"batch_size": 512, "learning_rate": 6e-4, "layers": 24, "heads": 16, "width": 2048, "seed": run.number}
    names = {"model": f"gpt-{run.number % 5}", "team": f"team-{run.number % 7}", "dataset": "web", "cluster": "juno"}
    fields = {"reason": "start", "first_step": 0, "world_size": 8, "config": config, "cost_per_hour": 24.0}
    yield RunStarted.model_validate(fields | names | told)


def _after(run: Run) -> Iterator[AnyEvent]:
    last = run.steps - 1
    number = count(1)

    def decided(kind: type[Any], step: int, **fields: object) -> Any:
        told = {"run_id": run.run_id, "attempt_id": f"{run.run_id}-1", "attempt": 1, "policy_hash": "p" * 64}
        place = {"basis": LogPlace(0, run.number % PARTITIONS, 0), "decision_id": f"{run.run_id}-d{next(number)}"}
        return kind.model_validate({"at": int(run.times[step]), "step": step} | place | told | fields)

    yield decided(PhaseChanged, 0, phase="Warmup", was="Unknown", reason="NoBaselineYet")
    yield decided(PhaseChanged, 30, phase="Normal", was="Warmup", reason="WithinBaseline", margin=1.0)
    for step in range(0, run.steps, 50):  # one a second
        features = {"loss": float(run.values["loss"][step]), "lr": float(run.values["lr"][step]), "loss_z": 0.1 * step}
        yield decided(RunAssessed, step, phase="Normal", margin=0.9, stability_score=97.0, features=features)
    if run.troubled:
        yield from _trouble(run, decided)
    for seq, step in enumerate(range(99, run.steps, max(100, run.steps // 8)), start=100_000):
        told = _fact(run, seq, int(run.times[step]))
        file = {"manifest_sha256": "0" * 64, "size_bytes": 10**9, "took_s": 4.2, "path": f"/ckpt/{run.run_id}/{step}"}
        yield CheckpointSaved.model_validate({"step": step, "checkpoint_id": f"c{step}"} | file | told)
        again = _fact(run, seq + 1_000, int(run.times[step]))
        yield EvalCompleted.model_validate({"step": step, "metrics": {"loss": float(run.values["loss"][step])}} | again)
    yield decided(PhaseChanged, last, phase="Ended", was="Normal", reason="Completed")
    outcome = "completed" if run.number % 20 else "crashed"
    yield RunEnded.model_validate({"outcome": outcome, "step": last} | _fact(run, 200_000, int(run.times[last])))


def _trouble(run: Run, decided: Callable[..., Any]) -> Iterator[AnyEvent]:
    incident, cure = f"{run.run_id}-n", f"{run.run_id}-i"
    checkpoint = CheckpointRef(checkpoint_id="c99", step=99, path="/c99", manifest_sha256="0" * 64)
    rollback = Rollback(checkpoint=checkpoint, skip_batches=16, lr_factor=0.5)
    reason = ("LossAboveBaseline", "NonFinite", "GradientExploding")[run.number // 3 % 3]
    helped = "recovered" if run.number % 4 else "ineffective"
    proposal = {"rule": "spike", "severity": "page", "mode": "enforce", "reason": "loss up", "action": rollback}
    yield decided(PhaseChanged, 400, phase="Unstable", was="Normal", reason=reason, margin=0.0)
    yield decided(IncidentOpened, 400, incident_id=incident, onset_step=395, condition="Stable", reason=reason)
    yield decided(InterventionProposed, 401, intervention_id=cure, incident_id=incident, **proposal)
    yield decided(InterventionIssued, 401, intervention_id=cure, rule="spike", action=rollback, expires_step=450)
    receipt = {"intervention_id": cure, "outcome": "applied", "step": 405}
    yield InterventionReceipt.model_validate(receipt | _fact(run, 300_000, int(run.times[405])))
    yield decided(InterventionVerified, 430, intervention_id=cure, outcome=helped, reason="judged", window_steps=25)
    yield decided(PhaseChanged, 430, phase="Normal", was="Unstable", reason="WithinBaseline", margin=0.9)
    yield decided(IncidentResolved, 430, incident_id=incident, outcome="recovered", onset_step=395, steps_lost=306)


def _fact(run: Run, seq: int, at: int) -> dict[str, object]:
    whose = {"run_id": run.run_id, "attempt_id": f"{run.run_id}-1", "attempt": 1, "rank": 0}
    return {**whose, "writer_id": f"{run.run_id}-w", "seq": seq, "at": at}
