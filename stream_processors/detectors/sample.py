"""One step of the whole run, as `gathering` puts it together from what its ranks report: what every detector is fed."""

import msgspec

from .spread import Spread


class StepSample(msgspec.Struct, frozen=True):
    """One step of the whole run. `loss` and `grad_norm` are means over the lowest ranks that logged them, None where
    nobody did; `nonfinite` counts the NaNs and infinities among them over all ranks, `nonfinite_losses` those of the
    losses alone, and `bad_rank` is the lowest rank that has one (of the losses, if any is; -1: none has). `told` is
    what rank 0 said beside, under the names of `events.metric_names.TOLD`; `spreads` what the ranks say side by side,
    where there are several, by what is compared (`spread.OWN` and the others).
    """

    step: int
    at: int
    ranks: int
    loss: float | None
    grad_norm: float | None
    nonfinite: int
    told: dict[str, float] = {}
    spreads: dict[int, Spread] = {}
    nonfinite_losses: int = 0
    bad_rank: int = -1
