"""Where PyTorch is told what a training step is made of, whoever wrote the loop: what is differentiated, what a
gradient scaler multiplied, at which norm gradients are clipped, and when they are thrown away.

`observing.StepObserver` listens. The functions of PyTorch that are wrapped (`torch.autograd.backward`, the two halves
of `clip_grad_norm_`, `GradScaler.scale`, `zero_grad`) do what they did; they are wrapped while somebody listens, and
put back after that. Inside a graph that torch.compile traces they are not there at all. A listener that stumbles hears
nothing more; the script's own call never notices.
"""

import functools
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

_MARK = "_pilothouse_unscaled"


class Listener(Protocol):
    """What one observer hears, on the thread that trains."""

    def differentiated(self, loss: Any) -> None:
        """A gradient of this detached scalar was added to the gradients."""

    def normed(self, gradients: int, norm: Any) -> None:
        """The script computed the 2-norm of so many gradients together."""

    def clip_at(self, max_norm: Any) -> Any:
        """The script clips at this norm, a number or a tensor; the one to clip at instead."""

    def dropped(self) -> None:
        """Gradients were thrown away."""

    def failed(self, error: Exception) -> None:
        """One of the calls above raised this: there will be no more of them."""


class _Wrapped(NamedTuple):
    owner: Any
    name: str
    original: Any
    wrapper: Any


class _Moment(threading.local):
    """What this thread is doing."""

    depth = 0
    scaler: Any = None


_listeners: list[Listener] = []
_wrapped: list[_Wrapped] = []
_moment = _Moment()


def listen(listener: Listener) -> None:
    """From now on this one hears."""
    _listeners.append(listener)
    if not _wrapped:
        _wrap_all()


def leave(listener: Listener) -> None:
    """It hears nothing more; PyTorch is as it was when the last one has left."""
    if listener in _listeners:
        _listeners.remove(listener)
    if _listeners:
        return
    for owner, name, original, wrapper in reversed(_wrapped):
        if getattr(owner, name, None) is wrapper:  # else somebody wrapped it again: it is theirs to undo
            setattr(owner, name, original)
    _wrapped.clear()


def _wrap_all() -> None:
    import torch
    from torch.nn.utils import clip_grad

    _wrap(torch.autograd, "backward", _backward)
    # The halves of clip_grad_norm_, not itself: a script may have imported that by name before we came.
    _wrap(clip_grad, "_get_total_norm", _get_total_norm)
    _wrap(clip_grad, "_clip_grads_with_norm_", _clip_grads_with_norm)
    _wrap(torch.amp.GradScaler, "scale", _scale)
    _wrap(torch.optim.Optimizer, "zero_grad", _zero_grad)
    _wrap(torch.nn.Module, "zero_grad", _zero_grad)


def _wrap(owner: Any, name: str, made: Callable[[Any], Any]) -> None:
    original = getattr(owner, name, None)
    if original is not None:  # a private one, which another version of PyTorch may not have
        wrapper = functools.wraps(original)(made(original))
        setattr(owner, name, wrapper)
        _wrapped.append(_Wrapped(owner, name, original, wrapper))


def _tell(say: Callable[[Listener], object]) -> None:
    for listener in tuple(_listeners):
        try:
            say(listener)
        except Exception as error:  # noqa: BLE001  # the script has called PyTorch, and gets what PyTorch answers
            leave(listener)
            listener.failed(error)


def _tracing() -> bool:
    import torch

    return torch.compiler.is_compiling()


def _backward(original: Callable[..., Any]) -> Callable[..., Any]:
    def backward(tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any) -> Any:
        if _tracing() or _moment.depth:  # checkpointed layers differentiate inside of it: that is no loss
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

        _tell(say)
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
        if not _tracing() and float(norm_type) == 2.0:
            _tell(lambda listener: listener.normed(len(tensors), norm))
        return norm

    return get_total_norm


def _clip_grads_with_norm(original: Callable[..., Any]) -> Callable[..., Any]:
    def clip_grads_with_norm(parameters: Any, max_norm: Any, *args: Any, **kwargs: Any) -> Any:
        def say(listener: Listener) -> None:
            nonlocal max_norm
            max_norm = listener.clip_at(max_norm)

        if not _tracing():
            _tell(say)
        return original(parameters, max_norm, *args, **kwargs)

    return clip_grads_with_norm


def _zero_grad(original: Callable[..., Any]) -> Callable[..., Any]:
    def zero_grad(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = original(self, *args, **kwargs)
        if not _tracing():
            _tell(lambda listener: listener.dropped())
        return answer

    return zero_grad


def untapped(name: str) -> Any:
    """PyTorch's own function of `torch.nn.utils.clip_grad`, past the listeners; None where there is none."""
    from torch.nn.utils import clip_grad

    found = getattr(clip_grad, name, None)
    return next((wrapped.original for wrapped in _wrapped if wrapped.wrapper is found), found)
