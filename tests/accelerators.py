"""Tensors that say they are on an accelerator, where there is none: real tensors whose every operator is handed to us
before any kernel, and noted with the thread that asked.
"""

import threading
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map

Asked = list[tuple[int, str]]


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
        ours[0].asked.append((threading.get_ident(), str(operator)))
        to = {"device": ours[0].device} | (kwargs or {})
        device = to.pop("device")
        if len({one.device for one in ours}) > 1 and "copy" not in str(operator):
            raise RuntimeError(f"{operator}: tensors on two devices")
        inner = operator(*tree_map(lambda one: one.held if isinstance(one, OnAccelerator) else one, args), **to)
        return OnAccelerator(inner, ours[0].asked, str(device)) if isinstance(inner, torch.Tensor) else inner
