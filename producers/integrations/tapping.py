"""Functions of PyTorch, wrapped while somebody listens to their calls, and put back after that.

`taps` and `loop_taps` say which, and what is told of each. A listener that stumbles hears nothing more; the script's
own call never notices.
"""

import functools
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar


class Fallible(Protocol):
    """Whoever listens."""

    def failed(self, error: Exception) -> None:
        """Hearing one of the calls raised this: there will be no more of them."""


Listener = TypeVar("Listener", bound=Fallible)


class _Wrapped(NamedTuple):
    owner: Any
    name: str
    original: Any
    wrapper: Any


class Taps(Generic[Listener]):
    """Some functions, and who listens to their calls."""

    def __init__(self, wrap_all: Callable[[], None]) -> None:
        self._wrap_all = wrap_all
        self._listeners: list[Listener] = []
        self._wrapped: list[_Wrapped] = []

    def listen(self, listener: Listener) -> None:
        """From now on this one hears."""
        self._listeners.append(listener)
        if not self._wrapped:
            self._wrap_all()

    def leave(self, listener: Listener) -> None:
        """It hears nothing more; PyTorch is as it was when the last one has left."""
        if listener in self._listeners:
            self._listeners.remove(listener)
        if self._listeners:
            return
        for owner, name, original, wrapper in reversed(self._wrapped):
            if getattr(owner, name, None) is wrapper:  # else somebody wrapped it again: it is theirs to undo
                setattr(owner, name, original)
        self._wrapped.clear()

    def wrap(self, owner: Any, name: str, made: Callable[[Any], Any]) -> None:
        """Put what `made` makes of it in its place, if it is there: another version of PyTorch may not have it."""
        original = getattr(owner, name, None)
        if original is not None:
            wrapper = functools.wraps(original)(made(original))
            setattr(owner, name, wrapper)
            self._wrapped.append(_Wrapped(owner, name, original, wrapper))

    def tell(self, say: Callable[[Listener], object]) -> None:
        """Say it to everyone."""
        for listener in tuple(self._listeners):
            try:
                say(listener)
            except Exception as error:  # noqa: BLE001  # the script has called PyTorch, and gets what PyTorch answers
                self.leave(listener)
                listener.failed(error)

    def untapped(self, function: Any) -> Any:
        """PyTorch's own function, where this is a wrapper."""
        return next((wrapped.original for wrapped in self._wrapped if wrapped.wrapper is function), function)


def tracing() -> bool:
    """Whether torch.compile is reading the code: then nothing of ours may stand in it."""
    import torch

    return torch.compiler.is_compiling()
