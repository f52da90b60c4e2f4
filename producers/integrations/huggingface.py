"""Hugging Face `Trainer`: `Trainer(..., callbacks=[huggingface.callback(steer=True, checkpoints="ckpts/")])`.

Steps are optimizer steps, counted from 0. `loss` is what each step differentiated, `grad_norm` what the Trainer itself
computed. Everything can be obeyed; after a rollback the Trainer's own `global_step` goes on counting what was done.
"""

from typing import Any, Unpack

from .adapter import Adapter, Evaluated, Wishes, innermost
from .loaders import let_drop


def callback(run: Evaluated | None = None, **wishes: Unpack[Wishes]) -> Any:
    """A `transformers.TrainerCallback`. Without `run` the training opens a run of its own, named by its `run_name`."""
    from transformers import TrainerCallback

    return type("PilothouseCallback", (_Callback, TrainerCallback), {})(run, **wishes)


class _Callback(Adapter):
    """Only what the Trainer calls and we need; the rest comes from `TrainerCallback`."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **trainer: Any) -> None:  # noqa: ARG002  # the framework's call
        optimizer = trainer["optimizer"]
        scheduler = innermost(trainer.get("lr_scheduler"), "scheduler")
        self.begin(
            {
                "model": trainer["model"],
                "optimizers": [innermost(optimizer, "optimizer")],
                "scheduler": [scheduler] if scheduler is not None else [],
                "scaler": getattr(optimizer, "scaler", None),
            },
            drops=bool(self._wishes.get("steer")) and let_drop(trainer["train_dataloader"], self.pilot),
            name=getattr(args, "run_name", None) or "huggingface",
            config=args.to_sanitized_dict(),
            # It tries again with a smaller batch then, and does so for no other error.
            failed="out_of_memory" if getattr(args, "auto_find_batch_size", False) else "crashed",
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:  # noqa: ARG002  # the framework's call
        control.should_training_stop = control.should_training_stop or self.stopping
        return control

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:  # noqa: ARG002  # the framework's call
        self.evaluating(False)
        self.evaluated(metrics or {}, "eval_")

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002  # the framework's call
        self.evaluating(True)

    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:  # noqa: ARG002  # the framework's call
        self.evaluating(False)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002  # the framework's call
        self.finish()
