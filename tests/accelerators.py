"""Tensors that say they are on an accelerator, where there is none: real tensors whose every operator is handed to us
before any kernel, and noted with the thread that asked. `FakeCuda` is a device that does its work when it is told to.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_map

Asked = list[tuple[int, str]]


QUEUES: dict[torch.device, "FakeCuda"] = {}


class OnAccelerator(torch.Tensor):
    """A tensor on a device that only we have: `asked` tells which thread asked it for which operator."""

    asked: Asked
    held: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor, asked: Asked, device: str = "xpu") -> "OnAccelerator":
        made: OnAccelerator = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device=torch.device(device)
        )
        made.held, made.asked = inner, asked
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # as PyTorch calls it; its own stub leaves the operator out
        cls, operator: Any, _types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        ours = [one for one in tree_flatten(args)[0] if isinstance(one, OnAccelerator)]
        to = {"device": ours[0].device} | (kwargs or {})
        device = to.pop("device")
        if (queue := QUEUES.get(device)) is not None and operator is torch.ops.aten.copy_.default:
            return queue.enqueue(args[0], ours[0].held.clone(), args[2] if len(args) > 2 else to.get("non_blocking"))
        ours[0].asked.append((threading.get_ident(), str(operator)))
        if len({one.device for one in ours}) > 1 and "copy" not in str(operator):
            raise RuntimeError(f"{operator}: tensors on two devices")
        inner = operator(*tree_map(lambda one: one.held if isinstance(one, OnAccelerator) else one, args), **to)
        return OnAccelerator(inner, ours[0].asked, str(device)) if isinstance(inner, torch.Tensor) else inner


class FakeCuda:
    """What `torch.cuda` is to us: copies and events that are enqueued, and done in their order by `work`."""

    def __init__(self, patch: pytest.MonkeyPatch, device: str = "cuda:0") -> None:
        self.asked: Asked = []
        self.pinned: list[int] = []
        self.device = torch.device(device)
        self._todo: deque[Callable[[], object]] = deque()
        empty, cuda = torch.empty, self

        def pinned_empty(*size: int, pin_memory: bool = False, **more: Any) -> torch.Tensor:
            if pin_memory:
                self.pinned.append(size[0])
            return empty(*size, **more)

        class Event:
            def __init__(self) -> None:
                self._done = False

            def record(self) -> None:
                cuda._note("record")
                assert cuda._current == cuda.device
                cuda._todo.append(lambda: setattr(self, "_done", True))

            def query(self) -> bool:
                cuda._note("query")
                return self._done

            def synchronize(self) -> None:
                cuda._note("synchronize")

        self._current: torch.device | None = None
        patch.setitem(QUEUES, self.device, self)
        patch.setattr(torch, "empty", pinned_empty)
        patch.setattr(torch.cuda, "Event", Event)
        patch.setattr(torch.cuda, "device", self._inside)
        patch.setattr(torch.cuda, "synchronize", lambda *_: self._note("synchronize"))

    def scalar(self, value: float, dtype: torch.dtype = torch.float32) -> OnAccelerator:
        return OnAccelerator(torch.tensor(value, dtype=dtype), self.asked, str(self.device))

    def enqueue(self, place: torch.Tensor, value: torch.Tensor, non_blocking: object) -> torch.Tensor:
        self._note("copy" if non_blocking else "synchronous copy")
        self._todo.append(lambda: place.copy_(value))
        return place

    def work(self, count: int = 1_000_000) -> None:
        """Do so much of what was enqueued."""
        for _ in range(min(count, len(self._todo))):
            self._todo.popleft()()

    def words(self, thread: int) -> list[str]:
        """What this thread asked, in its order."""
        return [operator for asking, operator in self.asked if asking == thread]

    @contextmanager
    def _inside(self, device: torch.device) -> Iterator[None]:
        before, self._current = self._current, device
        yield
        self._current = before

    def _note(self, word: str) -> None:
        self.asked.append((threading.get_ident(), word))
