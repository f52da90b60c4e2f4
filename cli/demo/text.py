"""The demo's data: windows of bytes from Python's own sources, split into what is trained on and what is held out.

Read by `train` on every rank. Real text that lies on every machine that can run this: the standard library's modules,
in the order of their names. Which files are held out depends on nothing but their place in that order.
"""

import sysconfig
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

VOCABULARY = 128
"""ASCII. The few other characters of the sources are read as one, the last."""

HOLD_OUT_EVERY = 10
"""Every tenth file is for validation."""


class Windows(Dataset[Tensor]):
    """A text as windows of `length + 1` characters, each beginning where the last one ended: inputs and targets of one
    sample.
    """

    def __init__(self, text: bytes, length: int) -> None:
        characters = torch.frombuffer(bytearray(text), dtype=torch.uint8).long().clamp_(max=VOCABULARY - 1)
        self._windows = characters.unfold(0, length + 1, length)

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> Tensor:
        return self._windows[index]


class Split(NamedTuple):
    """What is trained on, and what never is."""

    training: Windows
    validation: Windows


def python_sources(length: int, folder: Path | None = None) -> Split:
    """The standard library in windows of `length` characters; `folder` names other sources.

    Raises:
        FileNotFoundError: there are fewer than ten `.py` files in the folder.
    """
    folder = folder or Path(sysconfig.get_path("stdlib"))
    files = sorted(folder.glob("*.py"))
    if len(files) < HOLD_OUT_EVERY:
        raise FileNotFoundError(f"{folder} holds {len(files)} Python sources: the demo needs at least {HOLD_OUT_EVERY}")
    held_out = files[::HOLD_OUT_EVERY]
    trained_on = [file for file in files if file not in held_out]
    return Split(*(Windows(b"\n".join(file.read_bytes() for file in part), length) for part in (trained_on, held_out)))
