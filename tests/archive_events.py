"""Events for the archive's tests: one run's story that touches every view, and records of every shape for the laws."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from pilothouse.events.actions import CheckpointRef, Rollback, ScaleLr
from pilothouse.events.commands import OperatorCommand, Tick
from pilothouse.events.decisions import (
    CheckpointRejected,
    ConditionChanged,
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
    CheckpointRestored,
    CheckpointSaved,
    CheckpointUnavailable,
    EvalCompleted,
    Heartbeat,
    InterventionReceipt,
    RunEnded,
    RunStarted,
    StepBatch,
    TelemetryGap,
)
from pilothouse.events.topics import CONTROL, TELEMETRY
from pilothouse.events.union import AnyEvent
from pilothouse.storage.archive import Archived
from pilothouse.storage.native import Arrays
from pilothouse.storage.step_block import StepBlock

NAN, INF = float("nan"), float("inf")
SHA = "0" * 64


def logged(events: Sequence[AnyEvent], *, epoch: int = 0, partition: int = 0, first: int = 0) -> list[Archived]:
    """The events as records, in order, each at the next place of its topic."""
    offsets = {TELEMETRY.name: first, CONTROL.name: first}
    records = []
    for event in events:
        topic = CONTROL.name if isinstance(event, Decision) else TELEMETRY.name
        records.append(Archived(topic, LogPlace(epoch, partition, offsets[topic]), event))
        offsets[topic] += 1
    return records


def rows_in(block: StepBlock) -> list[dict[str, Any]]:
    """The rows of a block as the archive would read them; `bits` are doubles."""
    columns = {
        name: _arrays(name, column) if isinstance(column, Arrays) else column for name, column in block.columns.items()
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _arrays(name: str, column: Arrays) -> list[list[Any]]:
    elements = array({"rows": "H", "bits": "d"}.get(name, "q"), bytes(column.data)).tolist()
    return [elements[start:end] for start, end in pairwise([0, *column.ends])]


@dataclass
class Writer:
    """One rank's process: gives its facts their identity."""

    run_id: str
    rank: int = 0
    attempt: int = 1
    seq: int = 0

    def tell(self, fact: type[Any], **fields: Any) -> Any:
        self.seq += 1
        identity = {"attempt_id": f"{self.run_id}-{self.attempt}", "attempt": self.attempt, "rank": self.rank}
        defaults = {"at": 1_000_000 * self.seq + self.rank}
        writer = f"{self.run_id}-w{self.rank}"
        return fact(run_id=self.run_id, writer_id=writer, seq=self.seq, **identity, **(defaults | fields))

    def steps(self, steps: Sequence[int], **metrics: Sequence[float | None]) -> StepBatch:
        times = tuple(1_000 * step for step in steps)
        columns = {name: tuple(values) for name, values in metrics.items()}
        return self.tell(StepBatch, steps=tuple(steps), times=times, metrics=columns)  # type: ignore[no-any-return]


def decided(run_id: str, decision: type[Any], number: int, **fields: Any) -> Any:
    lineage = {"run_id": run_id, "attempt_id": f"{run_id}-1", "attempt": 1, "policy_hash": "p" * 64}
    defaults = {"at": 1_000_000 * number, "step": number, "basis": LogPlace(0, 0, number)}
    return decision(decision_id=f"{run_id}-d{number}", **lineage, **(defaults | fields))


