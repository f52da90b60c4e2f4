"""One process of an unchanged script: watched from the moment it imports PyTorch.

Called by `bootstrap.sitecustomize`. The hooks are PyTorch's own (`register_optimizer_step_pre_hook` and its twin), for
all optimizers there will be; a run is opened at the first step, for by then the ranks have found each other. A process
in which no optimizer steps (a launcher, a data worker) publishes nothing. Signals, exit status and standard output stay
the script's.
"""

import atexit
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...events.errors import UserMistake
from ..integrations.observing import StepObserver
from ..integrations.watching import Watch, unseen
from .options import Options, read_options

if TYPE_CHECKING:
    from ..pilot import Pilot
    from ..run import Run

LAUNCHERS = frozenset({"torchrun", "accelerate", "deepspeed"})

log = logging.getLogger("pilothouse")


class Session:
    """The watch over one process, and the run that it publishes."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._pid = os.getpid()
        self._run: Run | None = None
        self._pilot: Pilot | None = None
        self._steered: set[int] = set()
        self._hooks: list[Any] = []
        self.aside = ""
        self.steps = 0
        self.found: set[str] = set()
        self.watch = Watch(self, options.norms)

    @property
    def observer(self) -> StepObserver:
        return self.watch.observer

    def install(self) -> None:
        from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

        self._hooks = [
            register_optimizer_step_pre_hook(self.watch.before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        atexit.register(self._say)

    # ---------------------------------------------------------------------------------- what the watch needs of a run

    def log(self, step: int, /, **metrics: Any) -> None:
        if self._run is None and not self.aside:
            self._open()
        if self._run is not None:
            self.steps = max(self.steps, step + 1)
            self.found.update(metrics)
            self._run.log(step, **metrics)

    def pilot(self, model: Any, optimizer: Any, **steered: Any) -> "Pilot":
        assert self._run is not None  # it is opened by the first step, before anything is steered
        return self._run.pilot(model, optimizer, **steered)

    # ------------------------------------------------------------------------------------------------------- the steps

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self.watch.after_step(optimizer, args, kwargs)
        if self._options.steer and self._run is not None and id(optimizer) not in self._steered:
            self._steered.add(id(optimizer))
            self._steer(optimizer)

    def _steer(self, optimizer: Any) -> None:
        try:
            if self._pilot is None:
                self._pilot = self.watch.steer(None, [optimizer], (*self._options.steer, "notify"))
                _before_the_ranks_part(self._pilot.close)
            else:
                self._pilot.add_optimizer(optimizer)
        except Exception:
            log.exception("pilothouse: this script cannot be steered; it is watched only")

    def _open(self) -> None:
        if "pilothouse.producers.run" in sys.modules:
            return self._stand_aside("the script uses Pilothouse itself")
        try:
            self._run = _quietly_started(self._options)
        except Exception as error:  # noqa: BLE001  # the script has nothing to do with what is wrong here
            return self._stand_aside(str(error))
        return None

    def _stand_aside(self, why: str) -> None:
        self.aside = why
        self.watch.close()
        for hook in self._hooks:
            hook.remove()

    # -------------------------------------------------------------------------------------------------------- the end

    def _say(self) -> None:
        """What was seen and what was not, in one line on standard error, by rank 0."""
        if os.getpid() == self._pid and (said := self.account()):
            log.warning("pilothouse: %s", said)

    def account(self) -> str:
        """For a person; empty where there is nothing to say."""
        if self.aside:
            return f"nothing was watched: {self.aside}"
        if self._run is None:
            is_root = self._pid == self._options.root and not _is_launcher()
            return _nothing_stepped(self.observer.losses) if is_root or self.observer.losses else ""
        if self._run.identity.rank != 0:
            return ""
        wanted = {"loss": ("loss",), "grad_norm": ("grad_norm", "local_grad_norm"), "lr": ("lr",)}
        seen = [name for names in wanted.values() for name in names if name in self.found]
        missing = [name for name, names in wanted.items() if self.found.isdisjoint(names)]
        not_found = f"; not found: {', '.join(missing)}" if missing else ""
        return f"run {self._run.identity.run_id}: {self.steps} steps watched ({', '.join(seen)}){not_found}"


def attach(told: str) -> Session:
    """Begin to watch this process."""
    session = Session(read_options(told))
    session.install()
    return session


def _quietly_started(options: Options) -> "Run":
    """A run that leaves SIGTERM to the script: what it did about it before, it does now.

    Raises:
        UserMistake: a setting is wrong, or the ranks have no way to find each other.
    """
    from ..run import start_run

    name = options.name or Path(sys.argv[0] or "script").stem or "script"
    before = signal.getsignal(signal.SIGTERM)
    tags = {"attached": "pilothouse run"}
    try:
        try:
            return start_run(name, run_id=options.run_id or None, tags=tags)
        except UserMistake:
            here, everywhere = os.environ.get("LOCAL_WORLD_SIZE"), os.environ.get("WORLD_SIZE")
            if not options.launch or here != everywhere:
                raise
            # Ranks of one machine that share no process group share the command that started them.
            return start_run(name, run_id=f"{name}-{options.launch}", tags=tags)
    finally:
        if before is not None and signal.getsignal(signal.SIGTERM) is not before:
            signal.signal(signal.SIGTERM, before)


def _before_the_ranks_part(leave: Any) -> None:
    """Leave in order when the script takes its process group down, and the store of the ranks with it."""
    import torch.distributed as dist

    if not dist.is_available():
        return
    original = dist.destroy_process_group

    def destroy_process_group(*args: Any, **kwargs: Any) -> Any:
        leave()
        return original(*args, **kwargs)

    dist.destroy_process_group = destroy_process_group


def _is_launcher() -> bool:
    main = sys.modules.get("__main__")
    module = getattr(getattr(main, "__spec__", None), "name", "")
    return module.startswith("torch.distributed.") or Path(getattr(main, "__file__", "") or "").stem in LAUNCHERS


def _nothing_stepped(losses: int) -> str:
    if losses:
        return f"nothing was published: {unseen(losses)}"
    return "nothing was published: no optimizer of torch.optim stepped in the script"
