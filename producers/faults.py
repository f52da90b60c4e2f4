"""The fault injector: breaks a training at named points, the same way every time. For the demo, tests, chaos and
benchmarks.

A loop asks at its points (`faults.at("grad", rank, step, model)`, `batch = faults.batch(rank, step, position, batch)`);
with an empty plan that costs a comparison. A plan is text, for an environment variable or a command line; faults stand
apart by `;`:

    corrupt_data@batch/0?first=40&last=55 ; scale_lr@optimizer/150?factor=80 ; sigkill@safe_point/30/2

is WHAT@POINT/STEP[/RANK][*TIMES][?name=number&...]: at this step (for `corrupt_data`: whenever the data's position is
within first..last, so that skipped data does no harm), on this rank or on all, so many times in a process (once;
`corrupt_data`: always). A worker of the stream processors has no steps: there STEP counts how often the point was
passed.
"""

import math
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, assert_never, get_args

from ..events.errors import UserMistake

TrainerPoint = Literal["batch", "forward", "grad", "optimizer", "safe_point", "checkpoint"]
WorkerPoint = Literal[
    "before_decisions",
    "after_decisions",
    "before_command",
    "after_command",
    "before_state",
    "after_state",
    "before_acknowledgement",
    "after_acknowledgement",
    "before_insert",
    "after_insert",
]
Point = TrainerPoint | WorkerPoint
What = Literal["corrupt_data", "scale_lr", "nan_grad", "raise", "sigkill", "sigterm", "sigstop", "hang", "slow"]

_PARAMETERS: Mapping[What, Mapping[str, float | None]] = {
    "corrupt_data": {"first": None, "last": None, "scale": 100.0},
    "scale_lr": {"factor": None},
    "nan_grad": {},
    "raise": {},
    "sigkill": {},
    "sigterm": {},
    "sigstop": {},
    "hang": {"seconds": 60.0},
    "slow": {"seconds": 1.0},
}
"""What each fault may be told, with its default; None must be given."""

_WHATS: tuple[What, ...] = get_args(What)
_POINTS: tuple[Point, ...] = (*get_args(TrainerPoint), *get_args(WorkerPoint))
_GRAMMAR = re.compile(
    r"(?P<what>\w+)@(?P<point>\w+)/(?P<step>\d+)(/(?P<rank>\d+))?(\*(?P<times>\d+))?(\?(?P<numbers>[^;]+))?"
)


class InjectedFault(RuntimeError):
    """What `raise` raises."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that breaks. `rank` None: on every rank. `times`: at most so often in one process; 0: without limit."""

    what: What
    point: Point
    step: int
    rank: int | None = None
    times: int = 1
    numbers: Mapping[str, float] = field(default_factory=dict)

    def number(self, name: str) -> float:
        """A parameter, or its default."""
        value = self.numbers.get(name, _PARAMETERS[self.what][name])
        assert value is not None  # `read_faults` refuses a fault without it
        return value

    def text(self) -> str:
        """As `read_faults` reads it."""
        rank = "" if self.rank is None else f"/{self.rank}"
        times = "" if self.times == int(self.what != "corrupt_data") else f"*{self.times}"
        numbers = "&".join(f"{name}={value:.12g}" for name, value in self.numbers.items())
        return f"{self.what}@{self.point}/{self.step}{rank}{times}" + (f"?{numbers}" if numbers else "")


Plan = tuple[Fault, ...]


def write_faults(plan: Iterable[Fault]) -> str:
    """The plan as text."""
    return ";".join(fault.text() for fault in plan)


def read_faults(text: str) -> Plan:
    """The plan of a text; nothing for an empty one.

    Raises:
        UserMistake: it is not a plan; the message shows what one looks like.
    """
    return tuple(_read_fault(word.strip()) for word in text.split(";") if word.strip())


def _read_fault(word: str) -> Fault:
    match = _GRAMMAR.fullmatch(word)
    if match is None:
        raise UserMistake(f"{word!r} is no fault; write one as scale_lr@optimizer/150?factor=80 (WHAT@POINT/STEP)")
    what = next((known for known in _WHATS if known == match["what"]), None)
    point = next((known for known in _POINTS if known == match["point"]), None)
    if what is None or point is None:
        raise UserMistake(f"{word!r}: a fault is one of {', '.join(_WHATS)}, at one of {', '.join(_POINTS)}")
    times = int(match["times"]) if match["times"] else int(what != "corrupt_data")
    rank = int(match["rank"]) if match["rank"] else None
    return Fault(what, point, int(match["step"]), rank, times, _read_numbers(what, match["numbers"] or "", word))