def story(run_id: str) -> list[AnyEvent]:
    """Two ranks, a spike, one rollback that both apply at step 12 and that helps, one proposal not issued, the end."""
    zero, one = Writer(run_id), Writer(run_id, rank=1)
    checkpoint = CheckpointRef(checkpoint_id="c8", step=8, path="/c8", manifest_sha256=SHA)
    file = {"manifest_sha256": SHA, "size_bytes": 9, "took_s": 1}
    rollback = Rollback(checkpoint=checkpoint, skip_batches=4, lr_factor=0.5)
    proposal = {"rule": "spike", "severity": "page", "mode": "enforce", "reason": "loss up", "action": rollback}
    begun: list[AnyEvent] = [
        zero.tell(RunStarted, reason="start", first_step=0, world_size=2, model="gpt", config={"lr": 0.1, "ü": [None]}),
        zero.steps([8, 9, 10], loss=[3.0, NAN, 9.0], lr=[None, 0.1, 0.1]),
        one.steps([8, 9, 10], loss=[3.5, INF, 9.5]),
        zero.tell(CheckpointSaved, step=8, checkpoint_id="c8", path="/c8", **file),
        zero.tell(CheckpointSaved, step=10, checkpoint_id="c10", path="/c10", **file),
        decided(run_id, PhaseChanged, 9, phase="Normal", was="Warmup", reason="BaselineKnown", margin=0.9),
        decided(run_id, ConditionChanged, 10, condition="Stable", status="False", was="True", reason="Spike",
                message="m", since_step=9, evidence={"loss": NAN, "limit": 4.0}),
        decided(run_id, IncidentOpened, 11, incident_id="n1", onset_step=9, condition="Stable", reason="Spike"),
        decided(run_id, PhaseChanged, 12, phase="Unstable", was="Normal", reason="Spike", margin=0.0,
                evidence={"loss": NAN, "limit": 4.0}),
        decided(run_id, CheckpointRejected, 13, checkpoint=checkpoint.model_copy(update={"checkpoint_id": "c10"}),
                reason="written after the onset"),
        decided(run_id, InterventionProposed, 14, intervention_id="i1", incident_id="n1", **proposal),
        decided(run_id, InterventionIssued, 15, intervention_id="i1", rule="spike", action=rollback, expires_step=40),
        decided(run_id, InterventionProposed, 16, intervention_id="i2", **(proposal | {"action": ScaleLr(factor=0.5)})),
    ]  # fmt: skip
    zero.attempt = one.attempt = 2
    ended: list[AnyEvent] = [
        zero.tell(RunStarted, reason="rollback", first_step=9, world_size=2, parent_attempt_id=f"{run_id}-1",
                  model="gpt"),
        *(rank.tell(CheckpointRestored, step=8, checkpoint_id="c8", path="/c8") for rank in (zero, one)),
        *(rank.tell(InterventionReceipt, intervention_id="i1", outcome="applied", step=12, before={"lr": 0.1},
                    after={"lr": 0.05}) for rank in (zero, one)),
        zero.steps([9, 10], loss=[3.0, 2.0]),
        zero.tell(EvalCompleted, step=10, metrics={"loss": 2.0000000000000004, "perplexity": INF}),
        decided(run_id, InterventionVerified, 17, intervention_id="i1", outcome="recovered", reason="ok",
                window_steps=9),
        decided(run_id, IncidentResolved, 18, incident_id="n1", outcome="recovered", onset_step=9, steps_lost=2),
        decided(run_id, RunAssessed, 19, phase="Normal", margin=0.8, stability_score=97.5, features={"loss_z": -INF}),
        *(rank.tell(RunEnded, outcome="completed", step=10) for rank in (zero, one)),
        decided(run_id, PhaseChanged, 20, phase="Ended", was="Normal", reason="Completed", basis=LogPlace(0, 0, 13)),
        zero.tell(CheckpointUnavailable, step=10, checkpoint_id="c10", path="/c10", how="rotated",
                  reason="two newer ones are kept"),
    ]  # fmt: skip
    return begun + ended


# ------------------------------------------------------------------------------------------------------ for the laws

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
micros = st.integers(0, 2**62 - 1)
steps = st.integers(0, 2**62 - 1) | st.integers(0, 3)
bits = st.floats()
"""Any double, also NaNs of other bits."""
values = st.floats(allow_nan=False) | st.just(NAN)
"""Any double that JSON can say: it knows one NaN."""
numbers = st.dictionaries(names, values, max_size=3)


@st.composite
def step_columns(draw: st.DrawFn) -> dict[str, Any]:
    """The columns of a StepBatch, most of them with holes."""
    length = draw(st.integers(1, 4))
    column = st.lists(st.none() | bits, min_size=length, max_size=length).map(tuple)
    return {
        "steps": tuple(draw(st.lists(steps, min_size=length, max_size=length))),
        "times": tuple(draw(st.lists(micros, min_size=length, max_size=length))),
        "metrics": draw(st.dictionaries(names, column, min_size=1, max_size=3)),
    }


step_batches = st.tuples(st.just(StepBatch), step_columns())
other_facts = st.one_of(
    st.tuples(st.just(EvalCompleted), st.fixed_dictionaries({"step": steps, "split": names, "metrics": numbers})),
    st.tuples(
        st.just(RunStarted),
        st.fixed_dictionaries(
            {
                "first_step": steps,
                "config": st.dictionaries(texts, st.none() | bits | texts | st.lists(texts), max_size=2),
            }
        ).map(lambda fields: {"reason": "start", "world_size": 1, **fields}),
    ),
    st.tuples(st.just(TelemetryGap), st.fixed_dictionaries({"dropped": st.dictionaries(names, steps, max_size=2)})),
    st.tuples(
        st.just(Heartbeat), st.fixed_dictionaries({"step": steps}).map(lambda fields: {"stage": "train"} | fields)
    ),
)


@st.composite
def inputs(draw: st.DrawFn, run_id: str, partition: int) -> list[AnyEvent]:
    """What a governor may read of one run: facts of two ranks, a person's word, and ticks."""
    writers = (Writer(run_id), Writer(run_id, rank=1))
    told: list[AnyEvent] = []
    of_no_rank: st.SearchStrategy[Any] = st.sampled_from([(Tick, {}), (OperatorCommand, {})])
    shapes = st.lists(step_batches | other_facts | of_no_rank, min_size=1, max_size=8)
    for seq, (kind, fields) in enumerate(draw(shapes), start=1):
        if kind is Tick:
            told.append(Tick(at=draw(micros), partition=partition, writer_id=f"ticker-{run_id}", seq=seq))
        elif kind is OperatorCommand:
            writer, who, why = f"person-{run_id}", draw(names), draw(texts)
            told.append(
                OperatorCommand(
                    run_id=run_id, writer_id=writer, seq=seq, at=draw(micros), verb="stop", who=who, why=why
                )
            )
        else:
            told.append(draw(st.sampled_from(writers)).tell(kind, **({"at": draw(micros)} | fields)))
    return told
