"""What steering needs of a run: who we are, and a way to tell. `producers.run.Run` is one; tests bring their own."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..events.actions import ActionKind
from ..events.envelope import TrainerFact
from ..events.telemetry import AttemptReason, Outcome, Stage
from .ranks.context import Identity


class Teller(Protocol):
    """One rank of a run, as far as `steering.pilot` and its parts use it."""

    identity: Identity

    def tell(self, fact: type[TrainerFact], **fields: Any) -> None:
        """Append a fact of this rank and attempt."""

    def begin_attempt(
        self, reason: AttemptReason, first_step: int, parent: str | None = None, attempt_id: str | None = None
    ) -> Identity:
        """What is told from here on belongs to another attempt."""

    def stage(self, stage: Stage, step: int | None = None) -> None:
        """The job does something else from here on."""

    def steers(self, actions: tuple[ActionKind, ...], values: Callable[[], Mapping[str, float]] = dict) -> None:
        """What this trainer can carry out, and what says which values are in force whenever an attempt is announced."""

    def ending(self, outcome: Outcome) -> None:
        """What to report if the script now ends without an error."""

    def timed(self, loader: Any) -> Any:
        """The loader, whose waiting is measured."""
