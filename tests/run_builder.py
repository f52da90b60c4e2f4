"""Builds the facts of a run as its ranks would tell them: the input of tests of the core.

Each rank is a writer of its own whose records are numbered as it tells them; `log` gives every record its place.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from pilothouse.events.actions import ActionKind
from pilothouse.events.commands import PolicyActivated, Tick
from pilothouse.events.envelope import LogPlace
from pilothouse.events.telemetry import CheckpointSaved, InterventionReceipt, RunEnded, RunStarted, StepBatch
from pilothouse.events.union import AnyInput, Record
from pilothouse.governance.policy import default_policy_text, policy_hash, with_mode

SECOND = 1_000_000
START = 1_790_000_000 * SECOND
ALL_ACTIONS: tuple[ActionKind, ...] = get_args(ActionKind)


@dataclass
class Rank:
    """One writer: the facts of one rank, numbered in the order in which they are told."""

    run_id: str
    rank: int
    attempt_id: str = "attempt-1"
    attempt: int = 1
    seq: int = 0
    facts: list[AnyInput] = field(default_factory=list)

    def tell(self, kind: Callable[..., AnyInput], at: int = START, **fields: Any) -> None:
        self.seq += 1
        self.facts.append(
            kind(
                run_id=self.run_id,
                writer_id=f"writer-{self.rank}",
                seq=self.seq,
                at=at,
                attempt_id=self.attempt_id,
                attempt=self.attempt,
                rank=self.rank,
                **fields,
            )
        )

    def started(self, world_size: int, **fields: Any) -> None:
        defaults: dict[str, Any] = {"reason": "start", "first_step": 0, "steers": ALL_ACTIONS}
        self.tell(RunStarted, world_size=world_size, **(defaults | fields))

    def log(self, steps: Sequence[int], losses: Sequence[float], grad_norm: float = 1.0, **beside: float) -> None:
        """So many rows; what is told beside is the same in each."""
        times = tuple(START + step * SECOND for step in steps)
        told = {"grad_norm": grad_norm, **beside}
        metrics = {"loss": tuple(losses), **{name: (value,) * len(steps) for name, value in told.items()}}
        self.tell(StepBatch, at=times[-1], steps=tuple(steps), times=times, metrics=metrics)

    def checkpoint(self, step: int) -> None:
        self.tell(
            CheckpointSaved,
            at=START + step * SECOND,
            step=step,
            checkpoint_id=f"checkpoint-{step}",
            path=f"/checkpoints/{step}",
            manifest_sha256="0" * 64,
            size_bytes=1,
            took_s=0.1,
        )

    def receipt(
        self, intervention_id: str, step: int, outcome: str = "applied", reason: str = "", **values: Any
    ) -> None:
        """`values` are `before` and `after`, as a trainer measures them."""
        told: dict[str, Any] = {"intervention_id": intervention_id, "outcome": outcome, "reason": reason}
        self.tell(InterventionReceipt, step=step, **told, **values)

    def ended(self, step: int, outcome: str = "completed") -> None:
        self.tell(RunEnded, step=step, outcome=outcome)


def quiet_loss(step: int, rank: int = 0) -> float:
    """A falling loss with deterministic noise, different on every rank."""
    return 2.0 + 2.0 * math.exp(-step / 60) + 0.03 * math.sin(12.9898 * step + 78.233 * rank)


def activation(run_id: str, mode: str = "enforce") -> PolicyActivated:
    text = with_mode(default_policy_text(), mode)  # type: ignore[arg-type]  # tests name the mode as a person would
    return activated(run_id, text)


def activated(run_id: str, text: str, seq: int = 1) -> PolicyActivated:
    return PolicyActivated(
        run_id=run_id,
        writer_id=f"policy-{run_id}",
        seq=seq,
        at=START,
        name="default",
        text=text,
        policy_hash=policy_hash(text),
        who="test",
    )


def tick(seq: int, at: int) -> Tick:
    return Tick(at=at, partition=0, writer_id="ticker", seq=seq)


def log(facts: Iterable[AnyInput], first_offset: int = 0) -> list[Record]:
    """The facts at consecutive offsets of one partition."""
    return [Record(LogPlace(0, 0, first_offset + index), fact) for index, fact in enumerate(facts)]
