"""Putting back what an intervention changed, exactly as it was.

What one number cannot say (the weight decay of several groups) is kept as a function at the moment of the change, on
each rank its own; a process that was started since has the numbers that the command names. Used by
`steering.actuators`.
"""

import math
from collections.abc import Collection

from ...events.actions import LR, LR_MULTIPLIER, Revert
from .knobs import Undo
from .learning_rate import MULTIPLIER_MAX, MULTIPLIER_MIN
from .rollback import Trainer

KEPT = 8
"""So many of the last interventions are remembered as functions."""
CLOSE = 1e-6
"""Relative: a value that went through a tensor of single precision is still the same."""


def values_of(trainer: Trainer, names: Collection[str]) -> dict[str, float]:
    """What is in force now of these quantities, as far as it is known."""
    known = {name: trainer.knobs.value(name) for name in names if name in trainer.knobs}
    rates = {LR_MULTIPLIER: trainer.lr.value, LR: trainer.lr.learning_rate}
    known |= {name: rates[name] for name in names if name in rates}
    return {name: value for name, value in known.items() if value is not None}


class Undoing:
    """What undoes the last interventions of one rank."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._known: dict[str, Undo] = {}

    def of(self, names: Collection[str]) -> Undo:
        """What puts these quantities back to exactly what they are now."""
        trainer, steered, kept = self._trainer, self._trainer.lr.steered, set(names)
        undos = [trainer.knobs.undoing(name) for name in kept if name in trainer.knobs]

        def undo() -> None:
            if LR_MULTIPLIER in kept:
                trainer.lr.steered = steered
            for each in undos:
                each()

        return undo

    def remember(self, intervention_id: str, undo: Undo) -> None:
        """What will undo this intervention."""
        self._known[intervention_id] = undo
        while len(self._known) > KEPT:
            del self._known[next(iter(self._known))]

    def remembers(self, action: Revert) -> bool:
        """Whether what it puts back is known here, and not only by the command."""
        return action.intervention_id in self._known

    def refusal(self, action: Revert) -> str | None:
        """Why nothing is put back here; None where it can be."""
        steered = {LR_MULTIPLIER} if self._trainer.lr.learning_rate is not None else set()
        for name in action.values:
            if name not in self._trainer.knobs and name not in steered:
                return f"NotSteerable: this trainer has no {name} to put back"
        for name, now in values_of(self._trainer, action.left).items():
            left = action.left[name]
            if not math.isclose(now, left, rel_tol=CLOSE):
                return f"Changed: {name} is {now:g}, and was left at {left:g}: nothing is put back"
        return None if self.remembers(action) else self._unheard_of(action)

    def _unheard_of(self, action: Revert) -> str | None:
        """Why values that only the command knows are none that this trainer takes."""
        for name, value in action.values.items():
            if name != LR_MULTIPLIER:
                if (said := self._trainer.knobs.refusal(name, value)) is not None:
                    return said
            elif not MULTIPLIER_MIN <= value <= MULTIPLIER_MAX:
                return f"OutOfBounds: the learning rate's multiplier is {MULTIPLIER_MIN:g} to {MULTIPLIER_MAX:g}"
        return None

    def put_back(self, action: Revert) -> None:
        """Do it. Raises what a setter raises."""
        undo = self._known.pop(action.intervention_id, None)
        if undo is not None:
            undo()
            return
        for name, value in action.values.items():
            if name == LR_MULTIPLIER:
                self._trainer.lr.value = value
            else:
                self._trainer.knobs.turn(name, value)
