"""How all ranks come to apply the same intervention at the same step, or none does: proposal, votes, verdict.

Called at every safe point by `steering.safe_point`; a state machine without I/O over the registers of
`ranks.ballots`.

- *Proposal* `p/n`: rank 0 names what is to be applied and the step `apply_at` ahead of it (its margin covers the time
  words take).
- *Vote*: a rank that hears of it at a safe point before `apply_at` checks it against its own fresh state and says yes,
  or settles the verdict itself: `refused` (with its reason) or `late` (it has already passed `apply_at`).
- *Verdict* `d/n`: a register, so the first word stands for all. `commit` is written by whoever counts the last yes.
- *Applied* at the first safe point at or past `apply_at`. A rank that said yes and gets there without having heard the
  verdict settles it: it writes `late` and does whatever stands. That is the only moment at which a rank waits: for one
  answer of one register, and only when an intervention is under way. No answer within `patience`: nothing is applied,
  and steering is over for this attempt.

Why no rank applies what another does not. (1) A rank applies n only if it read `commit` in d/n. (2) `commit` is written
only after every rank said yes, and each says so before its own `apply_at`. (3) After its yes a rank does not pass
`apply_at` without having read d/n, and d/n never changes. So if one reads `commit`, all read `commit`, and each acts on
it at its first safe point at or past `apply_at`: the same step wherever the ranks have safe points at the same steps.
(4) A rank looks at proposal n+1 only when n is behind it, so its checks see what n did. What is left: a rank cut off
from the registers for longer than `patience` after its yes cannot know. It does not apply, says so loudly, and never
votes again, so that nothing after it can commit anywhere. (Where the registers live on rank 0, training itself is at
its end by then.)
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from .ballots import COMMIT, Ballots, BallotsLost

VerdictKind = Literal["commit", "refused", "late", "left", "lost"]


class Verdict(NamedTuple):
    """What became of a proposal. `lost`: this rank cannot know; everything else is the same on all ranks."""

    kind: VerdictKind
    reason: str = ""

    @property
    def commit(self) -> bool:
        return self.kind == "commit"

    def word(self) -> str:
        return f"{self.kind}: {self.reason}" if self.reason else self.kind


def read_verdict(word: str) -> Verdict:
    """The verdict that stands in a register. Only the exact word commits; what nobody of us wrote refuses."""
    if word == COMMIT:
        return Verdict("commit")
    kind, _, reason = word.partition(": ")
    match kind:
        case "refused" | "late" | "left":
            return Verdict(kind, reason)
        case _:
            return Verdict("refused", f"unreadable verdict {word[:80]!r}")


@dataclass(frozen=True, slots=True)
class Proposal:
    """What rank 0 put before all: `body` is to be applied at `apply_at`. `final`: if it comes too late, it will not be
    tried again.
    """

    apply_at: int
    body: str
    final: bool = True

    def word(self) -> str:
        return json.dumps([self.apply_at, self.final, self.body])


def read_proposal(word: str) -> Proposal:
    """The proposal that stands in a register."""
    apply_at, final, body = json.loads(word)
    return Proposal(apply_at, body, final)


class Outcome(NamedTuple):
    """A proposal is done with at this safe point: apply it now (`commit`), or say why not."""

    proposal: Proposal
    verdict: Verdict


Judge = Callable[[Proposal], str | None]
"""Checks a proposal against this rank's fresh state: None to agree, or the reason why not."""


class Agreement:
    """One rank's part. `advance` once per safe point; `propose` on rank 0, when `idle`."""

    def __init__(self, ballots: Ballots, patience: float = 30.0) -> None:
        self._ballots = ballots
        self._patience = patience
        self._number = 1
        self._proposal: Proposal | None = None
        self._promised = False
        self._proposed = 0
        self.over = ""

    @property
    def idle(self) -> bool:
        """Nothing is before the ranks, as far as this one knows."""
        return self._proposed < self._number and self._proposal is None and not self.over

    def propose(self, proposal: Proposal) -> None:
        """Put something before all ranks (rank 0 alone may)."""
        self._proposed = self._number
        self._ballots.post(f"p/{self._number}", proposal.word())

    def advance(self, step: int, judge: Judge, *, attend: bool = False) -> Outcome | None:
        """This rank is at the safe point after `step`; what is done with now, if anything.

        `attend`: every rank knows that a proposal for this very step comes, and stands here until it is decided, for
        `patience` at most. It is in time here, for nobody passes `apply_at` before its verdict stands.

        Raises:
            BallotsLost: attended, and the registers are out of reach.
        """
        if self.over:
            return None
        if self._proposal is None:
            self._hear(step, judge, attend=attend)
        if self._proposal is None:
            self.over = self._ballots.lost
            return None
        return self._decided(self._proposal, step, attend=attend)

    def leave(self) -> Proposal | None:
        """The run ends here for this rank; what it had heard of and is not decided."""
        pending, self.over = self._proposal, self.over or "the run ended"
        if pending is not None:
            self._ballots.post(self._verdict_key, Verdict("left", f"rank {self._ballots.rank} left the run").word())
        return pending

    @property
    def _verdict_key(self) -> str:
        return f"d/{self._number}"

    def _hear(self, step: int, judge: Judge, *, attend: bool) -> None:
        key = f"p/{self._number}"
        word = self._ballots.wait(key, self._patience) if attend else self._ballots.value(key)
        if word is None:
            return
        proposal = self._proposal = read_proposal(word)
        rank = self._ballots.rank
        if step > proposal.apply_at or (step == proposal.apply_at and not attend):
            self._object(Verdict("late", f"rank {rank} was at step {step} when it heard of step {proposal.apply_at}"))
        elif (reason := judge(proposal)) is not None:
            self._object(Verdict("refused", f"rank {rank}: {reason}"))
        else:
            self._promised = True
            self._ballots.agree(self._verdict_key)

    def _object(self, verdict: Verdict) -> None:
        self._promised = False
        self._ballots.post(self._verdict_key, verdict.word())

    def _decided(self, proposal: Proposal, step: int, *, attend: bool) -> Outcome | None:
        key = self._verdict_key
        word = self._ballots.wait(key, self._patience) if attend else self._ballots.value(key)
        if word is None:
            if self._ballots.lost or (self._promised and step >= proposal.apply_at):
                return self._done(proposal, self._settle(step))
            return None
        verdict = read_verdict(word)
        if verdict.commit and step < proposal.apply_at:
            return None
        return self._done(proposal, verdict)

    def _settle(self, step: int) -> Verdict:
        late = Verdict("late", f"rank {self._ballots.rank} reached step {step} without every rank's word")
        try:
            return read_verdict(self._ballots.settle(self._verdict_key, late.word(), self._patience))
        except BallotsLost as error:
            self.over = str(error)
            return Verdict("lost", str(error))

    def _done(self, proposal: Proposal, verdict: Verdict) -> Outcome:
        self._proposal = None
        self._promised = False
        self._number += 1
        return Outcome(proposal, verdict)
