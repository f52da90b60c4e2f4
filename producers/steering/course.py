"""Where the loop stands and what it must do next: which step, which data, stop or go on.

The part of the pilot that a training loop sees: `Pilot.batches` iterates over it, `Pilot.safe_point` returns its
`Signal`. `steering.actuators` and `steering.rollback` change it.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ...events.telemetry import DataWindowSkipped
from ..teller import Teller
from .data import BatchStream, length_of


@dataclass(frozen=True, slots=True)
class Signal:
    """What a loop must do that does not iterate over `pilot.batches` (which does it by itself).

    `stop`: leave the loop. `rolled_back_to`: the trainer is now as it was after this step; the next is the one after
    it. `skip_batches`: drop so many batches of the data before the next step.
    """

    stop: bool = False
    rolled_back_to: int | None = None
    skip_batches: int = 0


class Course:
    """The next step, the data's position (batches drawn so far), and what interventions have ordered about both."""

    def __init__(self, run: Teller) -> None:
        self._run = run
        self._stream: BatchStream | None = None
        self._to_skip: deque[tuple[int, str]] = deque()
        self._rolled_back_to: int | None = None
        self._position = 0
        self._base = 0
        self._reads_data = False
        self.next_step = 0
        self.stopping = False

    @property
    def position(self) -> int:
        """How many batches of this rank's data were drawn or dropped."""
        return self._base + self._stream.position if self._stream is not None else self._position

    @property
    def rolled_back(self) -> bool:
        """Whether the loop has yet to hear of a rollback."""
        return self._rolled_back_to is not None

    def batches(self, loader: Iterable[Any], steps: int | None) -> Iterator[tuple[int, Any]]:
        """(step, batch), until step `steps` is reached, over as many epochs as that takes; without `steps` to the
        epoch's end.
        """
        stream = self._stream = BatchStream(loader, self._position)
        try:
            while not self.stopping and (steps is None or self.next_step < steps):
                if steps is not None:
                    self._skip_what_is_due(stream)
                elif not self._dropped_what_is_due(stream):
                    return
                drawn = stream.draw()
                if drawn is not None:
                    self.next_step += 1
                    yield self.next_step - 1, drawn.batch
                elif steps is None:
                    return
                else:
                    stream.next_epoch()
        finally:
            self._position, self._stream = stream.position, None

    def data(self, loader: Iterable[Any], fresh: bool = False) -> Iterator[Any]:
        """The batches alone, of one epoch, for a loop whose steps are counted elsewhere. `fresh`: the loader knows by
        itself where a restart left off.
        """
        anew = fresh or (self._reads_data and length_of(loader) is None)
        base = self._position if anew else 0
        self._stream, self._base = BatchStream(loader, 0 if anew else self._position), base
        stream, self._reads_data = self._stream, True
        try:
            while not self.stopping and self._dropped_what_is_due(stream):
                drawn = stream.draw()
                if drawn is None:
                    return
                yield drawn.batch
        finally:
            self._position, self._stream, self._base = base + stream.position, None, 0

    def skip(self, count: int, intervention_id: str) -> None:
        """Drop so many batches before the next is drawn."""
        if count:
            self._to_skip.append((count, intervention_id))

    def go_back_to(self, step: int) -> None:
        """The trainer is as after `step` again. The data is not: it never goes back."""
        self.next_step = step + 1
        self._rolled_back_to = step

    def continue_from(self, step: int, position: int) -> None:
        """A fresh process goes on after `step`, with the batch at `position`."""
        self.next_step = step + 1
        self._position = position

    def signal(self) -> Signal:
        """What the loop must know now; each order is given once."""
        back, self._rolled_back_to = self._rolled_back_to, None
        if self._stream is not None or self._reads_data:  # a loader that reads ahead may be at its epoch's end already
            return Signal(self.stopping, back)
        skip = sum(count for count, _ in self._to_skip)
        self._to_skip.clear()
        return Signal(self.stopping, back, skip)

    def _skip_what_is_due(self, stream: BatchStream) -> None:
        while self._to_skip:
            count, intervention_id = self._to_skip.popleft()
            first, last = stream.skip(count)
            self._tell_skipped(first, last, intervention_id)

    def _dropped_what_is_due(self, stream: BatchStream) -> bool:
        """Whether there was enough of it in this epoch; the rest of it is due in the next."""
        while self._to_skip:
            count, intervention_id = self._to_skip.popleft()
            first, dropped = self.position, 0
            while dropped < count and stream.draw() is not None:
                dropped += 1
            if dropped:
                self._tell_skipped(first, first + dropped - 1, intervention_id)
            if dropped < count:
                self._to_skip.appendleft((count - dropped, intervention_id))
                return False
        return True

    def _tell_skipped(self, first: int, last: int, intervention_id: str) -> None:
        self._run.tell(
            DataWindowSkipped,
            step=self.next_step,
            first_batch=first,
            last_batch=last,
            intervention_id=intervention_id,
        )
