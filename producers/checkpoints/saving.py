"""A trainer's checkpoints: gathered from all ranks, written by rank 0, announced; and made ready to be restored on
every rank.

Called by `steering.actuators` (checkpoint_now, stop), `steering.rollback` and `steering.pilot` (every so many steps;
at a restart). Joins `checkpoints.trainer_state` (what) and `checkpoints.store` (where). Ranks other than 0 only send
a letter with the state of their random generators, and do not wait, unless the model's state is spread over them.
"""

import time
from collections.abc import Mapping
from typing import Any

from ...events.actions import CheckpointRef
from ...events.errors import CheckpointError, RestartRequired
from ...events.telemetry import CheckpointSaved, CheckpointUnavailable, Unavailable
from ..ranks.ballots import Ballots, BallotsLost
from ..teller import Teller
from ..voice import logger
from .manifest import Manifest, Standing
from .store import Checkpoints, name_of
from .trainer_state import Loaded, TrainerState, rng_letter

LETTER_SECONDS = 10.0
REASON_CHARS = 4_000


class Saving:
    """Saves and prepares checkpoints of one trainer, on each of its ranks."""

    def __init__(self, run: Teller, ballots: Ballots, checkpoints: Checkpoints, state: TrainerState) -> None:
        self._run = run
        self._ballots = ballots
        self._state = state
        self._letters = 0
        self.checkpoints = checkpoints
        self.parent_attempt_id: str | None = None

    def save(self, step: int, position: int, pilot: Mapping[str, Any]) -> CheckpointRef | None:
        """Save this step, on all ranks at the same step; on rank 0, what was saved.

        Raises:
            CheckpointError: it could not be written (rank 0).
        """
        self._letters += 1
        if self._ballots.rank != 0:
            # The letter first: rank 0 waits for it before it takes its own part in the collective.
            self._ballots.send(self._letter_of(self._ballots.rank), rng_letter())
            self._state.take_part()
            return None
        self._run.stage("checkpoint", step)
        try:
            return self._save(step, position, pilot)
        finally:
            self._run.stage("train", step)

    def prepare(self, ref: CheckpointRef) -> tuple[Manifest, Loaded]:
        """Verify a checkpoint and read it into memory; nothing of the trainer is touched.

        Raises:
            CheckpointError: it is missing, corrupt, or of another trainer.
        """
        manifest, files = self.checkpoints.load(ref)
        return manifest, self._state.prepare(files, self._ballots.rank)

    def install(self, loaded: Loaded) -> None:
        """Become what was prepared.

        Raises:
            RestartRequired: it failed half-way; this process must not train on.
        """
        try:
            self._state.install(loaded)
        except Exception as error:  # whatever it is: the trainer is neither what it was nor what it should be
            raise RestartRequired(
                f"a checkpoint was restored only in part, so this rank cannot go on: {error}"
            ) from error

    def _save(self, step: int, position: int, pilot: Mapping[str, Any]) -> CheckpointRef:
        import torch

        began = time.monotonic()
        identity = self._run.identity
        standing = Standing(
            step=step,
            run_id=identity.run_id,
            attempt_id=identity.attempt_id,
            attempt=identity.attempt,
            parent_attempt_id=self.parent_attempt_id,
            data_position=position,
            torch_version=str(torch.__version__),
        )
        try:
            saved = self.checkpoints.save(self._state.parts(pilot, self._gather_letters()), standing)
        except CheckpointError as error:
            self.tell_unavailable(step, name_of(standing), "not_saved", str(error))
            raise
        self._run.tell(
            CheckpointSaved,
            step=step,
            checkpoint_id=saved.ref.checkpoint_id,
            path=saved.ref.path,
            manifest_sha256=saved.ref.manifest_sha256,
            size_bytes=saved.size_bytes,
            took_s=time.monotonic() - began,
        )
        for ref in saved.removed:
            self.tell_unavailable(ref.step, ref.checkpoint_id, "rotated", f"for {saved.ref.checkpoint_id}")
        return saved.ref

    def tell_unavailable(self, step: int, name: str, how: Unavailable, reason: str) -> None:
        """Say that nobody can go back to it (rank 0)."""
        path = str(self.checkpoints.directory / name)
        self._run.tell(
            CheckpointUnavailable, step=step, checkpoint_id=name, path=path, how=how, reason=reason[:REASON_CHARS]
        )

    def _gather_letters(self) -> dict[int, str]:
        """The generators of all ranks that answer in time; a checkpoint without some of them is better than none."""
        letters = {0: rng_letter()}
        deadline = time.monotonic() + LETTER_SECONDS
        try:
            for rank in range(1, self._ballots.voters):
                letter = self._ballots.receive(self._letter_of(rank), max(0.0, deadline - time.monotonic()))
                if letter is not None:
                    letters[rank] = letter
        except BallotsLost as error:
            logger.warning("pilothouse: this checkpoint is without the other ranks' random generators: %s", error)
        if len(letters) < self._ballots.voters:
            logger.warning(
                "pilothouse: only %d of %d ranks gave their generators' state", len(letters), self._ballots.voters
            )
        return letters

    def _letter_of(self, rank: int) -> str:
        # The attempt keeps apart what was sent before and after a rollback, the count two saves of one step.
        return f"rng/{self._run.identity.attempt_id}/{self._letters}/{rank}"
