"""The ranks of one step against each other: who is slow, who disagrees, who is struck. Called by `features`."""

from operator import is_not

import msgspec

from . import agreement, apart, straggler
from .agreement import AgreementState
from .apart import ApartState
from .sample import StepSample
from .straggler import StragglerState


class RanksState(msgspec.Struct):
    """One of each; `seen` is what they said of the last step."""

    straggler: StragglerState = msgspec.field(default_factory=StragglerState)
    agreement: AgreementState = msgspec.field(default_factory=AgreementState)
    apart: ApartState = msgspec.field(default_factory=ApartState)
    seen: dict[str, float] = {}


def observe(state: RanksState, sample: StepSample) -> dict[str, float]:
    """What is known, the same object while it is the same; nothing of a run of one rank."""
    if not sample.spreads and not state.seen:
        return state.seen
    said = (state.straggler.seen, state.agreement.seen, state.apart.seen)
    now = (
        straggler.observe(state.straggler, sample),
        agreement.observe(state.agreement, sample),
        apart.observe(state.apart, sample),
    )
    if any(map(is_not, now, said)):
        state.seen = now[0] | now[1] | now[2]
    return state.seen


def restart(state: RanksState) -> None:
    """Another attempt of the run."""
    straggler.restart(state.straggler)
    agreement.restart(state.agreement)
    apart.restart(state.apart)
    state.seen = {}
