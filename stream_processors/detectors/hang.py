"""Has the run stopped? How long nothing ended, against how long it usually takes this run until something does.

Time is counted in Ticks (seconds), for nothing finer is known of what arrives between two of them; so whatever happens
within one Tick, in whichever order its records come, is one thing. A *wait* is the time between two Ticks in which
steps ended: it covers how long steps take as well as how rarely their rows are sent. Evaluations and checkpoints that
are announced have lengths of their own, and leave no trace in those of the steps.

Allowed are `FACTOR` times the usual longest: NVIDIA's resiliency extension takes five times the longest interval that
it has seen (NVRx, `TimeoutsCalc`, `safety_factor`); here it is a high quantile, so that one pause does not make the
detector blind. A pause that comes back is learned when it has come twice. Asked by `judging` at every Tick.
"""

import msgspec

FACTOR = 5.0
QUANTILE = 0.9
"""Of the last `WAITS` waits: what is usual at the longest."""
WAITS = 64
PAUSES = 16
PAUSE_FACTOR = 2.0
"""Allowed are also so many times the second longest of the last `PAUSES` pauses."""
LEAST = 30.0
"""Seconds in which nothing is called a hang: a collection of garbage, a checkpoint that nobody announced."""
FEW = 8
LEAST_EARLY = 300.0
"""... while fewer than `FEW` waits are known: a second compilation, the first evaluation."""
UNKNOWN = 1_800.0
"""Before any wait is known: PyTorch's own limit for what ranks wait for each other (`default_pg_timeout`)."""
LEAST_AWAY = 300.0
"""An evaluation or a checkpoint that was announced: those at the end of a training are longer than the others."""
UNKNOWN_AWAY = 7_200.0
TRAINING = ("train", "warmup")
AWAY = ("evaluate", "checkpoint")
"""The stages that have lengths of their own. In any other nothing is a hang: nobody knows how long they take."""


class Lengths(msgspec.Struct):
    """How long something took, in seconds, oldest first: the last times, and the times that it took far longer than
    usual.
    """

    last: list[int] = []
    pauses: list[int] = []
    usual: float = 0.0

    def learn(self, seconds: int) -> None:
        if self.last and seconds > max(LEAST, FACTOR * self.usual):
            self.pauses.append(seconds)
            del self.pauses[:-PAUSES]
        self.last.append(seconds)
        del self.last[:-WAITS]
        self.usual = float(sorted(self.last)[int(QUANTILE * (len(self.last) - 1))])

    def allowed(self, least: float) -> float:
        recurrent = sorted(self.pauses)[-2] if len(self.pauses) > 1 else 0
        return max(least, FACTOR * self.usual, PAUSE_FACTOR * recurrent)


class HangState(msgspec.Struct):
    """`began` is the Tick from which on nothing ended, -1 while nobody waits; `by_step` whether it was a step that
    ended then. `ended` and `moved` tell what happened since the last Tick; `ended_tick` and `entered_tick` when.
    `steps` counts to two.
    """

    began: int = -1
    by_step: bool = False
    ended: bool = False
    ended_tick: int = -1
    moved: bool = False
    entered_tick: int = -1
    steps: int = 0
    waits: Lengths = msgspec.field(default_factory=Lengths)
    away: dict[str, Lengths] = {}


class Wait(msgspec.Struct, frozen=True):
    """So many seconds nothing ended, of those allowed; usually it takes `usual` at the longest (0: not known yet)."""

    waited: float
    allowed: float
    usual: float

    @property
    def share(self) -> float:
        return self.waited / self.allowed


def stepped(state: HangState, tick: int) -> None:
    """A step ended."""
    state.ended, state.ended_tick = True, tick
    state.steps = min(state.steps + 1, 2)


def moved(state: HangState, stage: str, tick: int) -> None:
    """The job left this stage for another."""
    if stage in AWAY and 0 <= state.entered_tick < tick:
        state.away.setdefault(stage, Lengths()).learn(tick - state.entered_tick)
    state.moved, state.entered_tick = True, tick


def begin(state: HangState) -> None:
    """Another attempt: how long its steps take is not known yet. (What it does between them is the same.)"""
    state.began, state.by_step, state.ended, state.moved = -1, False, False, False
    state.entered_tick, state.steps = -1, 0
    state.waits = Lengths(pauses=state.waits.pauses)


def passed(state: HangState, stage: str, tick: int, *, heard: bool) -> Wait | None:
    """A second passed in this stage; None where there is nothing to wait for (or nobody to hear it from)."""
    if not heard or stage not in TRAINING + AWAY:
        state.began, state.ended, state.moved = -1, False, False
        return None
    _follow(state, stage, tick)
    waited = float(tick - state.began)
    if stage in AWAY:
        known = state.away.get(stage)
        allowed = UNKNOWN_AWAY if known is None else known.allowed(LEAST_AWAY)
        return Wait(waited, allowed, known.usual if known else 0.0)
    return Wait(waited, _allowed(state), state.waits.usual)


def _follow(state: HangState, stage: str, tick: int) -> None:
    """From when on nothing ended; and how long it took until something did."""
    if state.moved:
        state.began, state.by_step = max(state.entered_tick, state.ended_tick if state.ended else -1), False
    elif state.ended:
        waited = state.ended_tick - state.began
        if state.by_step and waited > 0 and stage in TRAINING:
            state.waits.learn(waited)
        state.began, state.by_step = state.ended_tick, True
    elif state.began < 0:
        state.began, state.by_step = tick, False
    state.ended, state.moved = False, False


def _allowed(state: HangState) -> float:
    known = len(state.waits.last)
    if not known:
        return LEAST_EARLY if state.steps > 1 else UNKNOWN  # several steps within one second: they are short
    return state.waits.allowed(LEAST if known >= FEW else LEAST_EARLY)
