"""A folder of keys: one file for each role that signs, one that names whom to trust, one to encrypt with.

Made and changed by `pilothouse keys` and by `up`, which makes its own; read by `keyring` in every process. A new key
signs beside the old one until that is retired: who knows either believes what is said, and a training that was given
the old one alone is not left behind.
"""

import os
import secrets
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..events.errors import UserMistake
from ..events.signing import KEY_BYTES, ROLES, KeyRole, PrivateKey, PublicKey, read_private, read_public
from ..keyring import SEALING_BYTES

KEYS = "keys"
TRUSTED_FILE = "trusted.keys"
ENCRYPTION_FILE = "encryption.key"


def private_file(role: str) -> str:
    """The name of the file with this role's signing keys."""
    return f"{role}.key"


@dataclass(frozen=True, slots=True)
class KeyFolder:
    """The keys in `path`. Every change replaces a file as a whole."""

    path: Path

    def trusted(self) -> tuple[PublicKey, ...]:
        """
        Raises:
            SettingsInvalid: the file holds something else.
        """
        file = self.path / TRUSTED_FILE
        return read_public(file.read_text(), str(file)) if file.exists() else ()

    def signing(self, role: KeyRole) -> tuple[PrivateKey, ...]:
        """
        Raises:
            SettingsInvalid: the file holds something else.
        """
        file = self.path / private_file(role)
        return read_private(file.read_text(), str(file)) if file.exists() else ()

    def ensure(self) -> None:
        """A key for every role that has none."""
        for role in ROLES:
            if not self.signing(role):
                self.add(role, f"{role}-1")

    def add(self, role: KeyRole, name: str) -> PrivateKey:
        """A key more for this role: trusted first, then signing, so that nobody hears it before he can know it."""
        if not name.isprintable() or not name or any(mark in name for mark in " ,#"):
            raise UserMistake(f"a key's name has no spaces, commas or #: {name!r} is none")
        if any(key.name == name for key in self.trusted()):
            raise UserMistake(f"a key is called {name} already: choose another --name")
        key = PrivateKey(role, secrets.token_bytes(KEY_BYTES), name)
        self._write_trusted([*self.trusted(), key.public])
        self._write_signing(role, [*self.signing(role), key])
        return key

    def retire(self, named: str) -> PublicKey:
        """A key that signs no more and is obeyed no more; what it signed can still be shown to be its.

        Raises:
            UserMistake: there is no such key, or its role would have none left.
        """
        keys = self.trusted()
        meant = [key for key in keys if named in (key.id, key.name)]
        if not meant:
            raise UserMistake(f"no key is called {named!r}; there are: {', '.join(key.name for key in keys) or 'none'}")
        old = meant[0]
        if not [key for key in keys if key.role == old.role and key.id != old.id and not key.retired]:
            raise UserMistake(
                f"{old.name} is the only key of the {old.role}: `pilothouse keys rotate {old.role}` first"
            )
        self._write_signing(old.role, [key for key in self.signing(old.role) if key.public.id != old.id])
        retired = old._replace(retired=True)
        self._write_trusted([retired if key.id == old.id else key for key in keys])
        return retired

    def add_encryption(self) -> Path:
        """A key for what lies on disks.

        Raises:
            UserMistake: there is one, and what it encrypted would be lost with it.
        """
        file = self.path / ENCRYPTION_FILE
        if file.exists():
            raise UserMistake(f"{file} is there already: what it encrypted cannot be read without it")
        self._write(file, b64encode(secrets.token_bytes(SEALING_BYTES)).decode() + "\n", 0o600)
        return file

    def _write_trusted(self, keys: Sequence[PublicKey]) -> None:
        self._write(self.path / TRUSTED_FILE, "".join(f"{key.line()}\n" for key in keys), 0o644)

    def _write_signing(self, role: KeyRole, keys: Sequence[PrivateKey]) -> None:
        self._write(self.path / private_file(role), "".join(f"{key.line()}\n" for key in keys), 0o600)

    def _write(self, file: Path, text: str, mode: int) -> None:
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = file.with_suffix(".new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w") as written:
            written.write(text)
            written.flush()
            os.fsync(written.fileno())
        draft.replace(file)
