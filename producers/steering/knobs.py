"""Named things that may be set from outside: the gradient clip, weight decay, dropout, a loss weight. Turned by
`steering.actuators`.

A script names them in `run.pilot(..., knobs={...})`, in whichever form is at hand: a `Knob` with getter, setter and
limits; a bare setter; or a number, which the pilot then keeps and the loop reads back (`pilot.knob("clip")`). Weight
decay and dropout need no naming: `steering.found_knobs` finds them in the optimizers and the model.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

CLIP, WEIGHT_DECAY, DROPOUT = "clip", "weight_decay", "dropout"
Undo = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Knob:
    """How to set one thing, how to read it (None: only what was last set is known), and between which values it makes
    sense.

    `keep` gives a function that puts back exactly what is there now, for what one number cannot say. `restored`: it
    lives in what a checkpoint restores, and must be set again after that.
    """

    set: Callable[[float], object]
    get: Callable[[], float | None] | None = None
    low: float = -math.inf
    high: float = math.inf
    keep: Callable[[], Undo] | None = None
    restored: bool = False


class Knobs:
    """The knobs of one trainer, with what is known of their values."""

    def __init__(self, given: Mapping[str, Knob | Callable[[float], object] | float]) -> None:
        self._knobs: dict[str, Knob] = {}
        self._known: dict[str, float] = {}
        self.turned: dict[str, float] = {}
        for name, knob in given.items():
            self._add(name, knob)

    def __contains__(self, name: str) -> bool:
        return name in self._knobs

    def value(self, name: str) -> float | None:
        """Its value now; None where there is no getter and nothing was set yet."""
        get = self._knobs[name].get
        if get is None:
            return self._known.get(name)
        value = get()
        return None if value is None else float(value)

    def refusal(self, name: str, value: float) -> str | None:
        """Why it may not be set to this; None when it may."""
        knob = self._knobs.get(name)
        if knob is None:
            return f"this trainer has no knob {name!r}; it has: {', '.join(sorted(self._knobs)) or 'none'}"
        if not knob.low <= value <= knob.high:
            return f"{name} = {value:g} is outside this trainer's {knob.low:g} to {knob.high:g}"
        return None

    def turn(self, name: str, value: float) -> None:
        """Set it. Raises what its setter raises."""
        self._knobs[name].set(value)
        self._known[name] = value
        self.turned[name] = value

    def undoing(self, name: str) -> Undo:
        """What undoes the next turn: all is as it is now, as far as that is known."""
        knob, was, turned = self._knobs[name], self.value(name), self.turned.get(name)
        exact = knob.keep() if knob.keep is not None else None

        def undo() -> None:
            self.turned.pop(name, None)
            if turned is not None:
                self.turned[name] = turned
            if was is not None:
                self._known[name] = was
            if exact is not None:
                exact()
            elif was is not None:
                knob.set(was)

        return undo

    def turn_again(self) -> None:
        """After a checkpoint was restored: what was turned since is still in force."""
        for name, value in self.turned.items():
            if self._knobs[name].restored:
                self._knobs[name].set(value)

    def _add(self, name: str, knob: Knob | Callable[[float], object] | float) -> None:
        if isinstance(knob, Knob):
            self._knobs[name] = knob
        elif callable(knob):
            self._knobs[name] = Knob(knob)
        else:
            self._known[name] = float(knob)
            self._knobs[name] = Knob(set=lambda value: self._known.__setitem__(name, value))
