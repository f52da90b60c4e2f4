"""A governed run, closed loop and deterministic: ranks train and tell, the fold judges, the ranks obey.

What every rank told is kept in the order in which it told it, so that tests can tell the same history in another order,
in other batches, or twice. Data never goes back: a fault belongs to a position in the data, not to a step.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pilothouse.events.commands import CommandVerb, OperatorCommand
from pilothouse.events.decisions import InterventionIssued
from pilothouse.events.envelope import LogPlace, derived_attempt_id
from pilothouse.events.telemetry import CheckpointRestored, DataWindowSkipped, Heartbeat, StageChanged
from pilothouse.events.union import AnyDecision, AnyInput, Record
from pilothouse.stream_processors.fold import Folded, fold
from pilothouse.stream_processors.run_state import RunState, new_state

from .run_builder import SECOND, START, Rank, activated, activation, quiet_loss, tick

Loss = Callable[[int, int, int], float]
"""The loss at (position in the data, step, rank)."""


@dataclass(repr=False)
class GovernedRun:
    """Tells, folds and obeys. `records` is the log as it was judged, `decisions` what came of it, in order."""

    world: int = 4
    loss: Loss = lambda _, step, rank: quiet_loss(step, rank)
    beside: Callable[[int, int], dict[str, float]] = lambda step, rank: {}  # noqa: ARG005  # a field has names
    mode: str = "enforce"
    run_id: str = "run"
    checkpoint_every: int = 10
    obeys: bool = True
    corrupt: frozenset[str] = frozenset()
    seconds_lost: float = 0.0
    step: int = 0
    position: int = 0
    attempt: int = 1
    records: list[Record] = field(default_factory=list)
    decisions: list[AnyDecision] = field(default_factory=list)
    ranks: list[Rank] = field(default_factory=list)
    state: RunState = field(default_factory=lambda: new_state(""))
    ticks: int = 0
    orders: int = 0
    to_obey: list[InterventionIssued] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=lambda: {"lr_multiplier": 1.0})

    def __post_init__(self) -> None:
        self.state = new_state(self.run_id)
        self.ranks = [Rank(self.run_id, rank) for rank in range(self.world)]

    def fold(self, event: AnyInput) -> Folded:
        record = Record(LogPlace(0, 0, len(self.records)), event)
        self.records.append(record)
        folded = fold(self.state, record)
        assert not folded.fault, folded.fault
        self.state = folded.state
        self.decisions += folded.decisions
        self.to_obey += [decision for decision in folded.decisions if isinstance(decision, InterventionIssued)]
        return folded

    def tell(self, rank: Rank, told: Callable[..., None], *arguments: Any, **fields: Any) -> None:
        """One rank tells something, and it is folded at once."""
        told(*arguments, **fields)
        self.fold(rank.facts[-1])

    def begin(self, policy: str | None = None, **announced: Any) -> "GovernedRun":
        """Under this policy, or the default one in the mode of the run."""
        self.fold(activated(self.run_id, policy) if policy else activation(self.run_id, self.mode))
        self.tell(self.ranks[0], self.ranks[0].started, self.world, **announced)
        return self

    def order(self, verb: CommandVerb, **fields: Any) -> Folded:
        """A person's command."""
        self.orders += 1
        identity: dict[str, Any] = {"run_id": self.run_id, "writer_id": "person", "seq": self.orders, "at": START}
        return self.fold(OperatorCommand(verb=verb, **{"who": "ada", "why": "because"} | identity | fields))

    def train(self, steps: int, *, steps_per_tick: int = 1) -> "GovernedRun":
        """Train over so many positions of the data, obeying what is issued."""
        for _ in range(steps):
            for rank in self.ranks:
                loss = self.loss(self.position, self.step, rank.rank)
                self.tell(rank, rank.log, [self.step], [loss], **self.beside(self.step, rank.rank))
            if self.checkpoint_every and self.step % self.checkpoint_every == 0:
                self.tell(self.ranks[0], self.ranks[0].checkpoint, self.step)
            self.position += 1
            self.step += 1
            self.obey()
            if self.position % steps_per_tick == 0:
                self.tick()
        return self

    def obey(self) -> None:
        orders, self.to_obey = self.to_obey, []
        for order in orders if self.obeys else ():
            self._apply(order)

    def _apply(self, order: InterventionIssued) -> None:
        action = order.action
        checkpoint = action.checkpoint if action.action == "rollback" else None
        if checkpoint is not None and checkpoint.checkpoint_id in self.corrupt:
            for rank in self.ranks:
                reason = f"CheckpointCorrupt: {checkpoint.path}"
                self.tell(rank, rank.receipt, order.intervention_id, self.step, "failed", reason)
            return
        after = {name: value for name, value in action.leaves(self.values).items() if name in self.values}
        changed = {"before": {name: self.values[name] for name in after}, "after": after}
        self.values |= after
        for rank in self.ranks:
            self.tell(rank, rank.receipt, order.intervention_id, self.step, **changed)
        if action.action == "skip_batches":
            self.position += action.count
        if checkpoint is not None and action.action == "rollback":
            attempt_id = derived_attempt_id(self.ranks[0].attempt_id, order.intervention_id)
            self.begin_attempt("rollback", attempt_id, checkpoint.step + 1)
            for rank in self.ranks:
                told = {"step": checkpoint.step, "checkpoint_id": checkpoint.checkpoint_id, "path": checkpoint.path}
                self.tell(rank, rank.tell, CheckpointRestored, **told, seconds_lost=self.seconds_lost)
                skipped = {"first_batch": self.position, "last_batch": self.position + action.skip_batches}
                self.tell(rank, rank.tell, DataWindowSkipped, step=checkpoint.step, **skipped)
            self.position += action.skip_batches

    def begin_attempt(self, reason: str, attempt_id: str, first_step: int, **announced: Any) -> None:
        self.attempt += 1
        parent = self.ranks[0].attempt_id
        for rank in self.ranks:
            rank.attempt_id, rank.attempt = attempt_id, self.attempt
        self.step = first_step
        lineage = {"reason": reason, "parent_attempt_id": parent, "first_step": first_step, **announced}
        self.tell(self.ranks[0], self.ranks[0].started, self.world, **lineage)

    def tick(self, count: int = 1) -> "GovernedRun":
        for _ in range(count):
            self.ticks += 1
            self.fold(tick(self.ticks, START + self.ticks * SECOND))
        return self

    def stage(self, stage: str) -> "GovernedRun":
        self.tell(self.ranks[0], self.ranks[0].tell, StageChanged, stage=stage, step=self.step)
        return self

    def heartbeats(self, seconds: int, stage: str = "train") -> "GovernedRun":
        """The processes live, and nothing else happens."""
        for second in range(seconds):
            if second % 2 == 0:
                for rank in self.ranks:
                    self.tell(rank, rank.tell, Heartbeat, stage=stage, step=self.step)
            self.tick()
        return self

    def end(self, outcome: str = "completed") -> "GovernedRun":
        for rank in reversed(self.ranks):
            self.tell(rank, rank.ended, max(0, self.step - 1), outcome)
        return self

    def __repr__(self) -> str:
        told = [f"{record.event.writer_id}:{record.event.seq} {record.event.kind}" for record in self.records]
        return f"<{self.world} ranks, {self.mode}: {', '.join(told[-12:])}>"

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        printer.text(repr(self))  # hypothesis prints this

    def of(self, *kinds: type[Any]) -> list[Any]:
        return [decision for decision in self.decisions if isinstance(decision, kinds)]


def decided(records: Iterable[Record], state: RunState | None = None) -> Iterator[AnyDecision]:
    """The decisions of a log of one run; a fault in the core is an error."""
    state = state or new_state("run")
    for record in records:
        folded = fold(state, record)
        assert not folded.fault, folded.fault
        state = folded.state
        yield from folded.decisions


def essence(decisions: Iterable[AnyDecision]) -> list[dict[str, Any]]:
    """What must not depend on how the same history was told: all but the place of its last record, and its clock."""
    return [
        {k: repr(v) for k, v in decision.model_dump().items() if k not in ("basis", "at")} for decision in decisions
    ]
