"""What a run says of itself when an attempt begins, and again for the same attempt where there is news.

Kept by `producers.run`, which tells it as `RunStarted` on rank 0.
"""

from collections.abc import Mapping
from typing import Any

from .ranks.context import Identity


class Announcement:
    """The last one. `description` are its fields that hold for all attempts."""

    def __init__(self, identity: Identity, description: Mapping[str, Any]) -> None:
        self.identity = identity
        self._description = dict(description)
        self._attempt: dict[str, Any] = {}

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of `RunStarted`."""
        return {"world_size": self.identity.world_size, **self._attempt, **self._description}

    def begin(self, identity: Identity, **attempt: Any) -> None:
        """Another attempt, with the fields that are its own."""
        self.identity, self._attempt = identity, attempt

    def note(self, field: str, value: Any) -> bool:
        """Put this into the description; whether it is news."""
        old = self._description.get(field)
        self._description[field] = value
        return (old or None) != (value or None)
