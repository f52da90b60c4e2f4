"""The state of a run stays within its declared bytes, whatever its ranks, writers, steps and people do."""

import math
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.events.actions import Action, Notify, Rollback, SkipBatches
from pilothouse.events.commands import OperatorCommand, PolicyActivated
from pilothouse.events.envelope import LogPlace, TrainerFact
from pilothouse.events.metric_names import TOLD
from pilothouse.events.telemetry import CheckpointSaved, DataProfiled, InterventionReceipt, RunStarted, StepBatch
from pilothouse.events.union import AnyEvent, AnyInput, Record
from pilothouse.governance.policy import MAX_POLICY_BYTES, load_policy
from pilothouse.stream_processors.detectors.inputs import INPUTS
from pilothouse.stream_processors.fold import fold
from pilothouse.stream_processors.rank_rows import BLOCK
from pilothouse.stream_processors.run_state import (
    MAX_COMPARED,
    MAX_LOST,
    MAX_PENDING,
    MAX_RANKS,
    MAX_STATE_BYTES,
    RunState,
    dump_state,
    load_state,
    new_state,
)
from pilothouse.tests.event_strategies import event
from pilothouse.tests.run_builder import ALL_ACTIONS, START, tick

WIDE = "\U0001f6a2"
"""Four bytes, one character: lengths are declared in characters, the state's bound is in bytes."""
LONG = WIDE * 200
FAR = 2**61
RANK_METRICS = dict.fromkeys(("loss", *(names[0] for names in TOLD.values())), math.pi) | {
    "grad_norm": 1e-300,
    "param_norm": 1e-300,
    "local_grad_norm": 1e20,
}
"""All that is looked at, in sizes whose logarithms are long."""


class Flood:
    """A run that says as much as it may, by as many writers as it likes."""

    def __init__(self) -> None:
        self.state: RunState = new_state(LONG)
        self.writers = 0
        self.ticks = 0

    def fold(self, event: AnyInput) -> None:
        folded = fold(self.state, Record(LogPlace(0, 0, 0), event), accept_gap=True)
        assert not folded.fault, folded.fault
        self.state = folded.state

    def size(self) -> int:
        body = dump_state(self.state)
        assert dump_state(load_state(body)) == body
        return len(body)

    def tell(self, kind: Callable[..., AnyInput], attempt: int, rank: int = 0, **fields: Any) -> None:
        self.writers += 1
        attempt_id = f"{attempt}{LONG}"[:200]
        self.fold(
            kind(
                run_id=LONG,
                writer_id=f"{self.writers}{LONG}"[:200],
                seq=2**62 - 1,
                at=START,
                attempt_id=attempt_id,
                attempt=attempt + 1,
                rank=rank,
                **fields,
            )
        )

    def start(self, attempt: int, world_size: int = 2**31 - 1) -> None:
        steers = ALL_ACTIONS * 100
        self.tell(RunStarted, attempt, reason="start", first_step=FAR, world_size=world_size, steers=steers)

    def log(self, attempt: int, rank: int, steps: int, first: int = FAR) -> None:
        numbers = tuple(first + BLOCK * step for step in range(steps))  # ranks are compared at each of them
        metrics = {name: (size * (1.0 + rank),) * steps for name, size in RANK_METRICS.items()}
        if rank % 2:
            del metrics["local_grad_norm"]  # then its loss is compared
        self.tell(StepBatch, attempt, rank, steps=numbers, times=numbers, metrics=metrics)

    def order(self, action: Action) -> None:
        self.writers += 1
        self.fold(
            OperatorCommand(
                run_id=LONG, writer_id=f"person-{self.writers}", seq=1, at=START, verb="intervene", who=LONG, why=LONG,
                action=action,
            )
        )  # fmt: skip

    def tick(self) -> None:
        self.ticks += 1
        self.fold(tick(self.ticks, START + self.ticks * 1_000_000))


def policy_text(first: str) -> str:
    """As large as a policy may be, with as many rules as it may have."""
    rules = "".join(
        f"- {{name: {first}{'x' * 55}{number}, when: 'true', cooldown_steps: 0, limit: {{count: 64}}, "
        f"approval: {{by: human, timeout_seconds: 86400}}, actions: [{{action: notify, message: '{'m' * 150}'}}]}}\n"
        for number in range(64)
    )
    text = f"name: big\nmode: enforce\nrules:\n{rules}"
    return text + "#" * (MAX_POLICY_BYTES - len(text))


def activate(flood: Flood, first: str) -> None:
    text = policy_text(first)
    load_policy(text)
    flood.writers += 1
    flood.fold(
        PolicyActivated(
            run_id=LONG, writer_id=f"policy-{flood.writers}", seq=1, at=START, name=LONG, text=text, policy_hash=LONG,
            who=LONG,
        )
    )  # fmt: skip


def profile(flood: Flood) -> None:
    """More inputs than are watched, in more bins."""
    for number in range(INPUTS + 4):
        for window in range(8):
            told: dict[str, Any] = {"edges": (1.0, 2.0), "counts": (2**61 + window,) * 999}
            flood.tell(DataProfiled, 0, step=FAR, feature=f"{number}{LONG}"[:200], **told)
    assert len(flood.state.inputs.inputs) == INPUTS


