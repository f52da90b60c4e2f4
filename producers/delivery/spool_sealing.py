"""Records that wait on disk, encrypted where this process was given a key: asked by `delivery.spool` for each frame.

One key a process, given once (`use`) by whoever composes it: a trainer's outbox, or a command that sends what dead
processes left. A frame is opened with the key it was sealed with or not at all: it stays where it is.
"""

from ...events.errors import UserMistake
from ...sealing import Unsealable, opened, sealed

MARK = b"\xc1"
"""No msgpack begins so: what follows is sealed."""

_key: list[bytes] = []


class SpoolSealed(UserMistake, OSError):
    """What waits there is encrypted, and cannot be opened here."""


def use(key: bytes | None) -> None:
    """From now on frames are sealed with this key; with none, they are as they are."""
    _key[:] = [key] if key is not None else []


def stored(payload: bytes, seq: int) -> bytes:
    """A frame's payload as it goes to the disk. Sealed twice it differs, and is as long."""
    return MARK + sealed(payload, _key[0], b"%d" % seq) if _key else payload


def plain_of(payload: bytes, seq: int) -> bytes:
    """
    Raises:
        SpoolSealed: it is encrypted, and the key is not here.
    """
    if not payload.startswith(MARK):
        return payload
    if not _key:
        raise SpoolSealed("the telemetry that waits is encrypted: name its key in PILOTHOUSE_ENCRYPTION_KEY_FILE")
    try:
        return opened(payload[len(MARK) :], _key[0], b"%d" % seq)
    except Unsealable as error:
        raise SpoolSealed(f"the telemetry that waits cannot be opened with this key: {error}") from error
