"""What a training loop does between its steps, as PyTorch is told it: waiting for a data loader, and changing between
training and evaluating.

`loop_time.LoopTime` listens. Any loader of `torch.utils.data` is heard, whoever iterates over it; of modules that are
set to a mode the outermost.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from .tapping import Fallible, Taps, tracing


class Listener(Fallible, Protocol):
    """What a watch hears, on the thread that does it."""

    def waited(self, since: float, until: float) -> None:
        """For data, by `time.perf_counter`."""

    def mode_set(self, module: Any, training: bool) -> None:
        """This module and all that it holds are to train, or to be evaluated."""


class _Moment(threading.local):
    """What this thread is doing."""

    waiting = False
    setting = False


_moment = _Moment()


def _wrap_all() -> None:
    import torch
    from torch.utils.data import dataloader

    _taps.wrap(dataloader.DataLoader, "__iter__", _waiting)  # starts the workers
    _taps.wrap(getattr(dataloader, "_BaseDataLoaderIter", None), "__next__", _waiting)
    _taps.wrap(torch.nn.Module, "train", _train)


_taps: Taps[Listener] = Taps(_wrap_all)
listen, leave = _taps.listen, _taps.leave


def _waiting(original: Callable[..., Any]) -> Callable[..., Any]:
    def waits(self: Any) -> Any:
        if _moment.waiting or tracing():  # a loader that reads from another
            return original(self)
        _moment.waiting = True
        began = time.perf_counter()
        try:
            return original(self)
        finally:
            _moment.waiting = False
            until = time.perf_counter()
            _taps.tell(lambda listener: listener.waited(began, until))

    return waits


def _train(original: Callable[..., Any]) -> Callable[..., Any]:
    def train(self: Any, mode: bool = True) -> Any:
        if _moment.setting or tracing():
            return original(self, mode)
        _moment.setting = True
        try:
            answer = original(self, mode)
        finally:
            _moment.setting = False
        _taps.tell(lambda listener: listener.mode_set(self, bool(mode)))
        return answer

    return train
