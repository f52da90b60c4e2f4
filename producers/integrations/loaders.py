"""A framework's data loader, made to drop batches when it is told to: for loops that ask nobody but their loader.

Used by the Hugging Face and Lightning adapters. The loader stays the very object that it was, of a subclass of its
class: frameworks look at both.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..steering.pilot import Pilot


class _Epoch:
    """What the loader would have given, once: no length and no `set_epoch`, for those are the framework's business."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        return self._batches


def let_drop(loader: Any, pilot_of: "Callable[[], Pilot | None]") -> bool:
    """From its next epoch on `loader` drops what its pilot is ordered to skip, once there is one. Whether it can."""
    kind = type(loader)
    if not hasattr(loader, "__dict__") or not hasattr(kind, "__iter__"):
        return False

    def __iter__(self: Any) -> Iterator[Any]:  # noqa: N807  # it is that method of a class that is made here
        return _dropping(iter(kind.__iter__(self)), pilot_of)

    dropping = type(kind.__name__, (kind,), {"__iter__": __iter__, "__module__": kind.__module__})
    try:
        # Past the property of that name with which Accelerate's loaders pretend to be another class.
        object.__dict__["__class__"].__set__(loader, dropping)
    except TypeError:  # a class with a layout of its own
        return False
    return True


def _dropping(epoch: Iterator[Any], pilot_of: "Callable[[], Pilot | None]") -> Iterator[Any]:
    while (pilot := pilot_of()) is None:
        try:
            batch = next(epoch)
        except StopIteration:
            return
        yield batch
    yield from pilot.data(_Epoch(epoch), fresh=True)
