"""From what a training script logs to plain numbers, without waiting for a GPU and without raising.

Called by `producers.run` on the training thread, so the usual case (Python floats and ints under known names) is a loop
of a few comparisons. A tensor on the CPU is read at once, for the script may change it afterwards; one on a GPU is
copied asynchronously and read by `producers.outbox` when the copy is done. Neither PyTorch nor NumPy is imported here:
who logs their values has loaded them.
"""

import operator
import sys
from collections.abc import Mapping
from contextlib import suppress
from numbers import Real
from typing import Any, NamedTuple, Protocol

from .bad_calls import BadCalls
from .plain import shown, why

STEP_LIMIT = 2**62
PLAIN_INT = 2**63
MAX_NAMES = 1_000
MAX_NAME_LENGTH = 200
SCALARS = "a metric is one real number: a Python or NumPy number, or a tensor with one element"


class Deferred(Protocol):
    """A number that is still on its way from a device."""

    def ready(self) -> bool:
        """Whether `value` will answer at once."""

    def value(self) -> float:
        """The number."""


Number = float | int | Deferred


class Refused(NamedTuple):
    """Why a value is no metric."""

    reason: str
    message: str


class Admitted(NamedTuple):
    """What is left of a call: its good part. `deferred` repeats those of the metrics that have to be waited for."""

    step: int
    metrics: Mapping[str, Number]
    deferred: tuple[Deferred, ...] = ()


class Admission:
    """The door of `run.log`: lets the good part of a call through and counts the rest. One per run, for its names
    are bounded.
    """

    def __init__(self, bad_calls: BadCalls) -> None:
        self._bad_calls = bad_calls
        self._names: set[str] = set()

    def admit(self, step: object, extra: tuple[object, ...], metrics: dict[str, Any]) -> Admitted | None:
        """The good part of one call, or None where nothing is left of it."""
        if type(step) is int and 0 <= step < STEP_LIMIT and metrics and not extra and self._all_plain(metrics):
            return Admitted(step, metrics)
        return self._pick(step, extra, metrics)

    def numbers(self, metrics: dict[str, Any]) -> tuple[dict[str, Number], tuple[Deferred, ...]]:
        """The good ones among `metrics`, and those of them that are on their way."""
        good: dict[str, Number] = {}
        for name, value in metrics.items():
            number = read(value)
            if isinstance(number, Refused):
                self._bad_calls.add(number.reason, f"metric {name[:MAX_NAME_LENGTH]!r}: {number.message}")
            elif self._known(name):
                good[name] = number
        return good, tuple(number for number in good.values() if not isinstance(number, float | int))

    def step(self, step: object) -> int | None:
        """The step as an int, or None with the reason counted."""
        if type(step) is int and 0 <= step < STEP_LIMIT:
            return step
        with suppress(Exception):  # a stranger's __index__ may raise anything
            if _is_tensor(step) or "bool" in type(step).__name__:
                raise TypeError
            whole = operator.index(step)  # type: ignore[arg-type]  # what has no __index__ is what we ask about
            if 0 <= whole < STEP_LIMIT:
                return whole
        self._bad_calls.add("step", f"the step must be a whole number from 0, got {shown(step)}")
        return None

    def _all_plain(self, metrics: dict[str, Any]) -> bool:
        names = self._names
        for name, value in metrics.items():
            kind = type(value)
            if name not in names or not (kind is float or (kind is int and -PLAIN_INT < value < PLAIN_INT)):
                return False
        return True

    def _pick(self, step: object, extra: tuple[object, ...], metrics: dict[str, Any]) -> Admitted | None:
        if extra:
            self._bad_calls.add("call", "metrics are keywords: run.log(step, loss=...), or run.log(step, **metrics)")
        if step is None and "step" in metrics:
            step = metrics.pop("step")
        whole = self.step(step)
        if whole is None:
            return None
        good, deferred = self.numbers(metrics)
        if not good and not metrics and not extra:
            self._bad_calls.add("no_metrics", "run.log was called without any metric")
        return Admitted(whole, good, deferred) if good else None

    def _known(self, name: str) -> bool:
        if name in self._names:
            return True
        if not 0 < len(name) <= MAX_NAME_LENGTH or not _is_text(name):
            self._bad_calls.add(
                "metric_name", f"a metric's name is 1 to {MAX_NAME_LENGTH} characters, got {name!r:.60}"
            )
            return False
        if len(self._names) >= MAX_NAMES:
            message = f"a run has at most {MAX_NAMES} metric names; {name!r} and other new ones are dropped"
            self._bad_calls.add("metric_limit", message)
            return False
        self._names.add(name)
        return True


def read(value: object) -> Number | Refused:
    """The number in `value`, at once or on its way, or why there is none."""
    try:
        if type(value) is float or isinstance(value, Real):  # Python's and NumPy's numbers, bool, Fraction
            return float(value)
        if _is_tensor(value):
            return _read_tensor(value)
        if (numpy := sys.modules.get("numpy")) is not None and isinstance(value, numpy.generic | numpy.ndarray):
            return _read_array(value)
        if type(value).__name__ == "Decimal":
            return float(value)  # type: ignore[arg-type]  # Decimal is a number that is no Real
    except Exception as error:  # noqa: BLE001  # foreign conversions run here; none may reach the training loop
        return Refused("metric_type", f"reading {type(value).__name__} failed: {why(error)}")
    return Refused("metric_type", f"{type(value).__name__} is no number; {SCALARS}")


def _is_tensor(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, getattr(torch, "Tensor", ()))


def _is_text(name: str) -> bool:
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_array(value: Any) -> Number | Refused:
    if value.size != 1:
        return Refused("metric_shape", f"an array of shape {tuple(value.shape)}; {SCALARS}")
    if value.dtype.kind not in "biuf":
        return Refused("metric_type", f"an array of {value.dtype}; {SCALARS}")
    return float(value.item())


def _read_tensor(value: Any) -> Number | Refused:
    if hasattr(value, "full_tensor"):
        return Refused(
            "metric_type", "a DTensor: reading it would be a collective; log its .to_local() or .full_tensor()"
        )
    if value.numel() != 1:
        return Refused("metric_shape", f"a tensor of shape {tuple(value.shape)}; {SCALARS}")
    if value.is_complex():
        return Refused("metric_type", f"a tensor of {value.dtype}; {SCALARS}")
    if value.device.type == "cpu":
        return float(value.item())
    if value.device.type == "meta":
        return Refused("metric_type", "a tensor without data (device meta)")
    return OnCuda(value) if value.device.type == "cuda" else OnDevice(value)


class OnCuda:
    """A scalar on a CUDA device, copied into pinned memory behind the work that makes it: nobody waits for the GPU."""

    def __init__(self, tensor: Any) -> None:
        torch = sys.modules["torch"]
        scalar = tensor.detach().reshape(())
        self._host = torch.empty((), dtype=scalar.dtype, pin_memory=True)
        with torch.cuda.device(scalar.device):
            self._host.copy_(scalar, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def ready(self) -> bool:
        return bool(self._copied.query())

    def value(self) -> float:
        return float(self._host.item())


class OnDevice:
    """A scalar on another kind of device: kept as a copy there, read by the background thread, which may wait for
    it.
    """

    def __init__(self, tensor: Any) -> None:
        self._copy = tensor.detach().clone()

    def ready(self) -> bool:
        return True

    def value(self) -> float:
        return float(self._copy.item())
