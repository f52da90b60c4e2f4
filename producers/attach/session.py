"""One process of an unchanged script: watched from the moment it imports PyTorch.

Called by `bootstrap.sitecustomize`. The hooks are PyTorch's own (`register_optimizer_step_pre_hook` and its twin), for
all optimizers there will be; a run is opened at the first step, for by then the ranks have found each other, and beside
the training, which does not wait for it. A process in which no optimizer steps (a launcher, a data worker) publishes
nothing. Signals, exit status and standard output stay the script's.
"""

import atexit
import functools
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...events.errors import UserMistake
from ...events.telemetry import Stage
from ..ending import ending_of
from ..integrations.observing import Changed, StepObserver
from ..integrations.watching import Watch, unseen
from ..voice import logger
from .opening import STEPPED, Opening
from .options import Options, read_options
from .ranks import hear_of

if TYPE_CHECKING:
    from ..run import Run
    from ..steering.pilot import Pilot

OPEN_SECONDS = 3.0
"""How long a script that ends at once waits for its run to be opened."""

LAUNCHERS = frozenset({"torchrun", "accelerate", "deepspeed"})


class Session:
    """The watch over one process, and the run that it publishes."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._pid = os.getpid()
        self._opening: Opening | None = None
        self._begun = threading.Lock()
        self._over = threading.Event()
        self._pilot: Pilot | None = None
        self._steered: set[int] = set()
        self.aside = ""
        self.steps = 0
        self.found: set[str] = set()
        self.watch = Watch(self, options.norms)

    @property
    def observer(self) -> StepObserver:
        return self.watch.observer

    @property
    def _run(self) -> "Run | None":
        return self._opening.run if self._opening is not None else None

    def install(self) -> None:
        from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

        # They stay: taken away inside of a step they would disturb the script's own that come after them.
        register_optimizer_step_pre_hook(self._before_step)
        register_optimizer_step_post_hook(self._after_step)
        atexit.register(self._end)
        hear_of(STEPPED, self._open, self._over)

    # ---------------------------------------------------------------------------------- what the watch needs of a run

    def log(self, step: int, /, **metrics: Any) -> None:
        opening = self._opening or self._open()
        if opening is not None and opening.pid == os.getpid():  # a forked copy of a trainer is none
            self.steps = max(self.steps, step + 1)
            self.found.update(metrics)
            opening.log(step, metrics)

    def stage(self, stage: Stage, step: int | None = None) -> None:
        if self._opening is not None:
            self._opening.stage(stage, step or 0)

    def pilot(self, model: Any, optimizer: Any, **steered: Any) -> "Pilot":
        assert self._run is not None  # it is open before anything is steered
        return self._run.pilot(model, optimizer, **steered)

    # ------------------------------------------------------------------------------------------------------- the steps

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> Changed | None:
        return None if self.aside else self.watch.before_step(optimizer, args, kwargs)

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self.aside:
            self.watch.close()
            return
        self.watch.after_step(optimizer, args, kwargs)
        opening = self._opening
        if not self._options.steer or opening is None or not opening.may_steer.is_set():
            return
        if id(optimizer) not in self._steered:
            self._steered.add(id(optimizer))
            self._steer(optimizer)
            opening.steerable()

    def _steer(self, optimizer: Any) -> None:
        try:
            if self._pilot is None:
                self._pilot = self.watch.steer(None, [optimizer], (*self._options.steer, "notify"))
                _before_the_ranks_part(self._pilot.close)
            else:
                self._pilot.add_optimizer(optimizer)
        except Exception:  # noqa: BLE001  # whatever we stumble over, the script's step must be made
            logger.exception("pilothouse: this script cannot be steered; it is watched only")

    def _open(self) -> Opening | None:
        """Begin to open the run, once; from the training thread, or on rank 0 because another rank steps."""
        with self._begun:
            if self._opening is None and not self.aside:
                if "pilothouse.producers.run" in sys.modules:
                    self._stand_aside("the script uses Pilothouse itself")
                else:
                    self._over.set()
                    self._opening = Opening(functools.partial(_started, self._options), self._stand_aside)
        return None if self.aside else self._opening

    def _stand_aside(self, why: str) -> None:
        """From any thread: the next step takes everything off again."""
        self.aside = why

    # -------------------------------------------------------------------------------------------------------- the end

    def _end(self) -> None:
        """What was seen and what was not, in one line on standard error, by rank 0."""
        self._over.set()
        if self._opening is not None and self._opening.pid == os.getpid():
            self._opening.end(OPEN_SECONDS)
            if self._run is not None:  # a run that was opened just now has no end of its own yet
                self._run.close(*ending_of(getattr(sys, "last_value", None), "completed"))
        if os.getpid() == self._pid and (said := self.account()):
            logger.warning("pilothouse: %s", said)

    def account(self) -> str:
        """For a person; empty where there is nothing to say."""
        if self.aside:
            return f"nothing was watched: {self.aside}"
        if self._run is None and self._opening is not None:
            return f"nothing was published: the run could not be opened within {OPEN_SECONDS:.0f} s"
        if self._run is None:
            is_root = self._pid == self._options.root and not _is_launcher()
            return _nothing_stepped(self.observer.losses) if is_root or self.observer.losses else ""
        if self._run.identity.rank != 0:
            return ""
        run = f"run {self._run.identity.run_id}"
        if not self.steps:
            return f"{run}: rank 0 took no step; those of others are watched"
        wanted = {"loss": ("loss",), "grad_norm": ("grad_norm", "local_grad_norm"), "lr": ("lr",)}
        seen = [name for names in wanted.values() for name in names if name in self.found]
        missing = [name for name, names in wanted.items() if self.found.isdisjoint(names)]
        not_found = f"; not found: {', '.join(missing)}" if missing else ""
        left_out = self._opening.left_out if self._opening is not None else 0
        late = f"; {left_out} steps were taken before the run was open, and left out" if left_out else ""
        return f"{run}: {self.steps} steps watched ({', '.join(seen)}){not_found}{late}"


def attach(told: str) -> Session:
    """Begin to watch this process."""
    session = Session(read_options(told))
    session.install()
    return session


def _started(options: Options) -> "Run":
    """The run. Not on the main thread: so SIGTERM stays the script's.

    Raises:
        UserMistake: a setting is wrong, or the ranks have no way to find each other.
    """
    from ..start import start_run

    name = options.name or Path(sys.argv[0] or "script").stem or "script"
    tags = {"attached": "pilothouse run"}
    try:
        return start_run(name, run_id=options.run_id or None, tags=tags)
    except UserMistake:
        here, everywhere = os.environ.get("LOCAL_WORLD_SIZE"), os.environ.get("WORLD_SIZE")
        if not options.launch or here != everywhere:
            raise
        # Ranks of one machine that share no process group share the command that started them.
        return start_run(name, run_id=f"{name}-{options.launch}", tags=tags)


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
