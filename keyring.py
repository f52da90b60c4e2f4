"""The keys of this process: those it signs with and those it believes, from files or the environment.

Files are looked at again when they have changed, so that a key can be changed for another while a governor and the
trainings it steers run on. Made by whoever composes a process, from its `settings`.
"""

import contextlib
import logging
from base64 import b64decode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from .events.codec import Encoded
from .events.errors import SettingsInvalid
from .events.signing import OPEN, KeyRole, PrivateKey, Trust, read_private, read_public, signed
from .settings import Settings

T = TypeVar("T")

SEALING_BYTES = 32

log = logging.getLogger(__name__)


class _Watched(Generic[T]):
    """What a file says, read again when the file has changed. One that cannot be read any more still says what it did
    last.
    """

    def __init__(self, path: Path, read: Callable[[str, str], T]) -> None:
        self._path = path
        self._read = read
        self._stamp: tuple[int, int, int] | None = None
        self._said = self._fresh()

    def now(self) -> T:
        with contextlib.suppress(OSError):
            if self._look() != self._stamp:
                self._renew()
        return self._said

    def _renew(self) -> None:
        try:
            self._said = self._fresh()
        except SettingsInvalid as error:
            log.error("pilothouse: the keys in %s stay as they were: %s", self._path, error)

    def _fresh(self) -> T:
        try:
            self._stamp = self._look()
            text = self._path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise SettingsInvalid(f"keys cannot be read from {self._path}: {error}") from error
        return self._read(text, str(self._path))

    def _look(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino


class Signer:
    """Signs what this process says, with every key that it has; with none, nothing is signed."""

    def __init__(self, keys: Callable[[], tuple[PrivateKey, ...]] = tuple) -> None:
        self.held = keys

    def __call__(self, encoded: Encoded) -> Encoded:
        return signed(encoded, self.held())


def signer_of(settings: Settings) -> Signer:
    """
    Raises:
        SettingsInvalid: what is named as a key is none.
    """
    if settings.signing_key_file is not None:
        return Signer(_Watched(settings.signing_key_file, read_private).now)
    keys = read_private(settings.signing_key.get_secret_value(), "PILOTHOUSE_SIGNING_KEY")
    return Signer(lambda: keys)


def trust_of(settings: Settings) -> Callable[[], Trust]:
    """Whom this process believes, asked anew each time. With no keys at all: everybody where the log is on loopback,
    nobody elsewhere.

    Raises:
        SettingsInvalid: what is named as a key is none.
    """
    given = read_public(settings.trusted_keys, "PILOTHOUSE_TRUSTED_KEYS")
    if settings.trusted_keys_file is None:
        trust = Trust(given) if given or not settings.log_access.is_loopback else OPEN
        return lambda: trust
    watched = _Watched(settings.trusted_keys_file, read_public)
    return lambda: Trust((*given, *watched.now()))


def refuse_unbelieved(keys: Sequence[PrivateKey], trust: Trust, role: KeyRole) -> None:
    """Nothing, where what these keys sign as `role` is believed.

    Raises:
        SettingsInvalid: says which key is missing, and what to do.
    """
    mine = [key.public for key in keys if key.role == role]
    believed = {(key.id, key.role) for key in trust.keys if not key.retired}
    if not mine:
        raise SettingsInvalid(
            f"there is no key to sign with as {role}: `pilothouse keys new {role}` makes one, and "
            "PILOTHOUSE_SIGNING_KEY_FILE names its file"
        )
    if not any((key.id, role) in believed for key in mine):
        names = ", ".join(f"{key.id} ({key.name})" for key in mine)
        raise SettingsInvalid(
            f"what this {role} signs with is not trusted here: add the line of {names} to PILOTHOUSE_TRUSTED_KEYS_FILE "
            "(`pilothouse keys list` shows it)"
        )


def sealing_key(settings: Settings) -> bytes | None:
    """The key of what is encrypted on this machine's disks; None where nothing is to be.

    Raises:
        SettingsInvalid: what is named as a key is none.
    """
    text, where = settings.encryption_key.get_secret_value(), "PILOTHOUSE_ENCRYPTION_KEY"
    if settings.encryption_key_file is not None:
        where = str(settings.encryption_key_file)
        try:
            text = settings.encryption_key_file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise SettingsInvalid(f"the key of encryption cannot be read from {where}: {error}") from error
    if not text.strip() and settings.encryption_key_file is None:
        return None
    try:
        key = b64decode(text.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != SEALING_BYTES:
        raise SettingsInvalid(f"{where} holds no key of encryption: {SEALING_BYTES} bytes in Base64 are one")
    return key
