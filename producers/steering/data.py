"""The data's side of a run: batches counted over all epochs, of which some are dropped unread and none comes twice.

`Pilot.batches` draws from it. A position is a count of batches of this rank, from 0, over epochs; it never goes back
within a process, whatever the steps do: what a rollback leaves behind is not read again.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ...events.errors import UserMistake


class Drawn(NamedTuple):
    """A batch and its position."""

    position: int
    batch: Any


class BatchStream:
    """A loader, read on from `position`, epoch after epoch.

    Each epoch is announced to the loader's sampler by `set_epoch`, where it has that. With a length, whole epochs
    before `position` are not read; within an epoch, and without a length, what lies before it is read and dropped. The
    same batches come after a restart only if the loader gives the same order for the same epoch (a sampler with
    `set_epoch` and a seed does).
    """

    def __init__(self, loader: Iterable[Any], position: int = 0) -> None:
        self._loader = loader
        self._epoch = 0
        self._iterator: Iterator[Any] | None = None
        self._read_in_epoch = 0
        self.position = 0
        self._seek(position)

    def draw(self) -> Drawn | None:
        """The next batch of this epoch; None at its end."""
        if self._iterator is None:
            self._iterator = self._begin_epoch()
        try:
            batch = next(self._iterator)
        except StopIteration:
            return None
        self._read_in_epoch += 1
        self.position += 1
        return Drawn(self.position - 1, batch)

    def next_epoch(self) -> None:
        """Go on with the data from its start.

        Raises:
            UserMistake: the epoch that ends here gave no batch at all.
        """
        if self._read_in_epoch == 0:
            raise UserMistake(
                "the data loader gave no batch at all: is the data set empty, or drop_last larger than it?"
            )
        self._iterator = None
        self._epoch += 1
        self._read_in_epoch = 0

    def skip(self, count: int) -> tuple[int, int]:
        """Drop the next `count` batches unread, over the end of an epoch if need be; the first and last position
        dropped.
        """
        first = self.position
        while self.position < first + count:
            if self.draw() is None:
                self.next_epoch()
        return first, self.position - 1

    def _seek(self, position: int) -> None:
        length = length_of(self._loader)
        if length:
            self._epoch, self.position = position // length, position - position % length
        if self.position < position:
            self.skip(position - self.position)

    def _begin_epoch(self) -> Iterator[Any]:
        for owner in (
            self._loader,
            getattr(self._loader, "sampler", None),
            getattr(self._loader, "batch_sampler", None),
        ):
            announce = getattr(owner, "set_epoch", None)
            if announce is not None:
                announce(self._epoch)
                break
        return iter(self._loader)


def length_of(loader: Iterable[Any]) -> int | None:
    """How many batches an epoch has, where the loader knows."""
    try:
        return len(loader)  # type: ignore[arg-type]  # many loaders have no length, and say so by raising
    except (TypeError, NotImplementedError):
        return None
