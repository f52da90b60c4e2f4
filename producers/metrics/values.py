"""From what a training script logs to plain numbers, without waiting for a GPU and without raising.

Called by `producers.run` on the training thread for whatever is not the usual case (Python floats and ints under known
names), which `Run.log` tells by itself. A tensor on the CPU is read at once, for the script may change it afterwards;
one on an accelerator is copied asynchronously (`metrics.devices`) and read by `delivery.outbox` when the copy is
done. Neither PyTorch nor NumPy is imported here: who logs their values has loaded them.
"""

import operator
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from numbers import Real
from typing import Any, NamedTuple

from ..bad_calls import BadCalls
from ..plain import shown, why
from .devices import Deferred, InFlight, copied
from .thinning import Thinning, Value, left_out

STEP_LIMIT = 2**62
MAX_NAMES = 1_000
MAX_NAME_LENGTH = 200
SCALARS = "a metric is one real number: a Python or NumPy number, or a tensor with one element"


Number = float | int | Deferred


class Refused(NamedTuple):
    """Why a value is no metric."""

    reason: str
    message: str


class Admitted(NamedTuple):
    """What is left of a call: its good part. `deferred` repeats those of the metrics that have to be waited for;
    `thinned` is how many the run's rule left out, of which the first name may stay, with None.
    """

    step: int
    metrics: Mapping[str, Number | None]
    deferred: tuple[Deferred, ...] = ()
    thinned: int = 0


class Admission:
    """The door of `run.log`: lets the good part of a call through and counts the rest. One per run, for its names
    are bounded. What `thinning` leaves out is not read: a GPU is not asked for what nobody will see.
    """

    def __init__(self, bad_calls: BadCalls, thinning: Thinning | None = None) -> None:
        self._names: set[str] = set()
        self._shapes: set[tuple[str, ...]] = set()
        self._bad_calls = bad_calls
        self._thinning = thinning if thinning is not None else Thinning()
        self._all_told = self._thinning.idle
        self._in_flight = InFlight()

    def admit(self, step: object, extra: tuple[object, ...], metrics: dict[str, Any]) -> Admitted | None:
        """The good part of one call, or None where nothing is left of it."""
        if extra:
            self._bad_calls.add("call", "metrics are keywords: run.log(step, loss=...), or run.log(step, **metrics)")
        if step is None and "step" in metrics:
            step = metrics.pop("step")
        whole = self.step(step)
        if whole is None:
            return None
        if not metrics:
            if not extra:
                self._bad_calls.add("no_metrics", "run.log was called without any metric")
            return None
        return self._admitted(whole, metrics)

    def usual(self, rows: Sequence[Mapping[str, object]]) -> bool:
        """Whether all is told of these rows, which `run.log` did not look into: only names that came through before,
        and no rule that leaves any out. For the outbox's thread, as is `told`.
        """
        return self._all_told and self._shapes.issuperset(map(tuple, rows))

    def told(self, step: int, metrics: Mapping[str, Value]) -> tuple[Mapping[str, Value | None], int]:
        """What of a row leaves this rank, and how many values the rule left out.

        A bad name is known here at the latest; the line that made the mistake is not, any more.
        """
        good = {name: value for name, value in metrics.items() if self._known(name, "run.log")}
        if len(good) == len(metrics) and len(self._shapes) < MAX_NAMES:
            self._shapes.add(tuple(metrics))
        if self._all_told or not good:
            return good, 0
        kept = self._thinning.kept(step, good)
        return kept, left_out(good, kept)

    def numbers(self, metrics: Mapping[str, Any]) -> tuple[dict[str, Number], tuple[Deferred, ...]]:
        """The good ones among `metrics`, and those of them that are on their way."""
        good: dict[str, Number] = {}
        for name, value in metrics.items():
            number = read(value, self._in_flight)
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

    def _admitted(self, step: int, metrics: dict[str, Any]) -> Admitted | None:
        kept = metrics if self._all_told else self._thinning.kept(step, metrics)
        if (thinned := left_out(metrics, kept)) == len(metrics):
            names = {name: None for name in kept if self._known(name)}
            return Admitted(step, names, (), thinned) if names else None
        good, deferred = self.numbers(kept)
        return Admitted(step, good, deferred, thinned) if good else None

    def _known(self, name: str, place: str = "") -> bool:
        if name in self._names:
            return True
        if not 0 < len(name) <= MAX_NAME_LENGTH or not _is_text(name):
            self._bad_calls.add(
                "metric_name", f"a metric's name is 1 to {MAX_NAME_LENGTH} characters, got {name!r:.60}", place
            )
            return False
        if len(self._names) >= MAX_NAMES:
            message = f"a run has at most {MAX_NAMES} metric names; {name!r} and other new ones are dropped"
            self._bad_calls.add("metric_limit", message, place)
            return False
        self._names.add(name)
        return True


def read(value: object, in_flight: InFlight) -> Number | Refused:
    """The number in `value`, at once or on its way (a slot of `in_flight` is taken then), or why there is none."""
    try:
        if type(value) is float or isinstance(value, Real):  # Python's and NumPy's numbers, bool, Fraction
            return float(value)
        if _is_tensor(value):
            return _read_tensor(value, in_flight)
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


def _read_tensor(value: Any, in_flight: InFlight) -> Number | Refused:
    if hasattr(value, "full_tensor"):
        return Refused(
            "metric_type", "a DTensor: reading it would be a collective; log its .to_local() or .full_tensor()"
        )
    if value.numel() != 1:
        return Refused("metric_shape", f"a tensor of shape {tuple(value.shape)}; {SCALARS}")
    if value.is_complex() or value.device.type == "meta":
        return Refused("metric_type", f"a tensor of {value.dtype} on device {value.device.type}; {SCALARS}")
    if value.device.type == "cpu":
        return float(value.item())
    slot = in_flight.slot()
    if slot is None:
        return Refused("device_limit", f"{in_flight.limit} values are on their way from devices; this one is dropped")
    return copied(value, slot)