def test_a_run_that_says_as_much_as_it_may_stays_within_its_bytes() -> None:
    """Everything that is bounded is filled to its bound, all at the same time."""
    flood = Flood()
    for first in "abc":
        activate(flood, first)
    flood.start(0, MAX_RANKS)
    for rank in range(MAX_RANKS):
        flood.log(0, rank, steps=20)
    for number in range(40):
        flood.tell(
            CheckpointSaved,
            0,
            step=FAR + 19,
            checkpoint_id=f"{number}{LONG}"[:200],
            path=WIDE * 500 + str(number),
            manifest_sha256=WIDE * 64,
            size_bytes=1,
            took_s=1.0,
        )
        flood.order(SkipBatches(count=1))
    assert flood.state.ledger.in_flight
    assert flood.state.candidates
    profile(flood)
    for rank in range(MAX_RANKS - 1):  # one rank hangs: steps wait for it
        flood.log(0, rank, steps=MAX_PENDING, first=FAR + 20 * BLOCK)
    for attempt in (1, 2, 3):
        for rank in range(MAX_RANKS):
            flood.log(attempt, rank, steps=200)
        for number in range(200):
            reason: dict[str, Any] = {"outcome": "failed", "reason": WIDE * 16_000}
            flood.tell(
                InterventionReceipt, attempt, step=FAR + number, intervention_id=f"{number}{LONG}"[:200], **reason
            )
            flood.tell(InterventionReceipt, 0, step=FAR * 2 - 1, intervention_id=f"{number}{LONG}"[:200], **reason)
    for _ in range(10):  # not so many that patience ends
        flood.tick()
    assert len(flood.state.positions) > 2_000
    assert flood.state.current is not None
    assert len(flood.state.current.high) == MAX_RANKS
    assert len(flood.state.current.pending) > MAX_PENDING - 10
    compared = [pending.spreads for pending in flood.state.current.pending.values() if pending.spreads]
    assert len(compared) > MAX_COMPARED - 10
    assert {len(spreads) for spreads in compared} == {7}
    assert len(flood.state.ranks_past) == 14 * MAX_RANKS
    assert flood.size() <= MAX_STATE_BYTES


def test_losses_without_end_are_counted_to_an_end() -> None:
    flood = Flood()
    for _ in range(10):
        flood.start(0, 1)
    assert flood.state.lost_records == MAX_LOST
    assert flood.size() < 10_000


def test_a_run_of_a_million_metric_names_forgets_them() -> None:
    flood = Flood()
    flood.start(0, 1)
    for batch in range(100):
        metrics = {f"metric {batch} {number}": (1.0,) for number in range(10_000)}
        flood.tell(StepBatch, 0, steps=(FAR + batch,), times=(1,), metrics=metrics)
    assert flood.size() < 10_000


def test_a_run_of_two_billion_ranks_is_judged_by_the_first_thousand() -> None:
    flood = Flood()
    flood.start(0)
    for rank in (*range(MAX_RANKS), MAX_RANKS, 2**31 - 1):
        flood.log(0, rank, steps=1)
    for _ in range(20):
        flood.tick()
    assert flood.state.current is not None
    assert flood.state.current.judged == FAR
    assert flood.size() <= MAX_STATE_BYTES


def test_a_run_nobody_started_keeps_little_and_waits() -> None:
    flood = Flood()
    for rank in range(MAX_RANKS):
        flood.log(0, rank, steps=200)
    assert flood.size() <= MAX_STATE_BYTES


def test_decades_of_attempts_incidents_and_orders_leave_no_trace_in_bytes() -> None:
    flood = Flood()
    sizes = []
    for attempt in range(100):
        flood.start(attempt, 1)
        for number in range(20):
            metrics = {"loss": (math.nan if number == 18 else 1.0,)}
            flood.tell(StepBatch, attempt, steps=(FAR + number,), times=(1,), metrics=metrics)
        flood.order(Notify(message="m"))
        flood.order(Rollback())
        flood.tick()
        flood.state.positions.clear()  # bounded, but by more than is told here
        sizes.append(flood.size())
    assert flood.state.ordinals["incident_opened"] == 100
    assert max(sizes[50:]) - max(sizes[:50]) < 50


FACTS = st.one_of(
    [
        event(kind)
        for kind in (RunStarted, StepBatch, CheckpointSaved, InterventionReceipt, OperatorCommand, PolicyActivated)
    ]
)


@settings(max_examples=30)
@given(st.lists(st.tuples(FACTS, st.integers(0, 2), st.integers(0, 3)), max_size=60))
def test_nothing_that_an_event_may_hold_makes_the_fold_stumble(told: list[tuple[AnyEvent, int, int]]) -> None:
    flood = Flood()
    for number, (fact, attempt, rank) in enumerate(told):
        identity = {"run_id": LONG, "writer_id": f"writer-{number}", "seq": 1}
        lineage = {"attempt_id": f"attempt-{attempt}", "rank": rank} if isinstance(fact, TrainerFact) else {}
        flood.fold(fact.model_copy(update=identity | lineage))  # type: ignore[arg-type]  # all of them are inputs
        flood.tick()
    assert flood.size() <= MAX_STATE_BYTES
