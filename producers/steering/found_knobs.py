"""Knobs that nobody has to name: weight decay, found in the optimizers' groups, and dropout, found in the model.

Made by `steering.pilot` for whatever a script did not name itself. Groups without decay (biases, norms) and layers
that drop nothing stay as they are, unless none does: then all are meant.
"""

from collections.abc import Sequence
from typing import Any

from .knobs import DROPOUT, WEIGHT_DECAY, Knob, Undo


def found_knobs(model: Any, optimizers: Sequence[Any]) -> dict[str, Knob]:
    """The knobs of this trainer; a model without dropout layers has no knob `dropout`."""
    found = {WEIGHT_DECAY: _weight_decay(optimizers), DROPOUT: _dropout(model)}
    return {name: knob for name, knob in found.items() if knob is not None}


def _weight_decay(optimizers: Sequence[Any]) -> Knob | None:
    groups = [group for optimizer in optimizers for group in optimizer.param_groups if "weight_decay" in group]
    # By place: a restored checkpoint brings other dictionaries into the list of groups.
    decays = [bool(float(group["weight_decay"])) for group in groups]
    meant = [number for number, does in enumerate(decays) if does or not any(decays)]
    if not meant:
        return None

    def now() -> list[dict[str, Any]]:
        current = [group for optimizer in optimizers for group in optimizer.param_groups if "weight_decay" in group]
        return [current[number] for number in meant if number < len(current)]

    def turn(value: float) -> None:
        for group in now():
            _assign(group, value)

    def keep() -> Undo:
        values = [float(group["weight_decay"]) for group in now()]

        def undo() -> None:
            for group, value in zip(now(), values, strict=True):
                _assign(group, value)

        return undo

    return Knob(turn, lambda: float(now()[0]["weight_decay"]), low=0.0, high=1.0, keep=keep, restored=True)


def _assign(group: dict[str, Any], value: float) -> None:
    if hasattr(group["weight_decay"], "fill_"):
        group["weight_decay"].fill_(value)  # a compiled optimizer holds on to this very tensor
    else:
        group["weight_decay"] = value


def _dropout(model: Any) -> Knob | None:
    layers = _dropout_layers(model)
    meant = [layer for layer in layers if layer.p > 0] or layers
    if not meant:
        return None

    def turn(value: float) -> None:
        for layer in meant:
            layer.p = value

    def keep() -> Undo:
        values = [layer.p for layer in meant]

        def undo() -> None:
            for layer, value in zip(meant, values, strict=True):
                layer.p = value

        return undo

    return Knob(turn, lambda: float(meant[0].p), low=0.0, high=0.9, keep=keep)


def _dropout_layers(model: Any) -> list[Any]:
    """Every `nn.Dropout` and its relatives. Attention that keeps a bare number (`nn.MultiheadAttention`) is not one."""
    if not hasattr(model, "modules"):
        return []
    from torch.nn.modules import dropout

    kinds = (
        dropout.Dropout,
        dropout.Dropout1d,
        dropout.Dropout2d,
        dropout.Dropout3d,
        dropout.AlphaDropout,
        dropout.FeatureAlphaDropout,
    )
    return [module for module in model.modules() if isinstance(module, kinds)]