def _read_numbers(what: What, text: str, word: str) -> dict[str, float]:
    numbers = dict(_read_number(pair, word) for pair in text.split("&") if pair)
    takes = _PARAMETERS[what]
    needed = {name for name, default in takes.items() if default is None}
    if not needed <= numbers.keys() <= takes.keys():
        raise UserMistake(
            f"{word!r}: {what} takes {', '.join(takes) or 'no numbers'}"
            + (f" and needs {', '.join(sorted(needed))}" if needed else "")
        )
    return numbers


def _read_number(pair: str, word: str) -> tuple[str, float]:
    name, _, value = pair.partition("=")
    try:
        return name, float(value)
    except ValueError as error:
        raise UserMistake(f"{word!r}: {name} must be a number, got {value!r}") from error


class Moment(NamedTuple):
    """Where a training is when it asks. `position`: of the data, where a batch is at hand."""

    point: Point
    rank: int
    step: int
    position: int | None = None


def strikes(fault: Fault, moment: Moment, fired: int) -> bool:
    """Whether a fault that struck `fired` times before strikes at this moment. Pure."""
    if fault.point != moment.point or fault.rank not in (None, moment.rank):
        return False
    if fault.times and fired >= fault.times:
        return False
    if fault.what == "corrupt_data":
        return moment.position is not None and fault.number("first") <= moment.position <= fault.number("last")
    return fault.step == moment.step


class Injector:
    """Strikes as planned. One per process; it remembers what it did."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._fired: Counter[int] = Counter()

    def batch(self, rank: int, step: int, position: int, batch: Any) -> Any:
        """The batch at this position of the data, spoilt if the plan says so."""
        for fault in self._strike(Moment("batch", rank, step, position)):
            if fault.what == "corrupt_data":
                batch = corrupted(batch, seed=position * 1_009 + rank, scale=fault.number("scale"))
            else:
                _do(fault, batch, None)
        return batch

    def at(self, point: Point, rank: int, step: int, target: Any = None, scheduler: Any = None) -> None:
        """Strike what is planned here. `target`: the model for `nan_grad`, the optimizer for `scale_lr`."""
        for fault in self._strike(Moment(point, rank, step)):
            _do(fault, target, scheduler)

    def _strike(self, moment: Moment) -> list[Fault]:
        struck = [number for number, fault in enumerate(self._plan) if strikes(fault, moment, self._fired[number])]
        self._fired.update(struck)
        return [self._plan[number] for number in struck]


def _do(fault: Fault, target: Any, scheduler: Any) -> None:
    match fault.what:
        case "scale_lr":
            _scale_lr(target, scheduler, fault.number("factor"))
        case "nan_grad":
            _spoil_gradient(target)
        case "raise":
            raise InjectedFault(f"planned: {fault.text()}")
        case "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "sigterm":
            os.kill(os.getpid(), signal.SIGTERM)
        case "sigstop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "hang" | "slow":
            time.sleep(fault.number("seconds"))
        case "corrupt_data":
            raise UserMistake(f"{fault.text()}: data can only be corrupted at the point `batch`")
        case _ as unreachable:
            assert_never(unreachable)


def corrupted(batch: Any, seed: int, scale: float) -> Any:
    """The same shape, full of rubbish: token ids drawn anew from the batch's own range, floats of `scale` times their
    size.

    The same rubbish for the same seed. Tuples, lists and dictionaries are gone through; what holds no tensor stays.
    """
    if isinstance(batch, tuple | list):
        return type(batch)(corrupted(item, seed + number, scale) for number, item in enumerate(batch))
    if isinstance(batch, dict):
        return {name: corrupted(item, seed + number, scale) for number, (name, item) in enumerate(batch.items())}
    if not hasattr(batch, "is_floating_point"):
        return batch
    import torch

    generator = torch.Generator().manual_seed(seed)
    if batch.is_floating_point():
        return torch.randn(batch.shape, generator=generator).to(batch) * scale
    return torch.randint(0, max(1, int(batch.max()) + 1), batch.shape, generator=generator).to(batch)


def _scale_lr(optimizer: Any, scheduler: Any, factor: float) -> None:
    """For good: in the optimizer, and in the scheduler, which would put its own value back at the next step."""
    for group in optimizer.param_groups:
        for name in ("lr", "initial_lr"):
            if name in group:
                group[name] = group[name] * factor
    if scheduler is not None:
        scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]


def _spoil_gradient(model: Any) -> None:
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.fill_(math.nan)
            return
