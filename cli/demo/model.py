"""The demo's model: a small GPT that predicts the next character, in plain PyTorch.

Built by `train` on every rank. Nothing in it knows of Pilothouse.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .text import VOCABULARY


@dataclass(frozen=True, slots=True)
class Shape:
    """How large the model is. `length` is the longest context, in characters."""

    width: int
    layers: int
    heads: int
    length: int = 64


class Block(nn.Module):
    """One layer of a decoder: attention to what came before, then two linear maps; each adds to its input."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.before_attention = nn.LayerNorm(shape.width)
        self.query_key_value = nn.Linear(shape.width, 3 * shape.width)
        self.attention_out = nn.Linear(shape.width, shape.width)
        self.before_mlp = nn.LayerNorm(shape.width)
        self.mlp = nn.Sequential(
            nn.Linear(shape.width, 4 * shape.width), nn.GELU(), nn.Linear(4 * shape.width, shape.width)
        )

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor = x + self._attend(self.before_attention(x))
        thought: Tensor = self.mlp(self.before_mlp(attended))
        return attended + thought

    def _attend(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        split = self.query_key_value(x).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        out: Tensor = self.attention_out(seen.transpose(1, 2).reshape(batch, length, width))
        return out


class GPT(nn.Module):
    """Characters in, logits of the next character out: (batch, length) -> (batch, length, VOCABULARY)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.characters = nn.Embedding(VOCABULARY, shape.width)
        self.positions = nn.Parameter(0.3 * torch.randn(shape.length, shape.width))
        self.blocks = nn.Sequential(*(Block(shape) for _ in range(shape.layers)))
        self.last_norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, VOCABULARY, bias=False)
        nn.init.zeros_(self.head.weight)  # the first guess is that every character is equally likely

    def forward(self, characters: Tensor) -> Tensor:
        x = self.characters(characters) + self.positions[: characters.shape[1]]
        logits: Tensor = self.head(self.last_norm(self.blocks(x)))
        return logits
