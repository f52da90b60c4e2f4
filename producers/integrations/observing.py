"""One training step as its optimizer tells it: the loss that was differentiated, the gradient's norm, the learning
rate, the time it took.

`watching.Watch` (and `attach.session`) hang `begin` and `end` on the optimizers' steps and get what each was by
`on_step`; `taps` brings the rest. Nothing is read from a device here, and no pass over the gradients is made that the
script makes itself: where it clips, its own norm is taken.

`loss` is the sum of the scalars differentiated since the last step, which is the function that the step descends: with
gradient accumulation the mean that the script made it, with several losses their sum. What `zero_grad` threw away does
not count.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..checkpoints.sharding import is_flat, is_sharded
from ..steering.knobs import Knob
from . import taps

OnStep = Callable[[Any, dict[str, Any]], None]
Changed = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(slots=True)
class Gathered:
    """What was heard since the last step. `covered`: of how many gradients `norm` is the norm."""

    loss: Any = None
    losses: int = 0
    norm: Any = None
    covered: int = 0
    clipped: bool = False


class StepObserver:
    """Gathers, for all optimizers of one training thread. `norms`: measure the norm where the script does not.
    `failed` is called once, when a fault of ours has ended the gathering.
    """

    def __init__(self, on_step: OnStep, failed: Callable[[Exception], None], norms: bool = True) -> None:
        self.failed = failed
        self._on_step = on_step
        self._norms = norms
        self._heard = Gathered()
        self._running: list[Any] = []
        self._rows: dict[int, dict[str, Any]] = {}
        self._last_end: dict[int, float] = {}
        self.clip: float | None = None
        self.own_clip: float | None = None
        self.losses = 0
        self.skipped = 0

    def listen(self) -> None:
        taps.listen(self)

    def leave(self) -> None:
        taps.leave(self)

    # -------------------------------------------------------------------------------------------------- what taps says

    def differentiated(self, loss: Any) -> None:
        heard = self._heard
        loss = (loss.float() if loss.element_size() < 4 else loss).reshape(())
        heard.loss = loss if heard.loss is None else heard.loss + _beside(loss, heard.loss)
        heard.losses += 1
        self.losses += 1

    def normed(self, gradients: int, norm: Any) -> None:
        if gradients >= self._heard.covered:
            self._heard.norm, self._heard.covered = norm, gradients

    def clip_at(self, max_norm: Any) -> Any:
        # What lies on a device cannot be known without waiting for it.
        own = float(max_norm) if getattr(getattr(max_norm, "device", None), "type", "cpu") == "cpu" else None
        if own is not None and not own < float("inf"):
            return max_norm  # it only measures
        self.own_clip = own
        self._heard.clipped = True
        return max_norm if self.clip is None else self.clip

    def dropped(self) -> None:
        if self._heard.losses:
            self.skipped += 1
        self._heard = Gathered()

    # --------------------------------------------------------------------------------------------- an optimizer's step

    def begin(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Changed | None:
        """Before the step; `args` are those of `step`, itself included. What it is to be called with instead."""
        if self._is_inner(optimizer):
            return None
        self._running = [optimizer]
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if not callable(closure):
            self._gradients_are_ready(optimizer)
            return None
        watched = self._watched(optimizer, closure)
        return ((args[0], watched, *args[2:]), kwargs) if len(args) > 1 else (args, {**kwargs, "closure": watched})

    def end(self, optimizer: Any) -> None:
        """After the step."""
        if not self._running or self._running[0] is not optimizer:
            return  # a step inside of another's, or one that began before we came
        self._running.clear()
        row = self._rows.pop(id(optimizer), {}) | _rate(optimizer)
        now = time.perf_counter()
        if (before := self._last_end.get(id(optimizer))) is not None:
            row["step_time_s"] = now - before
        self._last_end[id(optimizer)] = now
        self._on_step(optimizer, row)

    def clip_knob(self) -> Knob:
        """The clip as a knob: the script's own until it is set. Where it does not clip at all, we do."""

        def turn(value: float | None) -> None:
            self.clip = value

        def keep() -> Callable[[], object]:
            was = self.clip
            return lambda: turn(was)

        return Knob(turn, lambda: self.own_clip if self.clip is None else self.clip, low=0.0, keep=keep)

    def _is_inner(self, optimizer: Any) -> bool:
        """Whether this step is made by another optimizer's, as a wrapping optimizer makes it."""
        if not self._running or self._running[0] is optimizer:
            return False
        outer, frame = self._running[0], sys._getframe(1)
        while frame.f_back is not None:
            frame = frame.f_back
            if frame.f_code.co_name == "wrapper" and frame.f_locals.get("self") is outer:
                return True
        return False  # that one raised, and never ended

    def _watched(self, optimizer: Any, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The closure, which makes the gradients. Where it is called again (LBFGS), the first call is the step's."""
        first = True

        def watched() -> Any:
            nonlocal first
            answer = closure()
            self._gradients_are_ready(optimizer, row=first)
            first = False
            return answer

        return watched

    def _gradients_are_ready(self, optimizer: Any, row: bool = True) -> None:
        heard, self._heard = self._heard, Gathered()
        parameters = [
            parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.grad is not None
        ]
        flat = bool(parameters) and is_flat(parameters[0])
        to_clip = self.clip is not None and not heard.clipped and not flat
        norm, local = heard.norm if heard.covered >= len(parameters) else None, flat
        if norm is None and parameters and (to_clip or self._norms):
            # Of sharded gradients the whole norm takes a collective: made only where all ranks were ordered to clip.
            local = flat or (not to_clip and is_sharded(parameters[0].grad))
            norm = _norm([_local(parameter.grad) if local else parameter.grad for parameter in parameters])
        if row:
            self._rows[id(optimizer)] = _row(optimizer, heard, norm, local)
        if to_clip and norm is not None:
            _clip(parameters, self.clip, norm, _scale_of(optimizer))


def _beside(loss: Any, sum_so_far: Any) -> Any:
    """The loss where it can be added: PyTorch adds one on the CPU to any, but none of one accelerator to another's."""
    devices = loss.device, sum_so_far.device
    apart = devices[0] != devices[1] and all(device.type != "cpu" for device in devices)
    return loss.to(devices[1], non_blocking=True) if apart else loss


def _row(optimizer: Any, heard: Gathered, norm: Any, local: bool) -> dict[str, Any]:
    row: dict[str, Any] = {}
    if heard.loss is not None:
        row["loss"] = heard.loss
    if norm is not None:
        scale = _scale_of(optimizer)
        norm = norm if scale is None else norm / scale
        local = local or not all(placement.is_replicate() for placement in getattr(norm, "placements", ()))
        row["local_grad_norm" if local else "grad_norm"] = _local(norm)
    if heard.losses > 1:
        row["micro_batches"] = heard.losses
    return row


def _rate(optimizer: Any) -> dict[str, Any]:
    """The learning rate that the script set; asked after the step, when what we lent to it is given back."""
    rate = optimizer.param_groups[0].get("lr") if optimizer.param_groups else None
    return {} if rate is None else {"lr": rate.detach().clone() if hasattr(rate, "detach") else rate}


def _local(tensor: Any) -> Any:
    """This rank's part of a sharded tensor; any other as it is."""
    return tensor.to_local() if hasattr(tensor, "full_tensor") else tensor


def _scale_of(optimizer: Any) -> Any:
    """What a fused optimizer will divide its gradients by (`torch.amp.GradScaler` leaves it there); usually None."""
    return getattr(optimizer, "grad_scale", None)


def _norm(gradients: list[Any]) -> Any:
    """Their 2-norm, in one pass; None where PyTorch has none (a sparse gradient)."""
    import torch

    total_norm = taps.untapped("_get_total_norm")
    try:
        with torch.no_grad():
            if total_norm is not None:
                return total_norm(gradients, 2.0)
            return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(grad) for grad in gradients]))
    except (RuntimeError, TypeError, NotImplementedError):
        return None


def _clip(parameters: list[Any], at: float | None, norm: Any, scale: Any) -> None:
    """As `torch.nn.utils.clip_grad_norm_` does it, with the norm that is known already."""
    import torch

    with torch.no_grad():
        limit = at if scale is None else at * scale
        factor = _local(torch.clamp(limit / (norm + 1e-6), max=1.0))
        for parameter in parameters:
            _local(parameter.grad).mul_(factor.to(parameter.grad.device))
