"""Reads `trainer_state.json`, the history that Hugging Face's Trainer keeps in every checkpoint and at the end.

It has no times but that of the whole training, told by the entry behind the last step.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...events.errors import FileRefused
from .source import Item, Said, as_number, as_step

MAX_BYTES = 512 * 1024**2
OF_THE_WHOLE = ("train_runtime", "train_loss", "total_flos", "train_samples_per_second", "train_steps_per_second")
"""Told once, of the whole training: no values of a step."""
CONFIGURED = ("max_steps", "num_train_epochs", "train_batch_size", "logging_steps", "eval_steps", "save_steps")


@dataclass(frozen=True)
class TrainerState:
    """One training by its last state."""

    path: Path
    name: str
    format: str = "huggingface"

    def said(self) -> Said:
        state, last = self._state, self._whole
        config = {key: state[key] for key in CONFIGURED if state.get(key) is not None}
        ended = last is not None or as_number(state.get("global_step")) == as_number(state.get("max_steps"))
        return Said(
            config=config,
            environment={"whole_training": last} if last else {},
            clock="none",
            runtime_s=as_number((last or {}).get("train_runtime")),
            outcome="completed" if ended else "lost",
        )

    def items(self) -> Iterator[Item]:
        for entry in self._history:
            step = as_step(as_number(entry.get("step")))
            if step is None:
                raise FileRefused(f"{self.path}: an entry of its log_history has no step: {entry!r:.100}")
            told = {name: as_number(value) for name, value in entry.items() if name != "step"}
            whole = OF_THE_WHOLE if "train_runtime" in entry else ()
            values = {name: value for name, value in told.items() if value is not None and name not in whole}
            if values:
                yield Item(None, step, values)

    @cached_property
    def _state(self) -> Mapping[str, Any]:
        try:
            if self.path.stat().st_size > MAX_BYTES:
                raise FileRefused(f"{self.path}: is over {MAX_BYTES} bytes")
            state = json.loads(self.path.read_bytes())
        except OSError as error:
            raise FileRefused(f"{self.path}: cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise FileRefused(f"{self.path}: is no JSON: {error}") from error
        if not isinstance(state, dict) or not isinstance(state.get("log_history"), list):
            raise FileRefused(f"{self.path}: has no log_history, which a Trainer's state has")
        return state

    @cached_property
    def _history(self) -> list[Mapping[str, Any]]:
        history = self._state["log_history"]
        if not all(isinstance(entry, dict) for entry in history):
            raise FileRefused(f"{self.path}: an entry of its log_history is no object")
        return [entry for entry in history if entry]

    @property
    def _whole(self) -> dict[str, Any] | None:
        return next((dict(entry) for entry in reversed(self._history) if "train_runtime" in entry), None)


def progress(path: Path) -> int:
    """How far a state is, to choose the last of several checkpoints; -1 where it cannot be read.

    Not by the folder's name alone: people rename them.
    """
    try:
        step = as_step(as_number(TrainerState(path, "")._state.get("global_step")))
    except FileRefused:
        return -1
    return -1 if step is None else step
