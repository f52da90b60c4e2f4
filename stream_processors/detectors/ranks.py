"""The ranks of one step against each other: who is slow, who disagrees, who is struck. Called by `features`."""

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
    """What is known; nothing of a run of one rank."""
    if sample.spreads or state.seen:
        state.seen = (
            straggler.observe(state.straggler, sample)
            | agreement.observe(state.agreement, sample)
            | apart.observe(state.apart, sample)
        )
    return state.seen


def restart(state: RanksState) -> None:
    """Another attempt of the run."""
    straggler.restart(state.straggler)
    agreement.restart(state.agreement)
    apart.restart(state.apart)
    state.seen = {}
