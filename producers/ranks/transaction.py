"""All or none: something every rank prepares, and that takes effect on every rank or on none.

Used by `steering.rollback` (load a checkpoint into memory; swap it in) and `steering.actuators` (a knob whose setter
may raise). The ranks stand at the same safe point, held there; whether all could prepare is one register of
`ranks.ballots`.
"""

from collections.abc import Callable

from .agreement import Verdict, read_verdict
from .ballots import Ballots


def all_or_none(ballots: Ballots, key: str, prepare: Callable[[], object], within: float) -> Verdict:
    """Prepare here and hear whether every rank could; blocks up to `within` seconds for the slowest rank.

    The reason of a refusal begins with the error's class and ends with its rank. Every rank that gets an answer gets
    the same one.

    Raises:
        BallotsLost: no answer; this rank cannot know, and must not take effect.
    """
    refusal = _attempt(prepare, ballots.rank)
    if refusal is not None:
        return read_verdict(ballots.settle(key, refusal.word(), within))
    ballots.agree(key)
    word = ballots.wait(key, within)
    if word is None:
        late = Verdict("late", f"not every rank was ready within {within:g} s (rank {ballots.rank} waited)")
        word = ballots.settle(key, late.word(), within)
    return read_verdict(word)


def _attempt(prepare: Callable[[], object], rank: int) -> Verdict | None:
    try:
        prepare()
    except Exception as error:  # noqa: BLE001  # whatever goes wrong here is this rank's no, told to all ranks and in the receipt
        return Verdict("refused", f"{type(error).__name__}: {str(error)[:2_000]} (rank {rank})")
    return None
