"""State that is spread over ranks (`fully_shard`, tensor parallel): made whole for a checkpoint, cut up after one.

For `checkpoints.trainer_state`; `integrations` ask what a gradient is a part of. A checkpoint holds whole tensors, so
that it fits another number of ranks, or none of this. Making whole is a collective on every rank; cutting up needs
nobody.
"""

from collections.abc import Mapping
from typing import Any

FSDP1 = (
    "FullyShardedDataParallel keeps its state in flat parts that fit no other number of ranks; "
    "use torch.distributed.fsdp.fully_shard to have checkpoints"
)


def is_sharded(tensor: Any) -> bool:
    """Whether it is a DTensor. Asked by what it can do, so that nothing is imported."""
    return hasattr(tensor, "full_tensor") and hasattr(tensor, "device_mesh")


def is_flat(parameter: Any) -> bool:
    """Whether it is a part of `FullyShardedDataParallel`'s flat state, or a view of one: its gradient is this rank's
    part, and nothing about it says so.
    """
    return bool(getattr(parameter, "_fsdp_flattened", False))


def obstacle(model: Any) -> str:
    """Why this model's state cannot be saved; empty where it can."""
    modules = model.modules() if hasattr(model, "modules") else ()
    return FSDP1 if any(type(module).__name__ == "FullyShardedDataParallel" for module in modules) else ""


def any_sharded(model_state: Mapping[str, Any]) -> bool:
    """Whether a model's state is spread over ranks."""
    return any(is_sharded(value) for value in model_state.values())


def whole(state: Any, keep: bool) -> Any:
    """The same with every sharded tensor made whole, on the CPU; on every rank, or none. Without `keep` only the
    others' share of the work is done, and nothing is held.
    """
    if is_sharded(state):
        full = state.full_tensor()
        return full.cpu() if keep else None
    if isinstance(state, Mapping):
        return {name: whole(value, keep) for name, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)([whole(value, keep) for value in state])
    return state


def cut_like(saved: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """A model's whole state, cut as its own is."""
    if not any_sharded(own):
        return saved
    return {name: _cut(value, own.get(name)) for name, value in saved.items()}


def cut_for(optimizer: Any, saved: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's whole state, cut as its parameters are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        number: {name: _cut(value, parameters[number]) for name, value in values.items()}
        for number, values in saved["state"].items()
    }
    return {**saved, "state": state}


def _cut(value: Any, like: Any) -> Any:
    if not is_sharded(like) or getattr(value, "shape", None) != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    # Every rank has read the whole of it: none needs to be sent another's.
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
