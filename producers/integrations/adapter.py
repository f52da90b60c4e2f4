"""What the framework adapters share: when the framework's training begins and ends, and whose run it is.

`huggingface` and `lightning` turn their framework's callbacks into `begin`, `evaluated` and `finish`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NotRequired, Protocol, TypedDict, Unpack

from ...events.actions import ActionKind
from ...events.errors import UserMistake
from ...events.telemetry import AttemptReason, Outcome
from ..voice import logger
from .watching import Steered, Watch, Watched

if TYPE_CHECKING:
    from ..run import Run
    from ..steering.pilot import Pilot

NO_END = "the framework began to train again before it had said that this training was over"


class Evaluated(Watched, Protocol):
    """What an adapter needs of the run that it is given. `producers.run.Run` is one."""

    def evaluated(self, step: int, /, **metrics: Any) -> None: ...

    def begin_attempt(self, reason: AttemptReason, first_step: int) -> object: ...


class Wishes(Steered, total=False):
    """The keywords of a framework's callback: as `integrations.torch.watch` takes them, and for a run of its own
    `name`.
    """

    steer: bool | Sequence[ActionKind]
    norms: bool
    name: str


class Parts(TypedDict):
    """The framework's trainer, taken apart."""

    model: Any
    optimizers: list[Any]
    scheduler: list[Any]
    scaler: Any
    wrapped: NotRequired[Any]  # the model as its strategy has wrapped it, where that is known


class Adapter:
    """One training of a framework. `run` is the caller's; without one the training opens its own and ends it."""

    def __init__(self, run: Evaluated | None = None, **wishes: Unpack[Wishes]) -> None:
        self._given = run
        self._own: Run | None = None
        self._run: Evaluated | None = None
        self._wishes = wishes
        self._watch: Watch | None = None
        self._trainings = 0

    @property
    def watch(self) -> Watch | None:
        """While it trains: its watch, for `pilot.checkpoint` and the like."""
        return self._watch

    @property
    def stopping(self) -> bool:
        return self._watch is not None and self._watch.stopping

    def pilot(self) -> "Pilot | None":
        return self._watch.pilot if self._watch is not None else None

    def begin(self, parts: Parts, drops: bool, name: str, config: object, failed: Outcome = "crashed") -> None:
        """Training starts. `drops`: its loader drops what is to be skipped. `name` and `config` are the run's, where
        the caller gave none. `failed`: what happened to a training before, which began and never ended. Never raises:
        a training that cannot be watched is made all the same.
        """
        self.finish(failed, NO_END)
        try:
            self._begin(parts, drops, name, config)
        except UserMistake as mistake:
            logger.error("pilothouse: this training is not watched: %s", mistake)
            self.finish("crashed", str(mistake))
        except Exception:  # noqa: BLE001  # a training that cannot be watched is made all the same
            logger.exception("pilothouse: this training is not watched, after a fault of ours")
            self.finish("crashed", "it could not be watched")

    def _begin(self, parts: Parts, drops: bool, name: str, config: object) -> None:
        if self._given is None:
            self._own = _new_run(self._wishes.get("name") or name, config)
        elif self._trainings:
            self._given.begin_attempt("restart", 0)  # its steps are counted from 0 again
        self._trainings += 1
        self._run = self._own or self._given
        assert self._run is not None  # one of the two
        self._watch = watch = Watch(self._run, self._wishes.get("norms", True))
        watch.time.communicates(parts.get("wrapped"))
        if self._wishes.get("steer", False):
            self._steer(watch, parts, drops)
        watch.hang_on(parts["optimizers"])

    def _steer(self, watch: Watch, parts: Parts, drops: bool) -> None:
        steer = self._wishes.get("steer", True)
        given = {key: self._wishes[key] for key in ("knobs", "checkpoints") if key in self._wishes}
        only = None if isinstance(steer, bool) else tuple(steer)
        try:
            watch.steer(parts["model"], parts["optimizers"], only, **given, **_steered(parts))
            watch.obeys("stop", *(("skip_batches",) if drops else ()))
        except UserMistake as mistake:
            logger.error("pilothouse: this training cannot be steered, and is watched only: %s", mistake)

    def evaluated(self, metrics: Mapping[str, Any], prefix: str) -> None:
        """The framework has evaluated: what begins with `prefix`, without it."""
        numbers = {
            name.removeprefix(prefix): value
            for name, value in metrics.items()
            if name.startswith(prefix) and not isinstance(value, str | bool | None)
        }
        if self._run is not None and self._watch is not None and numbers:
            self._run.evaluated(max(0, self._watch.step - 1), **numbers)

    def evaluating(self, begun: bool) -> None:
        """The framework evaluates from here on, or trains again."""
        if self._watch is not None:
            self._watch.evaluating(begun)

    def finish(self, outcome: Outcome | None = None, error: str = "") -> None:
        """Training is over."""
        if self._watch is not None:
            self._watch.close()
        if self._own is not None:
            self._own.close(outcome, error)
        self._watch = self._own = self._run = None


def _new_run(name: str, config: object) -> "Run":
    from ..start import start_run

    return start_run(name, config=config)


def _steered(parts: Parts) -> dict[str, Any]:
    return {"scheduler": parts["scheduler"], "scaler": parts["scaler"]}


def innermost(wrapped: Any, name: str) -> Any:
    """What a wrapper wraps, by the attribute in which it keeps it."""
    while (inner := getattr(wrapped, name, None)) is not None:
        wrapped = inner
    return wrapped
