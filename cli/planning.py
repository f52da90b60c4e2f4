"""From a run's history to the plan of it: what was applied when, and the loss that came of it. Pure.

Called by `plan_command`. What rank 0 told counts: it leads the agreement of the ranks, and the receipts of the others
say the same. A crash and the restart behind it are undone here: what the restart did not keep never happened.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..events.actions import Notify, Pause, Resume, Rollback
from ..events.decisions import InterventionIssued
from ..events.telemetry import InterventionReceipt, RunEnded, RunStarted, StepBatch
from ..events.union import AnyDecision, Record
from ..producers.steering.plan import Plan, Planned, Stretch

WITHOUT_EFFECT = (Notify, Pause, Resume)
"""What changes nothing that is trained."""


@dataclass
class _Told:
    """A stretch while it is read: its first step and its rows, (loss, gradient norm) by step, the first that was
    logged of each.
    """

    first_step: int
    rows: dict[int, list[float | None]] = field(default_factory=dict)

    def row(self, step: int, loss: float | None, grad_norm: float | None) -> None:
        row = self.rows.setdefault(step, [None, None])
        for place, value in enumerate((loss, grad_norm)):
            if row[place] is None:
                row[place] = value

    def forget_from(self, step: int) -> None:
        self.rows = {known: row for known, row in self.rows.items() if known < step}

    def stretch(self) -> Stretch:
        loss, grad_norm = (tuple(row[place] for row in self.rows.values()) for place in (0, 1))
        return Stretch(steps=tuple(self.rows), loss=loss, grad_norm=grad_norm)


@dataclass
class _Reading:
    """What was read so far."""

    issued: Mapping[str, InterventionIssued]
    world_size: int = 1
    ended: bool = False
    stretches: list[_Told] = field(default_factory=list)
    of_attempt: dict[str, _Told] = field(default_factory=dict)
    planned: list[Planned] = field(default_factory=list)

    def started(self, fact: RunStarted) -> None:
        if fact.attempt_id in self.of_attempt:
            return
        self.world_size, self.ended = fact.world_size, False
        if fact.reason == "rollback" or not self.stretches:
            self.stretches.append(_Told(fact.first_step))
        else:
            self._restarted(fact.first_step)
        self.of_attempt[fact.attempt_id] = self.stretches[-1]

    def _restarted(self, first_step: int) -> None:
        """A fresh process goes on from here: what lies behind is gone, rollbacks included."""
        while len(self.stretches) > 1 and self.stretches[-1].first_step > first_step:
            self.stretches.pop()
        self.stretches[-1].forget_from(first_step)
        here = len(self.stretches) - 1
        self.planned = [known for known in self.planned if (known.stretch, known.step) < (here, first_step)]

    def receipt(self, fact: InterventionReceipt) -> None:
        command = self.issued.get(fact.intervention_id)
        if command is None or fact.outcome != "applied" or isinstance(command.action, WITHOUT_EFFECT):
            return
        if not self.stretches or any(known.intervention_id == fact.intervention_id for known in self.planned):
            return
        self.planned.append(
            Planned(
                stretch=len(self.stretches) - 1,
                step=fact.step,
                intervention_id=fact.intervention_id,
                rule=command.rule,
                action=command.action,
            )
        )

    def batch(self, fact: StepBatch) -> None:
        told = self.of_attempt.get(fact.attempt_id)
        losses, norms = fact.metrics.get("loss"), fact.metrics.get("grad_norm")
        if told is None or (losses is None and norms is None):
            return
        for index, step in enumerate(fact.steps):
            told.row(step, losses[index] if losses else None, norms[index] if norms else None)


def plan_of(run_id: str, records: Iterable[Record], decisions: Iterable[AnyDecision]) -> Plan:
    """The plan of a run, from its log and what was decided of it."""
    issued = {one.intervention_id: one for one in decisions if isinstance(one, InterventionIssued)}
    reading = _Reading(issued)
    for record in records:
        match record.event:
            case RunStarted(rank=0) as fact:
                reading.started(fact)
            case InterventionReceipt(rank=0) as fact:
                reading.receipt(fact)
            case StepBatch(rank=0) as fact:
                reading.batch(fact)
            case RunEnded(rank=0):
                reading.ended = True
            case _:
                pass
    return Plan(
        run_id=run_id,
        world_size=reading.world_size,
        complete=reading.ended,
        interventions=tuple(reading.planned),
        stretches=tuple(told.stretch() for told in reading.stretches),
    )


def rollbacks(plan: Plan) -> list[int]:
    """The steps of the checkpoints that must be there again."""
    return [
        planned.action.checkpoint.step
        for planned in plan.interventions
        if isinstance(planned.action, Rollback) and planned.action.checkpoint is not None
    ]
