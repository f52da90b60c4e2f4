"""Accelerate: `with watch(run, accelerator, model, optimizer, steer=True) as watched`, then the loop as it was.

    for batch in watched.batches(loader):
        with accelerator.accumulate(model):
            accelerator.backward(model(batch).loss)
            optimizer.step()
            optimizer.zero_grad()

Takes what `accelerator.prepare` gave back. A step is one in which gradients are synchronised; `loss` is the sum of what
was accumulated for it. `tracker` is for scripts that log through `accelerator.log`.
"""

from collections.abc import Mapping
from typing import Any, Unpack

from .adapter import Wishes, innermost
from .torch import watch as watch_torch
from .watching import Watch, Watched


def watch(run: Watched, accelerator: Any, model: Any, optimizer: Any, **wishes: Unpack[Wishes]) -> Watch:
    """Watch the steps of a prepared optimizer (or a list of them); keywords as for `integrations.torch.watch`."""
    optimizers = list(optimizer) if isinstance(optimizer, list | tuple) else [optimizer]
    schedulers = wishes.pop("scheduler", None)
    several = schedulers if isinstance(schedulers, list | tuple) else [schedulers] if schedulers is not None else []
    wishes.setdefault("scaler", accelerator.scaler)
    wishes.pop("name", None)
    watched = watch_torch(
        run,
        accelerator.unwrap_model(model),
        [innermost(one, "optimizer") for one in optimizers],
        scheduler=[innermost(one, "scheduler") for one in several],
        **wishes,  # type: ignore[misc]  # `name` was taken out
    )
    watched.time.communicates(model)
    return watched


def tracker(run: Any) -> Any:
    """For `Accelerator(log_with=...)`: what `accelerator.log` is given becomes metrics of the run."""
    from accelerate.tracking import GeneralTracker

    return type("PilothouseTracker", (_Tracker, GeneralTracker), {})(run)


class _Tracker:
    """The abstract methods of `GeneralTracker`."""

    name = "pilothouse"
    requires_logging_directory = False
    main_process_only = True

    def __init__(self, run: Any) -> None:
        super().__init__()
        self._run = run

    @property
    def tracker(self) -> Any:
        return self._run

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """The run has its configuration since its start."""

    def log(self, values: Mapping[str, Any], step: int | None = None, **_: Any) -> None:
        numbers = {name: value for name, value in values.items() if not isinstance(value, str | Mapping)}
        if numbers:
            self._run.log(self._run.last_step if step is None else step, **numbers)
