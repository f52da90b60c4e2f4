"""Pilothouse inside a training script: `with pilothouse.start_run("gpt-small") as run: ...`

The face of the producers, and nothing else. It is loaded by every import of a subpackage, so each name is
fetched on first use: importing the vocabulary must load neither Kafka nor Faust nor ClickHouse.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .producers.checkpoints.own_checkpoints import announce_checkpoint
    from .producers.checkpoints.store import Checkpoints
    from .producers.integrations.torch import watch
    from .producers.run import Run
    from .producers.start import start_run
    from .producers.steering.knobs import Knob
    from .producers.steering.pilot import Pilot

    __version__: str

__all__ = ["Checkpoints", "Knob", "Pilot", "Run", "__version__", "announce_checkpoint", "start_run", "watch"]

_HOME = {
    "Checkpoints": ".producers.checkpoints.store",
    "Knob": ".producers.steering.knobs",
    "Pilot": ".producers.steering.pilot",
    "Run": ".producers.run",
    "announce_checkpoint": ".producers.checkpoints.own_checkpoints",
    "start_run": ".producers.start",
    "watch": ".producers.integrations.torch",
}


# A type checker reads the imports above; were this in its sight, it would believe in any name at all.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name == "__version__":
            return importlib.import_module("importlib.metadata").version(__name__)
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")
        return getattr(importlib.import_module(_HOME[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
