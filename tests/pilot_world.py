"""What tests of the pilot bring instead of a governor and a broker: a run that writes down what it is told, and
scripted commands.

Used in one process by the unit tests and, as a program, by every rank of the integration tests.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pilothouse.events.actions import Action, ActionKind, CheckpointRef
from pilothouse.events.decisions import InterventionIssued
from pilothouse.events.envelope import LogPlace, TrainerFact
from pilothouse.events.telemetry import AttemptReason, Outcome, Stage
from pilothouse.producers.checkpoints.retention import Judgement
from pilothouse.producers.ranks.ballots import Ballots, LocalBallots
from pilothouse.producers.ranks.context import Identity
from pilothouse.producers.steering.safe_point import Links
from pilothouse.producers.teller import Teller
from pilothouse.settings import Settings


class ToldFact(NamedTuple):
    kind: str
    attempt_id: str
    fields: dict[str, Any]


class Tape:
    """A `Teller` that keeps everything, validated as it would be on the wire."""

    def __init__(
        self, rank: int = 0, world_size: int = 1, attempt_id: str = "attempt-1", run_id: str = "run-1"
    ) -> None:
        self.identity = Identity(run_id, attempt_id, 1, rank, world_size)
        self.told: list[ToldFact] = []
        self.stages: list[Stage] = []
        self.steerable: tuple[ActionKind, ...] = ()
        self.in_force: Callable[[], Mapping[str, float]] = dict
        self.outcome: Outcome = "completed"
        self._numbers = itertools.count(1)

    def tell(self, fact: type[TrainerFact], **fields: Any) -> None:
        run_id, attempt_id, attempt, rank, _ = self.identity
        who: dict[str, Any] = {"run_id": run_id, "attempt_id": attempt_id, "attempt": attempt, "rank": rank}
        who |= {"writer_id": f"writer-{rank}", "seq": next(self._numbers), "at": 0}
        event = fact(**who, **fields)
        self.told.append(ToldFact(event.kind, attempt_id, event.model_dump(exclude={"kind", *who})))

    def begin_attempt(
        self, reason: AttemptReason, first_step: int, parent: str | None = None, attempt_id: str | None = None
    ) -> Identity:
        assert attempt_id is not None
        self.identity = self.identity._replace(attempt_id=attempt_id, attempt=self.identity.attempt + 1)
        self.told.append(
            ToldFact("attempt", attempt_id, {"reason": reason, "first_step": first_step, "parent": parent})
        )
        return self.identity

    def stage(self, stage: Stage, step: int | None = None) -> None:  # noqa: ARG002  # a Teller's shape
        self.stages.append(stage)

    def steers(self, actions: tuple[ActionKind, ...], values: Callable[[], Mapping[str, float]] = dict) -> None:
        self.steerable, self.in_force = actions, values

    def ending(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def timed(self, loader: Any) -> Any:
        return loader

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [fact.fields for fact in self.told if fact.kind == kind]

    def receipts(self, intervention_id: str) -> list[dict[str, Any]]:
        return [fields for fields in self.of("intervention_receipt") if fields["intervention_id"] == intervention_id]

    def receipt(self, intervention_id: str) -> dict[str, Any]:
        (one,) = self.receipts(intervention_id)
        return one

    def saved(self) -> list[CheckpointRef]:
        names = ("checkpoint_id", "step", "path", "manifest_sha256")
        return [CheckpointRef(**{name: fields[name] for name in names}) for fields in self.of("checkpoint_saved")]


def issued(action: Action, attempt_id: str = "attempt-1", number: int = 1, **other: Any) -> InterventionIssued:
    """A command as the governor would write it; `number` orders commands and names this one `i-<number>`."""
    fields: dict[str, Any] = {
        "at": 0,
        "run_id": "run-1",
        "attempt_id": attempt_id,
        "attempt": 1,
        "decision_id": f"d-{number}",
        "basis": LogPlace(0, 0, number),
        "step": 0,
        "policy_hash": "h",
        "intervention_id": f"i-{number}",
        "rule": "test",
        "action": action,
        "expires_step": 1_000_000,
    }
    return InterventionIssued(**(fields | other))


@dataclass
class Order:
    """A command to be heard from step `step` on; the action may depend on what was told until then."""

    step: int
    action: Action | Callable[[Tape], Action]
    other: dict[str, Any] = field(default_factory=dict)


class Script:
    """Commands by the step at which they are heard, one after the other."""

    def __init__(self, tape: Tape, orders: list[Order]) -> None:
        self._tape = tape
        self._orders = list(orders)
        self._numbers = itertools.count(1)
        self.step = 0

    def take(self) -> InterventionIssued | None:
        if not self._orders or self._orders[0].step > self.step:
            return None
        order = self._orders.pop(0)
        action = order.action(self._tape) if callable(order.action) else order.action
        told: dict[str, Any] = {"attempt_id": self._tape.identity.attempt_id, "number": next(self._numbers)}
        return issued(action, **(told | order.other))

    def judged(self) -> Judgement:
        return Judgement()

    def close(self, within: float = 0.0) -> None:
        pass


def links_of(script: Script | None, ballots: Ballots | None = None) -> Callable[[Teller, Settings], Links]:
    """For `Pilot(links=...)`."""
    return lambda _run, _settings: Links(ballots if ballots is not None else LocalBallots(), script)
