"""What lies on this machine's disks, encrypted where a key was given: AES-256-GCM by the `cryptography` library.

The spool seals each frame, checkpoints are sealed as files in chunks, so that a file of any size costs the memory of
one. The key is `keyring.sealing_key`'s. What was changed, cut or moved is refused, never half read.

Chunks follow the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár: Online Authenticated-Encryption and its
Nonce-Reuse Misuse-Resistance, 2015): each nonce holds the chunk's number and whether it is the last.
"""

import os
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"PHSEAL1\n"
CHUNK_BYTES = 1024 * 1024
TAG_BYTES, NONCE_BYTES, PREFIX_BYTES = 16, 12, 7

Part = Callable[[IO[bytes]], object]
"""Writes a file."""


class Unsealable(ValueError):
    """It is not what was sealed with this key."""


def sealed(plain: bytes, key: bytes, about: bytes) -> bytes:
    """A short text; `about` is not in it, and must be the same when it is opened."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + _cipher(key).encrypt(nonce, plain, about)


def opened(text: bytes, key: bytes, about: bytes) -> bytes:
    """
    Raises:
        Unsealable: another key, another `about`, or changed bytes.
    """
    from cryptography.exceptions import InvalidTag

    try:
        return _cipher(key).decrypt(text[:NONCE_BYTES], text[NONCE_BYTES:], about)
    except (InvalidTag, ValueError) as error:
        raise Unsealable("it was sealed with another key, or its bytes have changed") from error


def sealed_part(part: Part, key: bytes) -> Part:
    """The same file, sealed as it is written."""

    def write(file: IO[bytes]) -> None:
        sealing = _SealedFile(file, key)
        part(sealing)  # type: ignore[arg-type]  # a writer needs no more of a file than this
        sealing.finish()

    return write


def is_sealed(raw: bytes) -> bool:
    """Whether a file's bytes are those of a sealed one."""
    return raw.startswith(MAGIC)


def opened_file(raw: bytes, key: bytes) -> bytes:
    """A sealed file's own bytes.

    Raises:
        Unsealable: another key, or it was changed or cut.
    """
    from cryptography.exceptions import InvalidTag

    prefix, start = raw[len(MAGIC) :][:PREFIX_BYTES], len(MAGIC) + PREFIX_BYTES
    step = CHUNK_BYTES + TAG_BYTES
    view, chunks = memoryview(raw), range(start, max(len(raw), start + 1), step)
    plain = bytearray()
    try:
        for number, at in enumerate(chunks):
            nonce = _nonce(prefix, number, is_last=at == chunks[-1])
            plain += _cipher(key).decrypt(nonce, view[at : at + step], MAGIC)
    except (InvalidTag, ValueError, OverflowError) as error:
        raise Unsealable("it was sealed with another key, or its bytes have changed") from error
    return bytes(plain)


class _SealedFile:
    """Takes what is written in pieces of any size, and writes it on in sealed chunks."""

    def __init__(self, file: IO[bytes], key: bytes) -> None:
        self._file = file
        self._cipher = _cipher(key)
        self._prefix = os.urandom(PREFIX_BYTES)
        self._number = 0
        self._waiting = bytearray()
        file.write(MAGIC + self._prefix)

    def write(self, data: bytes) -> int:
        self._waiting += data
        while len(self._waiting) > CHUNK_BYTES:  # the last chunk is known only at the end
            self._seal(bytes(self._waiting[:CHUNK_BYTES]), is_last=False)
            del self._waiting[:CHUNK_BYTES]
        return len(data)

    def flush(self) -> None:
        """What waits is not a whole chunk yet."""

    def finish(self) -> None:
        self._seal(bytes(self._waiting), is_last=True)
        self._waiting.clear()

    def _seal(self, chunk: bytes, *, is_last: bool) -> None:
        nonce = _nonce(self._prefix, self._number, is_last=is_last)
        self._file.write(self._cipher.encrypt(nonce, chunk, MAGIC))
        self._number += 1


def _nonce(prefix: bytes, number: int, *, is_last: bool) -> bytes:
    return prefix + number.to_bytes(4, "big") + bytes([is_last])


def _cipher(key: bytes) -> "AESGCM":
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)
