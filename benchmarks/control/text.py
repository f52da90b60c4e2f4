"""What the benchmark's models read: the Python language reference, as every Python carries it for `help()`.

Real English with code in it, 700 KB, on every machine that can run this. Every fifth paragraph is held out; a seed
chooses where in the rest a training begins.
"""

import random
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from pilothouse.cli.demo.text import Windows

HOLD_OUT_EVERY = 5


class Corpus(NamedTuple):
    """Windows of `length + 1` characters each: (windows, length + 1)."""

    training: Tensor
    validation: Tensor


@cache
def _paragraphs() -> tuple[bytes, ...]:
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name] for name in sorted(topics))
    return tuple(part.encode("ascii", "replace") + b"\n\n" for part in text.split("\n\n") if part.strip())


def corpus(seed: int, training_chars: int, validation_windows: int, length: int) -> Corpus:
    """So many characters to train on, from a place that the seed chooses; the validation is the same for all seeds."""
    paragraphs = _paragraphs()
    held_out = paragraphs[::HOLD_OUT_EVERY]
    rest = [part for number, part in enumerate(paragraphs) if number % HOLD_OUT_EVERY]
    begin = random.Random(seed).randrange(len(rest))
    text = b"".join(rest[begin:] + rest[:begin])[:training_chars]
    training, validation = Windows(text, length), Windows(b"".join(held_out), length)
    places = torch.linspace(0, len(validation) - 1, validation_windows).round().long().tolist()
    return Corpus(_stacked(training, range(len(training))), _stacked(validation, places))


def _stacked(windows: Windows, places: Iterable[int]) -> Tensor:
    return torch.stack([windows[place] for place in places])


class Batches:
    """A loader: the windows in an order of its own in every epoch, the same for the same seed."""

    def __init__(self, windows: Tensor, batch_size: int, seed: int) -> None:
        self._windows, self._batch_size, self._seed = windows, batch_size, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._windows) // self._batch_size

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.randperm(
            len(self._windows), generator=torch.Generator().manual_seed(self._seed * 10_007 + self._epoch)
        )
        for batch in range(len(self)):
            yield self._windows[order[batch * self._batch_size : (batch + 1) * self._batch_size]]
