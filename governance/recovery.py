"""Which checkpoint is the last good one.

A checkpoint is a candidate when the run was stable while it was saved; it is *good for an incident* when it is older
than the incident's onset, the first evidence, and was not rejected since. Called by `stream_processors.judging` as
checkpoints are announced, and by `decide` when a rollback is proposed.
"""

import msgspec

from ..events.actions import CheckpointRef
from ..events.decisions import CheckpointRejected
from .desk import Desk

KEPT = 16
KEPT_BYTES = 12_000
"""Candidates remembered per run, in number and in bytes; the oldest is forgotten first."""
MOST_SPARED = 2
"""Where only so many are left and one must go, it is the one of the lowest validation loss."""


class Candidate(msgspec.Struct):
    """A saved checkpoint, and what the run was like at that step. What is `by_script` no pilot can restore."""

    checkpoint_id: str
    step: int
    path: str
    manifest_sha256: str
    stable: bool
    rejected: bool = False
    by_script: bool = False

    def ref(self) -> CheckpointRef:
        return CheckpointRef(
            checkpoint_id=self.checkpoint_id, step=self.step, path=self.path, manifest_sha256=self.manifest_sha256
        )


def remember(candidates: list[Candidate], saved: Candidate, best: int | None = None) -> None:
    """Add a checkpoint, replacing one of the same id; bounded, and never at the price of the last stable one, nor of
    the last up to step `best`, where the validation loss was lowest (that one goes where there is no room for two).
    """
    candidates[:] = [known for known in candidates if known.checkpoint_id != saved.checkpoint_id] + [saved]
    while len(candidates) > KEPT or len(msgspec.msgpack.encode(candidates)) > KEPT_BYTES:
        newest = last_good(candidates, before=None) if len(candidates) > 1 else None
        lowest = last_good(candidates, before=best + 1) if best is not None and len(candidates) > MOST_SPARED else None
        candidates.remove(next(known for known in candidates if known is not newest and known is not lowest))


def last_good(candidates: list[Candidate], before: int | None) -> Candidate | None:
    """The newest stable candidate saved before step `before` (an incident's onset); None when there is none."""
    newest = None
    for known in candidates:
        is_good = known.stable and not known.rejected and (before is None or known.step < before)
        if is_good and (newest is None or known.step > newest.step):
            newest = known
    return newest


def good_before(candidates: list[Candidate], onset: int, back: int) -> Candidate | None:
    """The last good one that a pilot can restore, from at least `back` steps before an incident's onset; where all are
    younger, the oldest.
    """
    restorable = [known for known in candidates if not known.by_script]
    far = last_good(restorable, before=onset - back)
    if far is not None or back == 0:
        return far
    good = [known for known in restorable if known.stable and not known.rejected and known.step < onset]
    return min(good, key=lambda known: known.step, default=None)


def rewound(candidates: list[Candidate], step: int) -> list[Candidate]:
    """What is left of the candidates once the run went back to `step`: newer ones belong to an abandoned lineage."""
    return [known for known in candidates if known.step <= step]


def forget(candidates: list[Candidate], checkpoint_id: str) -> None:
    """It was removed in its time."""
    candidates[:] = [known for known in candidates if known.checkpoint_id != checkpoint_id]


def pass_over(candidates: list[Candidate], checkpoint_id: str, reason: str, desk: Desk) -> bool:
    """Never offer this checkpoint again, and say so; whether it was a candidate until now."""
    unusable = reject(candidates, checkpoint_id)
    if unusable is None:
        return False
    desk.decide(CheckpointRejected, checkpoint_id, checkpoint=unusable.ref(), reason=reason)
    return True


def reject(candidates: list[Candidate], checkpoint_id: str) -> Candidate | None:
    """Never offer this checkpoint again; None when it is not known."""
    for known in candidates:
        if known.checkpoint_id == checkpoint_id and not known.rejected:
            known.rejected = True
            return known
    return None
