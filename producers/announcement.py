"""What a run says of itself when an attempt begins, and again for the same attempt where there is news.

Kept by `producers.run`, which tells it as `RunStarted` on rank 0.
"""

from collections.abc import Callable, Mapping
from typing import Any

from .ranks.context import Identity


class Announcement:
    """The last one. `description` are its fields that hold for all attempts; `values` says what is in force now of what
    may be steered.
    """

    def __init__(self, identity: Identity, description: Mapping[str, Any]) -> None:
        self.identity = identity
        self._description = dict(description)
        self.values: Callable[[], Mapping[str, float]] = dict
        self._attempt: dict[str, Any] = {}

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of `RunStarted`."""
        about = {"world_size": self.identity.world_size, "values": self.values()}
        return {**about, **self._attempt, **self._description}

    def begin(self, identity: Identity, **attempt: Any) -> None:
        """Another attempt, with the fields that are its own."""
        self.identity, self._attempt = identity, attempt

    def note(self, field: str, value: Any) -> bool:
        """Put this into the description; whether it is news."""
        old = self._description.get(field)
        self._description[field] = value
        return (old or None) != (value or None)
