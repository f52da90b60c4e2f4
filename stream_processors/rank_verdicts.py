"""From what ranks say side by side to the condition `Synchronized`: the judge of it, called as those of `verdicts` are.

A culprit is named wherever there is one; that ranks disagree and nobody knows which is right is said as well.
"""

from collections.abc import Mapping

from ..governance import conditions as judge
from ..governance.conditions import Condition, Verdict
from .detectors.agreement import LASTING, TOLERANCE
from .detectors.apart import FADES_IN
from .detectors.spread import FINE

DISAGREE_EVIDENCE = (
    "ranks_disagree", "disagreeing_rank", "disagreeing_ranks", "disagreeing_since", "weights_spread", "grads_spread",
    "ranks_reporting",
)  # fmt: skip
APART_EVIDENCE = ("rank_apart", "apart_rank", "apart_since", "apart_strikes", "apart_factor", "ranks_reporting")
IN_STEP = Verdict("True", "RanksAgree", "what must be equal on all ranks is, and none is apart from the others")


def synchronized(condition: Condition, seen: Mapping[str, float], _: int) -> Verdict:
    disagree, apart = seen.get("ranks_disagree"), seen.get("rank_apart")
    known = [x for x in (disagree, apart) if x is not None]
    if not known:
        return judge.unchanged(condition)
    x = max(known)
    if judge.hysteresis(condition, judge.SYNCHRONIZED, x) == "True":
        return IN_STEP
    if x < judge.SYNCHRONIZED.enter:  # on its way back
        return judge.unchanged(condition)
    return _ranks_disagree(seen) if disagree is not None and disagree >= judge.SYNCHRONIZED.enter else _rank_apart(seen)


def _ranks_disagree(seen: Mapping[str, float]) -> Verdict:
    since = seen["disagreeing_since"]
    evidence = judge.evidence(seen, DISAGREE_EVIDENCE, judge.SYNCHRONIZED, LASTING, since)
    evidence["tolerance"] = TOLERANCE / FINE
    width = max(seen.get("weights_spread", 0.0), seen.get("grads_spread", 0.0))
    rank, ranks = seen["disagreeing_rank"], seen["disagreeing_ranks"]
    if rank < 0:
        who = "there is no majority to say which is right"
    elif ranks > 1:
        who = f"about {ranks:.0f} ranks are apart from the others, rank {rank:.0f} the first of them"
    else:
        who = f"rank {rank:.0f} is apart from the others"
    what = "weights" if seen.get("weights_spread", 0.0) * FINE > TOLERANCE else "reduced gradients"
    message = f"the norm of the {what} was equal on all ranks and differs by {width:.2g} of itself"
    return Verdict("False", "RanksDisagree", f"{message} since step {seen['disagreeing_since']:.0f}; {who}", evidence)


def _rank_apart(seen: Mapping[str, float]) -> Verdict:
    rank, strikes = seen["apart_rank"], seen["apart_strikes"]
    message = (
        f"rank {rank:.0f} was far from the other ranks {strikes:.0f} times since step {seen['apart_since']:.0f}, "
        f"the last time by a factor of {seen['apart_factor']:.3g}, and no other rank as often: its arithmetic or its "
        "data may be corrupt"
    )
    evidence = judge.evidence(seen, APART_EVIDENCE, judge.SYNCHRONIZED, FADES_IN, seen["apart_since"])
    return Verdict("False", "RankApart", message, evidence)
