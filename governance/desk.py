"""Where decisions are written while one record is folded: each gets its derived identity and the header they all
share.

Nothing is sent from here: the decisions are the fold's return value. `ordinals` is part of the run's state, so that
ids are the same in every replay.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

from ..events.envelope import LogPlace, derived_id
from ..events.union import AnyDecision

D = TypeVar("D", bound=AnyDecision)


@dataclass(slots=True)
class Header:
    """What all decisions of a run have in common at one moment."""

    run_id: str
    attempt_id: str
    attempt: int
    policy_hash: str


class Desk:
    """Collects the decisions of one record for one run."""

    def __init__(self, header: Header, basis: LogPlace, ordinals: dict[str, int]) -> None:
        self.header = header
        self.basis = basis
        self.ordinals = ordinals
        self.at = 0
        self.step = -1
        self.decisions: list[AnyDecision] = []

    def new_id(self, subject: str, trigger: str) -> str:
        """The next id about `subject`; `trigger` is what set it off.

        Counted by what stands before the subject's first slash, over the whole life of the run: the counters are few,
        and no id can come twice.
        """
        counter = subject.partition("/")[0]
        ordinal = self.ordinals[counter] = self.ordinals.get(counter, 0) + 1
        return derived_id(self.header.run_id, self.header.attempt_id, subject, trigger, ordinal)

    def decide(self, kind: type[D], subject: str, **fields: Any) -> D:
        """Write one decision about `subject`, triggered by the step or instant at which the desk stands."""
        decision: D = kind(
            at=self.at,
            run_id=self.header.run_id,
            attempt_id=self.header.attempt_id,
            attempt=self.header.attempt,
            decision_id=self.new_id(f"{kind.model_fields['kind'].default}/{subject}", f"step {self.step}"),
            basis=self.basis,
            step=self.step,
            policy_hash=self.header.policy_hash,
            **fields,
        )
        self.decisions.append(decision)
        return decision
