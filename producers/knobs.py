"""Named things that may be set from outside: the gradient clip, dropout, a loss weight. Turned by
`producers.actuators`.

A script names them in `run.pilot(..., knobs={...})`, in whichever form is at hand: a `Knob` with getter, setter and
limits; a bare setter; or a number, which the pilot then keeps and the loop reads back (`pilot.knob("clip")`).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Knob:
    """How to set one thing, how to read it (None: only what was last set is known), and between which values it makes
    sense.
    """

    set: Callable[[float], object]
    get: Callable[[], float] | None = None
    low: float = -math.inf
    high: float = math.inf


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
        return float(get()) if get is not None else self._known.get(name)

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

    def turn_back(self, name: str, value: float | None) -> None:
        """Undo a turn: to what it was, where that is known."""
        self.turned.pop(name, None)
        if value is not None:
            self._knobs[name].set(value)
            self._known[name] = value

    def _add(self, name: str, knob: Knob | Callable[[float], object] | float) -> None:
        if isinstance(knob, Knob):
            self._knobs[name] = knob
        elif callable(knob):
            self._knobs[name] = Knob(knob)
        else:
            self._known[name] = float(knob)
            self._knobs[name] = Knob(set=lambda value: self._known.__setitem__(name, value))
