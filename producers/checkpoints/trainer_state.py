"""All that a training process must get back to go on exactly as it was: to bytes, and back from them, in two moves.

`checkpoints.saving` calls it. The only module here that needs PyTorch, which it imports when it is called: importing
the package must not load it. `prepare` reads and checks everything in memory and touches nothing; `install` swaps it
in. So ranks can agree, between the two, that all or none do.

Files are read with `weights_only=True`: a checkpoint cannot run code. What cannot be read that way (a scheduler that
keeps objects in its state) is refused when it is saved, not when it is needed.
"""

import base64
import io
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...events.errors import CheckpointCorrupt, CheckpointError
from .manifest import Part
from .sharding import any_sharded, cut_for, cut_like, whole

MODEL, OPTIMIZER, TRAINER, RNG = "model.pt", "optimizer.pt", "trainer.pt", "rng.pt"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint in memory, checked against this trainer, not installed yet."""

    model: dict[str, Any]
    optimizers: list[dict[str, Any]]
    schedulers: list[dict[str, Any]]
    scaler: dict[str, Any] | None
    rng: dict[str, Any] | None
    pilot: dict[str, Any]


class TrainerState:
    """Model, optimizers, schedulers and gradient scaler of this rank, and its random generators."""

    def __init__(self, model: Any, optimizers: Sequence[Any], schedulers: Sequence[Any], scaler: Any = None) -> None:
        self._model = _unwrapped(model)
        self._optimizers = tuple(optimizers)
        self._schedulers = tuple(schedulers)
        self._scaler = scaler

    def parts(self, pilot: Mapping[str, Any], rng_of_ranks: Mapping[int, str]) -> dict[str, Part]:
        """The files of a checkpoint. `pilot` is what the pilot itself must remember; `rng_of_ranks` come from
        `rng_letter`.

        Raises:
            CheckpointError: a scheduler's or the scaler's state is not plain data.
        """
        import torch

        trainer = {
            "schedulers": [scheduler.state_dict() for scheduler in self._schedulers],
            "scaler": self._scaler.state_dict() if self._scaler is not None else None,
            "pilot": dict(pilot),
        }
        _must_be_plain(trainer)
        states = self._states()
        model, optimizers = whole(states, keep=True) if any_sharded(states[0]) else states
        rng = {str(rank): _letter_tensor(letter) for rank, letter in rng_of_ranks.items()}
        return {
            MODEL: lambda file: torch.save(model, file),
            OPTIMIZER: lambda file: torch.save(optimizers, file),
            TRAINER: lambda file: torch.save(trainer, file),
            RNG: lambda file: torch.save(rng, file),
        }

    def take_part(self) -> None:
        """While rank 0 asks for `parts`: the other ranks' share, where the state is spread over them."""
        states = self._states()
        if any_sharded(states[0]):
            whole(states, keep=False)

    def prepare(self, files: Mapping[str, bytes], rank: int) -> Loaded:
        """Read verified bytes and check that they fit this trainer; nothing is changed.

        Raises:
            CheckpointCorrupt: they cannot be read.
            CheckpointError: they are of another model or optimizer.
        """
        trainer, rng = _read(files, TRAINER), _read(files, RNG).get(str(rank))
        loaded = Loaded(
            model=_read(files, MODEL),
            optimizers=_read(files, OPTIMIZER),
            schedulers=trainer["schedulers"],
            scaler=trainer["scaler"],
            rng=_read({RNG: rng.numpy().tobytes()}, RNG) if rng is not None else None,
            pilot=trainer["pilot"],
        )
        self._must_fit(loaded)
        return loaded

    def install(self, loaded: Loaded) -> None:
        """Become what was saved. Gradients of the moment are dropped."""
        self._model.load_state_dict(cut_like(loaded.model, self._model.state_dict()))
        for optimizer, state in zip(self._optimizers, loaded.optimizers, strict=True):
            optimizer.load_state_dict(cut_for(optimizer, state))
            optimizer.zero_grad(set_to_none=True)
        for scheduler, state in zip(self._schedulers, loaded.schedulers, strict=True):
            scheduler.load_state_dict(state)
        if self._scaler is not None and loaded.scaler is not None:
            self._scaler.load_state_dict(loaded.scaler)
        if loaded.rng is not None:
            _set_rng(loaded.rng)

    def _states(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        return self._model.state_dict(), [optimizer.state_dict() for optimizer in self._optimizers]

    def _must_fit(self, loaded: Loaded) -> None:
        own = self._model.state_dict()
        wrong = [name for name in own.keys() | loaded.model.keys() if _shape(own, name) != _shape(loaded.model, name)]
        if wrong:
            raise CheckpointError(f"the checkpoint is of another model: {', '.join(sorted(wrong)[:3])} differ")
        if [_groups(optimizer.state_dict()) for optimizer in self._optimizers] != [
            _groups(state) for state in loaded.optimizers
        ]:
            raise CheckpointError("the checkpoint is of other optimizers: their parameter groups differ")
        if len(loaded.schedulers) != len(self._schedulers):
            raise CheckpointError(
                f"the checkpoint has {len(loaded.schedulers)} schedulers, this trainer {len(self._schedulers)}"
            )


def rng_letter() -> str:
    """The state of this process's random generators (Python, NumPy where loaded, PyTorch, its CUDA device), as text."""
    import torch

    state: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if "numpy" in sys.modules:
        name, keys, *rest = sys.modules["numpy"].random.get_state()
        state["numpy"] = [name, keys.tolist(), *rest]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch says no types
        state["cuda"] = torch.cuda.get_rng_state()
    file = io.BytesIO()
    torch.save(state, file)
    return base64.b64encode(file.getvalue()).decode()


def _set_rng(state: Mapping[str, Any]) -> None:
    import torch

    random.setstate(_tuples(state["python"]))
    torch.set_rng_state(state["torch"])
    if "numpy" in state and "numpy" in sys.modules:
        numpy = sys.modules["numpy"]
        name, keys, *rest = state["numpy"]
        numpy.random.set_state((name, numpy.array(keys, dtype="uint32"), *rest))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _unwrapped(model: Any) -> Any:
    """The model itself: a checkpoint should not depend on how it was wrapped for training."""
    import torch

    while isinstance(model, torch.nn.parallel.DistributedDataParallel) or hasattr(model, "_orig_mod"):
        model = model.module if isinstance(model, torch.nn.parallel.DistributedDataParallel) else model._orig_mod
    return model


def _read(files: Mapping[str, bytes], name: str) -> Any:
    import torch

    try:
        return torch.load(io.BytesIO(files[name]), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for bytes it cannot read
        raise CheckpointCorrupt(f"{name} cannot be read: {type(error).__name__}: {str(error)[:200]}") from error


def _must_be_plain(trainer: Mapping[str, Any]) -> None:
    import torch

    file = io.BytesIO()
    try:
        torch.save(trainer, file)
        file.seek(0)
        torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # what cannot be pickled, and what may not be read again, each in its own class
        raise CheckpointError(
            f"the scheduler's or scaler's state is not plain numbers and cannot be saved safely: {str(error)[:200]}"
        ) from error


def _letter_tensor(letter: str) -> Any:
    import torch

    return torch.frombuffer(bytearray(base64.b64decode(letter)), dtype=torch.uint8)


def _shape(state: Mapping[str, Any], name: str) -> tuple[int, ...] | None:
    value = state.get(name)
    return None if value is None else tuple(getattr(value, "shape", ()))


def _groups(state: Mapping[str, Any]) -> list[int]:
    return [len(group["params"]) for group in state["param_groups"]]


def _tuples(value: Any) -> Any:
    """Python's generator wants the tuples that its state was made of."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value
