"""Copies of a run: a model, a callback or a data set that holds one may be copied, pickled and sent to workers.

Called by `producers.run`. In its process a run is one writer, and a copy of it is itself. In another process it has no
thread and no connection: what arrives there knows who it was, takes every call, and publishes nothing.
"""

from typing import TYPE_CHECKING, Any

from ..settings import Settings
from .metrics.thinning import Thinning
from .opening import outbox_of
from .ranks.ballots import LocalBallots
from .ranks.context import Identity
from .steering.safe_point import Links
from .teller import Teller

if TYPE_CHECKING:
    from .run import Run


def itself(run: "Run", _memo: object = None) -> "Run":
    """A copy of a run in its own process."""
    return run


def pickled(run: "Run") -> tuple[Any, ...]:
    """A run on its way to another process, or into a checkpoint: without its settings, which hold passwords."""
    return arrived, (run.identity, run.last_step)


def arrived(identity: Identity, step: int) -> "Run":
    """What a run is behind `pickle`. It says once, at the first `log`, that a process must start its own."""
    from .run import Run

    settings = Settings()
    return Run(identity, settings, {}, outbox_of(identity, settings, Thinning(1, identity.rank))).left_behind(step)


def no_links(_run: Teller, _settings: Settings) -> Links:
    """Of a pilot of such a run: it hears no command, and no rank counts on it."""
    return Links(LocalBallots())
