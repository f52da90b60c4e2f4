"""The demo's GPT with dropout where GPT-2 has it: behind the embedding, and behind both halves of a layer."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pilothouse.cli.demo.model import GPT, Shape

from .recipe import Recipe


def model_of(recipe: Recipe) -> nn.Module:
    """The same weights for the same seed, whatever the dropout."""
    shape = Shape(width=recipe.width, layers=recipe.layers, heads=recipe.heads, length=recipe.length)
    model = GPT(shape)
    for block in model.blocks:
        assert isinstance(block.attention_out, nn.Module)
        assert isinstance(block.mlp, nn.Sequential)
        block.add_module("attention_out", nn.Sequential(block.attention_out, nn.Dropout(recipe.dropout)))
        block.mlp.append(nn.Dropout(recipe.dropout))
    model.add_module("characters", nn.Sequential(model.characters, nn.Dropout(recipe.dropout)))
    return model


def loss_of(model: nn.Module, windows: Tensor) -> Tensor:
    """Mean cross-entropy of the next character, in nats. `windows` is (windows, length + 1)."""
    logits = model(windows[:, :-1])
    return cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


@torch.no_grad()
def validation_loss(model: nn.Module, windows: Tensor) -> float:
    """Without dropout; NaN where the model is broken."""
    model.eval()
    loss = float(loss_of(model, windows))
    model.train()
    return loss
