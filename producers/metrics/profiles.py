"""The distribution of chosen inputs, window by window: has the data changed under the run?

`Run.profile` takes a bounded sample on the training thread; `producers.beside` does the rest and tells `DataProfiled`.
The edges of the bins are quantiles of the first window and stay: what comes later is held against them (as the
population stability index wants it: Siddiqi, Credit Risk Scorecards, 2006). A change of `schema` begins anew. What was
not looked at is said in each profile (`values_seen`, `values_sampled`).
"""

import math
import sys
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from ..ranks.context import Identity

SAMPLE = 256
"""Values looked at of one call."""

WINDOW = 100
"""Calls that make a profile, unless told otherwise."""

BINS = 20
FEATURES = 64
PENDING = 2_000
LEARNT_FROM = 20_000
"""Values of the first window that the edges are learnt from."""


class Sampled(NamedTuple):
    """One call: `values` are numbers, or a tensor on its way from a device. `seen` is what there was."""

    identity: Identity
    feature: str
    schema: str
    step: int
    window: int
    seen: int
    values: Any


class Profile(NamedTuple):
    """The fields of one `DataProfiled`, and whose it is."""

    identity: Identity
    fields: dict[str, Any]


class NoNumbers(TypeError):
    """What was given has no distribution that we can draw; the message says what is wanted."""


@dataclass(slots=True)
class _Window:
    """What one feature has gathered since its last profile."""

    schema: str
    edges: tuple[float, ...] | None = None
    counts: list[int] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    last: Sampled | None = None
    batches: int = 0
    seen: int = 0
    sampled: int = 0
    non_finite: int = 0
    total: float = 0.0
    squares: float = 0.0
    least: float = math.inf
    greatest: float = -math.inf


class Profiles:
    """All features of one rank. `add` is the training thread's, the rest another's."""

    def __init__(self) -> None:
        self._features: set[str] = set()
        self._pending: deque[Sampled] = deque()
        self._windows: dict[str, _Window] = {}

    def room_for(self, feature: str) -> bool:
        """Whether this feature is one of the few that are profiled."""
        if feature not in self._features and len(self._features) < FEATURES:
            self._features.add(feature)
        return feature in self._features

    def add(self, sampled: Sampled) -> None:
        """Take one sample; while too many wait, only that there was one."""
        self._pending.append(sampled if len(self._pending) < PENDING else sampled._replace(values=()))

    def take(self, *, last: bool = False) -> Iterator[Profile]:
        """The profiles that are complete; at the `last` call, also those that are not."""
        while self._pending and (last or _has_arrived(self._pending[0].values)):
            yield from self._fold(self._pending.popleft())
        if last:
            for window in self._windows.values():
                yield from _told(window)

    def _fold(self, sampled: Sampled) -> Iterator[Profile]:
        window = self._windows.get(sampled.feature)
        if window is None or window.schema != sampled.schema:
            if window is not None:
                yield from _told(window)
            window = self._windows[sampled.feature] = _Window(sampled.schema)
        elif window.last is not None and window.last.identity != sampled.identity:
            yield from _told(window)
        values = [] if sampled.values is None else _numbers(sampled.values)
        _gather(window, sampled, values)
        if window.batches >= sampled.window:
            yield from _told(window)


def sample(values: Any) -> tuple[int, Any]:
    """How many values there are, and some of them, spread over all: a list of floats, or a tensor that is being copied.

    Raises:
        NoNumbers: it is not a tensor, an array or a sequence of numbers.
    """
    if isinstance(values, int | float):
        return 1, [float(values)]
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(values, torch.Tensor):
        return _of_tensor(torch, values)
    if numpy is not None and isinstance(values, numpy.ndarray):
        if values.dtype.kind not in "biuf":
            raise NoNumbers(f"an array of {values.dtype}; {WANTED}")
        flat = values.reshape(-1)
        return values.size, flat[:: _stride(values.shape)][:SAMPLE].astype(float).tolist()
    if isinstance(values, Sequence) and not isinstance(values, str | bytes):
        some = values[:: _stride((len(values),))][:SAMPLE]
        try:
            return len(values), [float(value) for value in some]
        except (TypeError, ValueError) as error:
            raise NoNumbers(f"{type(some[0]).__name__} in a {type(values).__name__}; {WANTED}") from error
    raise NoNumbers(f"{type(values).__name__}; {WANTED}")


