"""How stable a run has been, from its first judged step to now: one number from 0 to 100, the product of four shares.

    stability_score = 100 x availability x quality x yield x calm

- availability: of the seconds in which the run trained or should have, those in which it was not stalled;
- quality: the mean worth of a judged step, by the phase it left the run in (`WORTH`, in quarters);
- yield: of the judged steps, those that no rollback or restart undid;
- calm: steps / (steps + `INCIDENT_STEPS` x incidents): every incident weighs as much as the steps for which a recovery
  is verified, however short it was, for somebody had to look.

The first three are those of the overall equipment effectiveness of a plant (Nakajima, Introduction to TPM, 1988),
which the goodput of a training cluster (effective training time ratio: Kokolis et al., arXiv:2410.21680) is made of as
well. No step is ever worth more than one, so nothing makes up for what was lost but going on well. Steps of a phase in
which nothing is known (`Unknown`) count for nothing, neither way. Kept by `stream_processors.judging` and `fold`.
"""

import msgspec

from ..events.decisions import Phase

WORTH: dict[Phase, int] = {
    "Normal": 4,
    "Warmup": 4,
    "Stressed": 3,
    "Recovering": 2,
    "Unstable": 1,
    "Stalled": 0,
    "Diverged": 0,
}
WHOLE = 4
INCIDENT_STEPS = 20
"""As many as `autonomous` verifies a recovery for."""


class Score(msgspec.Struct):
    """What the score is counted from. `worth` is in quarters of a step, `trained` and `stalled` are seconds; `attempt`
    counts the steps of this attempt, which go from `first_step` to `last_step`.
    """

    steps: int = 0
    worth: int = 0
    attempt: int = 0
    first_step: int = 0
    last_step: int = 0
    undone: int = 0
    incidents: int = 0
    trained: int = 0
    stalled: int = 0

    def judged(self, step: int, phase: Phase) -> None:
        """One more step, which left the run in this phase."""
        worth = WORTH.get(phase)
        if worth is None:
            return
        if not self.attempt:
            self.first_step = step
        self.last_step = step
        self.steps += 1
        self.attempt += 1
        self.worth += worth

    def passed(self, phase: Phase) -> None:
        """One more second in this phase."""
        if phase == "Stalled":
            self.stalled += 1
        elif phase in WORTH:
            self.trained += 1

    def went_back(self, kept_step: int) -> None:
        """Another attempt goes on behind `kept_step`. Rows need not be one step apart: of the rows of the attempt so
        large a share is undone as of its steps.
        """
        steps, lost = self.last_step - self.first_step + 1, max(0, self.last_step - kept_step)
        if self.attempt:
            self.undone += min(self.attempt * lost // steps, self.steps - self.undone)
        self.attempt = 0

    @property
    def stability(self) -> float | None:
        """From 0 to 100; None before anything was judged."""
        if not self.steps:
            return None
        seconds = self.trained + self.stalled
        availability = self.trained / seconds if seconds else 1.0
        quality = self.worth / (WHOLE * self.steps)
        kept = 1.0 - self.undone / self.steps
        calm = self.steps / (self.steps + INCIDENT_STEPS * self.incidents)
        return 100.0 * availability * quality * kept * calm
