"""Where PyTorch is told what a training step is made of, whoever wrote the loop: what is differentiated, what a
gradient scaler multiplied, at which norm gradients are clipped, and when they are thrown away.

`observing.StepObserver` listens. The functions of PyTorch that are wrapped (`torch.autograd.backward`, the two halves
of `clip_grad_norm_`, `GradScaler.scale`, `zero_grad`) do what they did (`tapping`). Inside a graph that torch.compile
traces they are not there at all.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from .tapping import Fallible, Taps, tracing

_MARK = "_pilothouse_unscaled"


class Listener(Fallible, Protocol):
    """What one observer hears, on the thread that trains."""

    def differentiated(self, loss: Any) -> None:
        """A gradient of this detached scalar was added to the gradients."""

    def normed(self, gradients: int, norm: Any) -> None:
        """The script computed the 2-norm of so many gradients together."""

    def clip_at(self, max_norm: Any) -> Any:
        """The script clips at this norm, a number or a tensor; the one to clip at instead."""

    def dropped(self) -> None:
        """Gradients were thrown away."""


class _Moment(threading.local):
    """What this thread is doing."""

    depth = 0
    scaler: Any = None


_moment = _Moment()


def _wrap_all() -> None:
    import torch
    from torch.nn.utils import clip_grad

    _taps.wrap(torch.autograd, "backward", _backward)
    # The halves of clip_grad_norm_, not itself: a script may have imported that by name before we came.
    _taps.wrap(clip_grad, "_get_total_norm", _get_total_norm)
    _taps.wrap(clip_grad, "_clip_grads_with_norm_", _clip_grads_with_norm)
    _taps.wrap(torch.amp.GradScaler, "scale", _scale)
    _taps.wrap(torch.optim.Optimizer, "zero_grad", _zero_grad)
    _taps.wrap(torch.nn.Module, "zero_grad", _zero_grad)


_taps: Taps[Listener] = Taps(_wrap_all)
listen, leave = _taps.listen, _taps.leave


def _backward(original: Callable[..., Any]) -> Callable[..., Any]:
    def backward(tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any) -> Any:
        if tracing() or _moment.depth:  # checkpointed layers differentiate inside of it: that is no loss
            return original(tensors, grad_tensors, *args, **kwargs)
        _moment.depth += 1
        try:
            answer = original(tensors, grad_tensors, *args, **kwargs)
        finally:
            _moment.depth -= 1
        scaler, _moment.scaler = _moment.scaler, None

        def say(listener: Listener) -> None:
            for loss in _losses(tensors, grad_tensors, scaler):
                listener.differentiated(loss)

        _taps.tell(say)
        return answer

    return backward


def _losses(tensors: Any, grad_tensors: Any, scaler: Any) -> list[Any]:
    """The scalars whose gradients were taken, as they were before a gradient scaler. An edge of the graph has no value:
    who differentiates one tells no loss.
    """
    import torch

    roots = (tensors,) if isinstance(tensors, torch.Tensor) else tuple(tensors)
    weights = (grad_tensors,) if isinstance(grad_tensors, torch.Tensor | None) else tuple(grad_tensors)
    weights += (None,) * (len(roots) - len(weights))
    found = []
    for root, weight in zip(roots, weights, strict=False):
        if not isinstance(root, torch.Tensor) or root.numel() != 1 or hasattr(root, "full_tensor"):
            continue
        loss = getattr(root, _MARK, None)
        if loss is None:
            loss = root.detach()
            if scaler is not None:
                loss = loss / scaler._get_scale_async()  # scaled first, then worked on: its mark is lost
        found.append(loss if weight is None else loss * weight.detach())
    return found


def _scale(original: Callable[..., Any]) -> Callable[..., Any]:
    def scale(self: Any, outputs: Any) -> Any:
        scaled = original(self, outputs)
        if scaled is not outputs and hasattr(outputs, "detach"):
            _moment.scaler = self
            with suppress(Exception):  # a tensor of somebody's own kind may take no mark: the scale is enough
                setattr(scaled, _MARK, outputs.detach())
        return scaled

    return scale


def _get_total_norm(original: Callable[..., Any]) -> Callable[..., Any]:
    def get_total_norm(tensors: Any, norm_type: float = 2.0, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(tensors, list):  # a generator can be read only once
            return original(tensors, norm_type, *args, **kwargs)
        norm = original(tensors, norm_type, *args, **kwargs)
        if not tracing() and float(norm_type) == 2.0:
            _taps.tell(lambda listener: listener.normed(len(tensors), norm))
        return norm

    return get_total_norm


def _clip_grads_with_norm(original: Callable[..., Any]) -> Callable[..., Any]:
    def clip_grads_with_norm(parameters: Any, max_norm: Any, *args: Any, **kwargs: Any) -> Any:
        def say(listener: Listener) -> None:
            nonlocal max_norm
            max_norm = listener.clip_at(max_norm)

        if not tracing():
            _taps.tell(say)
        return original(parameters, max_norm, *args, **kwargs)

    return clip_grads_with_norm


def _zero_grad(original: Callable[..., Any]) -> Callable[..., Any]:
    def zero_grad(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = original(self, *args, **kwargs)
        if not tracing():
            _taps.tell(lambda listener: listener.dropped())
        return answer

    return zero_grad


def untapped(name: str) -> Any:
    """PyTorch's own function of `torch.nn.utils.clip_grad`, past the listeners; None where there is none."""
    from torch.nn.utils import clip_grad

    return _taps.untapped(getattr(clip_grad, name, None))