WANTED = "a profile is of numbers: a tensor, a NumPy array, a list or one number"


def _of_tensor(torch: Any, values: Any) -> tuple[int, Any]:
    if hasattr(values, "full_tensor") or values.is_complex() or values.device.type == "meta" or values.is_sparse:
        raise NoNumbers(f"a {type(values).__name__} of {values.dtype} on {values.device.type}; {WANTED}")
    count = values.numel()
    some = values.detach().reshape(-1)[:: _stride(tuple(values.shape))][:SAMPLE]
    if values.device.type == "cpu":
        return count, some.double().tolist()
    return count, _OnItsWay(torch, some)


class _OnItsWay:
    """A sample on an accelerator, copied behind the work that makes it; the training thread waits for nothing."""

    def __init__(self, torch: Any, some: Any) -> None:
        self._copied = None
        if some.device.type == "cuda":
            self._values = torch.empty(some.shape, dtype=some.dtype, pin_memory=True)
            with torch.cuda.device(some.device):
                self._values.copy_(some, non_blocking=True)
                self._copied = torch.cuda.Event()
                self._copied.record()
        else:
            self._values = some.clone()

    def ready(self) -> bool:
        return self._copied is None or bool(self._copied.query())

    def numbers(self) -> list[float]:
        told: list[float] = self._values.double().cpu().tolist()
        return told


def _stride(shape: Sequence[int]) -> int:
    """How far apart sampled values lie: with no factor in common with any side, so that no column is seen alone."""
    stride = max(1, math.prod(shape) // SAMPLE)
    while stride > 1 and any(side > 1 and math.gcd(stride, side) > 1 for side in shape[-3:]):
        stride -= 1
    return stride


def _has_arrived(values: Any) -> bool:
    with suppress(Exception):  # a device in error answers like this for good; reading it says so
        return not isinstance(values, _OnItsWay) or values.ready()
    return True


def _numbers(values: Any) -> list[float]:
    if not isinstance(values, _OnItsWay):
        return list(values)
    try:
        return values.numbers()
    except Exception:  # noqa: BLE001  # whatever a driver raises; the profile says that it saw more than it looked at
        return []


def _gather(window: _Window, sampled: Sampled, values: Iterable[float]) -> None:
    window.last = sampled
    window.batches += 1
    window.seen += sampled.seen
    for value in values:
        window.sampled += 1
        if not math.isfinite(value):
            window.non_finite += 1
            continue
        window.total += value
        window.squares += value * value
        window.least, window.greatest = min(window.least, value), max(window.greatest, value)
        if window.edges is None:
            window.first.append(value)
        else:
            window.counts[bisect_left(window.edges, value)] += 1


def _told(window: _Window) -> Iterator[Profile]:
    """The profile of what was gathered; the window begins anew, with the edges it has learnt."""
    if window.last is None or not window.batches:
        return
    if window.edges is None and window.first:
        window.edges = edges_of(window.first)
        window.counts = [0] * (len(window.edges) + 1)
        for value in window.first:
            window.counts[bisect_left(window.edges, value)] += 1
    yield Profile(
        window.last.identity,
        {
            "step": window.last.step,
            "feature": window.last.feature,
            "data_schema": window.schema,
            "edges": window.edges or (),
            "counts": tuple(window.counts),
            "batches": window.batches,
            "values_seen": window.seen,
            "values_sampled": window.sampled,
            "non_finite": window.non_finite,
            "numbers": _moments(window),
        },
    )
    edges, counts = window.edges, [0] * len(window.counts)
    window.__init__(window.schema, edges, counts)  # type: ignore[misc]  # everything else as at first


def edges_of(values: Sequence[float]) -> tuple[float, ...]:
    """The quantiles that cut these values into `BINS` parts; fewer where values repeat. Not empty."""
    ordered = sorted(islice(values, LEARNT_FROM))
    cuts = (ordered[(len(ordered) - 1) * index // BINS] for index in range(1, BINS))
    return tuple(sorted(set(cuts)))


def _moments(window: _Window) -> dict[str, float]:
    count = window.sampled - window.non_finite
    if not count:
        return {}
    mean = window.total / count
    variance = max(0.0, window.squares / count - mean * mean)
    return {"mean": mean, "std": math.sqrt(variance), "least": window.least, "greatest": window.greatest}
