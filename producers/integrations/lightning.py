"""Lightning: `Trainer(callbacks=[lightning.callback(steer=True, checkpoints="ckpts/")])`.

Steps are those of the first optimizer, counted from 0, in automatic and manual optimization. Everything can be obeyed;
batches are skipped where the data loader was given to `fit` itself, or to `callback.data` (a loader that a module or
data module makes is out of a callback's reach). After a rollback Lightning's own `global_step` goes on counting what
was done.
"""

from typing import Any, Unpack

from .adapter import Adapter, Evaluated, Wishes
from .loaders import let_drop


def callback(run: Evaluated | None = None, **wishes: Unpack[Wishes]) -> Any:
    """A `lightning.pytorch.Callback` (or `pytorch_lightning`'s, where only that is installed). Without `run` the
    training opens a run of its own.
    """
    try:
        from lightning.pytorch import Callback
    except ModuleNotFoundError:
        from pytorch_lightning import Callback

    return type("PilothouseCallback", (_Callback, Callback), {})(run, **wishes)


class _Callback(Adapter):
    """Only what Lightning calls and we need; the rest comes from `Callback`."""

    def __init__(self, run: Evaluated | None = None, **wishes: Unpack[Wishes]) -> None:
        super().__init__(run, **wishes)
        self._drops = False

    def data(self, loader: Any) -> Any:
        """The loader itself, which from now on drops what is to be skipped: for `train_dataloader` of a module."""
        self._drops = let_drop(loader, self.pilot) or self._drops
        return loader

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ARG002  # the framework's call
        # Before `on_train_start`: by then Lightning has begun the first epoch of its loader.
        source = getattr(getattr(trainer.fit_loop, "_data_source", None), "instance", None)
        if stage == "fit" and self._wishes.get("steer") and _is_loader(source):
            self.data(source)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.begin(
            {
                "model": pl_module,
                "optimizers": list(trainer.optimizers),
                "scheduler": [config.scheduler for config in trainer.lr_scheduler_configs],
                "scaler": getattr(trainer.precision_plugin, "scaler", None),
                "wrapped": trainer.model,
            },
            drops=self._drops,
            name=type(pl_module).__name__,
            config=dict(getattr(pl_module, "hparams", {})),
        )

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if self.stopping:
            trainer.should_stop = True

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002  # the framework's call
        self.evaluating(True)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002  # the framework's call
        self.evaluating(False)
        if not trainer.sanity_checking:
            self.evaluated(trainer.callback_metrics, "val_")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002  # the framework's call
        self.finish()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002  # the framework's call
        from ..ending import ending_of

        self.finish(*ending_of(exception, "completed"))


def _is_loader(source: Any) -> bool:
    from torch.utils.data import DataLoader

    return isinstance(source, DataLoader)
