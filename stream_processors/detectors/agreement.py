"""Whether what must be equal on all ranks is: the norm of replicated weights, and of gradients after their all-reduce.

Whether a norm is one of those is learned, for a sharded model's ranks have norms of their own: equal on all ranks at
`LEARNED` steps, at each of which it had moved, and it is held to that from then on, through restarts too. Equal is
within 1e-5, relatively: all-reduced sums are the same bits on every rank, and kernels that add in another order differ
by some 1e-7. Two steps in a row, and the ranks disagree.

Who is apart is said by majority: of the two ends, the one that is farther from the mean. Two ranks have no majority.
"""

import msgspec

from .sample import StepSample
from .spread import FINE, GRADS, WEIGHTS, Spread

TOLERANCE = int(1e-5 * FINE)
SURE = TOLERANCE // 4
"""So near each other must ranks be while it is learned whether they are equal; and a norm that changes by less has not
moved: one that is clipped is equal everywhere for another reason.
"""
LEARNED = 8
REFUTED = 3
"""So many unequal steps before that, and it is a norm of each rank's own."""
LASTING = 2
MAJORITY = 1.4
"""So many times farther from the mean is an end that is apart."""
OWN_NORMS = -1


class Equality(msgspec.Struct):
    """What is known of one norm. `equal` counts the steps that speak for it (`OWN_NORMS`: it is not), `unequal` those
    against it, `apart` how many steps in a row the ranks have disagreed, since step `since`. `unproven`: not seen to be
    equal since the attempt began. `level` is where it was at the last step that counted.
    """

    equal: int = 0
    unequal: int = 0
    unproven: bool = False
    level: int = 0
    apart: int = 0
    since: int = -1
    width: float = 0.0
    rank: int = -1
    ranks: int = 0

    @property
    def goes_on(self) -> bool:
        """Whether another step at which all agree changes nothing."""
        return self.equal >= LEARNED and self.apart == 0 and self.width == 0.0 and not self.unproven

    def observe(self, step: int, spread: Spread) -> None:
        held = self.equal >= LEARNED
        if spread.width <= (TOLERANCE if held else SURE):
            self._agrees(spread, held)
        elif held and not (self.unproven and minority(spread)[0] < 0):
            self._disagrees(step, spread)
        else:
            self.unequal += 1
            if self.unequal >= (LEARNED if held else REFUTED):
                self.equal, self.apart, self.width = OWN_NORMS, 0, 0.0

    def _agrees(self, spread: Spread, held: bool) -> None:
        self.apart, self.since, self.rank, self.ranks = 0, -1, -1, 0
        self.width, self.unproven = spread.width / FINE if spread.width > SURE else 0.0, False
        if not held and abs(spread.low - self.level) > SURE:
            self.equal, self.level = self.equal + 1, spread.low

    def _disagrees(self, step: int, spread: Spread) -> None:
        self.apart = min(self.apart + 1, LASTING)
        self.since = step if self.since < 0 else self.since
        self.width = spread.width / FINE
        self.rank, self.ranks = minority(spread)

    def restart(self) -> None:
        """Another attempt. What was never equal may be now, and what was must be, if most ranks are."""
        self.equal, self.unequal = max(self.equal, 0), 0
        self.unproven, self.apart, self.since = True, 0, -1
        self.width, self.rank, self.ranks = 0.0, -1, 0


class AgreementState(msgspec.Struct):
    """One for each of the norms."""

    weights: Equality = msgspec.field(default_factory=Equality)
    grads: Equality = msgspec.field(default_factory=Equality)
    seen: dict[str, float] = {}


def observe(state: AgreementState, sample: StepSample) -> dict[str, float]:
    """The features, once a norm is known to be equal on all ranks; `disagreeing_rank` is -1 where nobody is it."""
    compared = False
    for what, equality in ((WEIGHTS, state.weights), (GRADS, state.grads)):
        spread = sample.spreads.get(what)
        if spread is None or spread.count < 2 or equality.equal == OWN_NORMS:
            continue
        if not (spread.high - spread.low <= SURE and equality.goes_on):
            equality.observe(sample.step, spread)
            compared = True
    if compared and (now := _features(state)) != state.seen:
        state.seen = now
    return state.seen


def restart(state: AgreementState) -> None:
    """Another attempt."""
    state.weights.restart()
    state.grads.restart()
    state.seen = {}


def _features(state: AgreementState) -> dict[str, float]:
    held = [known for known in (state.weights, state.grads) if known.equal >= LEARNED]
    if not held:
        return {}
    worst = max(held, key=lambda known: known.apart)  # of two that are apart, the weights
    seen = {
        "ranks_disagree": worst.apart / LASTING,
        "disagreeing_rank": float(worst.rank),
        "disagreeing_ranks": float(worst.ranks),
        "disagreeing_since": float(worst.since),
    }
    for name, known in (("weights_spread", state.weights), ("grads_spread", state.grads)):
        if known.equal >= LEARNED:
            seen[name] = known.width
    return seen


def minority(spread: Spread) -> tuple[int, int]:
    """The first rank that is apart from most, and about how many are; (-1, 0) where there is no majority."""
    below, above = spread.mean - spread.low, spread.high - spread.mean
    if spread.count < 3 or max(below, above) < MAJORITY * min(below, above):
        return -1, 0
    share = min(below, above) / spread.width
    return spread.low_rank if below > above else spread.high_rank, max(1, round(share * spread.count))
