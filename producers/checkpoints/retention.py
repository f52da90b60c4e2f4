"""Which checkpoints are removed when another was saved. Pure: `checkpoints.store` looks, asks, and removes.

What decides a rollback must not depend on luck: while the disk holds a checkpoint that the governor would go back to,
it stays. The governor says once a second how far back the last good one lies (`RunAssessed`), and where an incident
began; `steering.control` hears it. Without a governor nobody goes back, and the newest are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Judgement(NamedTuple):
    """What the governor thinks of a run, as far as it matters here: the steps of the last checkpoints that it called
    `good`, the newest last, the onset of the incident that is open, and where the validation loss was lowest.
    """

    good: tuple[int, ...] = ()
    suspect_since: int | None = None
    best: int | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint on disk. `whole`: every file is there, in its size. `abandoned`: a rollback gave it up."""

    name: str
    step: int
    size_bytes: int
    whole: bool = True
    abandoned: bool = False


@dataclass(frozen=True, slots=True)
class Retention:
    """The newest `keep`; every one whose step `keep_every` divides; in all at most `max_bytes`."""

    keep: int
    keep_every: int | None = None
    max_bytes: int | None = None

    def doomed(self, known: Sequence[Kept], judged: Judgement) -> list[Kept]:
        """What goes, of what is there in the order in which it was saved. The newest never does, nor what a rollback
        may want: even where that is more than `max_bytes`.
        """
        spared = {known[-1].name, *_wanted_by_a_rollback(known, judged)} if known else set()
        alive = [one for one in known if not one.abandoned]
        stays = spared | {one.name for one in alive[-self.keep :]}
        stays |= {one.name for one in alive if self.keep_every and one.step % self.keep_every == 0}
        given_up = [one for one in known if one.abandoned]
        stays |= {one.name for one in given_up[max(0, len(given_up) - max(0, self.keep - len(alive))) :]}
        stays -= self._too_much([one for one in known if one.name in stays], spared)
        return [one for one in known if one.name not in stays]

    def _too_much(self, kept: Sequence[Kept], spared: set[str]) -> set[str]:
        """The oldest that must go for the others to have room, what was given up first."""
        left = sum(one.size_bytes for one in kept)
        gone = set()
        for one in sorted(kept, key=lambda one: not one.abandoned):
            if self.max_bytes is None or left <= self.max_bytes:
                break
            if one.name not in spared:
                gone.add(one.name)
                left -= one.size_bytes
        return gone


def _wanted_by_a_rollback(known: Sequence[Kept], judged: Judgement) -> set[str]:
    usable = [one for one in known if one.whole and not one.abandoned]
    wanted = [[one for one in usable if one.step == step] for step in judged.good]
    if judged.suspect_since is not None:
        wanted.append([one for one in usable if one.step < judged.suspect_since])
    if judged.best is not None:
        wanted.append([one for one in usable if one.step <= judged.best])
    return {found[-1].name for found in wanted if found}
