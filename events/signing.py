"""Who said it: Ed25519 signatures over the very bytes of a record, and which keys may say what. Pure.

A signature covers the body and what says how it is to be read: `covered`. One record may carry several, one of each
key in use, so that while one key takes over from another whoever knows either of them believes the record. `keyring`
reads keys from files and the environment; the governor, the archiver, the advisor and rank 0 ask a `Trust` before they
believe anything that can steer a run.

The chain: every decision carries the link of the one before it in its run, under its signature. What is taken out of
the middle of an archive leaves two that do not fit together (`storage.audit`).
"""

from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from .codec import KEY_ID_HEADER, KIND_HEADER, PREVIOUS_HEADER, SCHEMA_HEADER, SIGNATURE_HEADER, Encoded
from .commands import AdviceGiven, OperatorCommand, PolicyActivated, Tick
from .envelope import Decision
from .errors import SettingsInvalid
from .union import AnyEvent

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KeyRole = Literal["governor", "operator", "advisor"]
Distrust = Literal["Unsigned", "UnknownKey", "BadSignature", "NotItsToSay", "NoKeys"]

ROLES: tuple[KeyRole, ...] = get_args(KeyRole)
PUBLIC, PRIVATE, RETIRED = "ed25519", "ed25519-private", "retired"
KEY_BYTES = 32
DOMAIN = b"pilothouse/1"
GENESIS = bytes(32)
"""What stands as the link of a run's first decision."""

MOST_SIGNATURES = 8
"""Of one record that are looked at: nobody may keep a reader busy."""


class PublicKey(NamedTuple):
    """A key that is believed. One that is `retired` vouches for what it signed in the past, and orders nothing."""

    role: KeyRole
    raw: bytes
    name: str
    retired: bool = False

    @property
    def id(self) -> str:
        return sha256(self.raw).hexdigest()[:16]

    def line(self) -> str:
        """As it stands in a file of trusted keys."""
        words = (self.role, PUBLIC, b64encode(self.raw).decode(), self.name, *([RETIRED] if self.retired else []))
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key that signs. Its seed is shown by `line` alone."""

    role: KeyRole
    seed: bytes = field(repr=False)
    name: str

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.role, _private(self.seed).public_key().public_bytes_raw(), self.name)

    def line(self) -> str:
        """As it stands in a file of signing keys: whoever reads it can sign."""
        return " ".join((self.role, PRIVATE, b64encode(self.seed).decode(), self.name))


@dataclass(frozen=True, slots=True)
class Untrusted:
    """Why a record is not believed: one CamelCase word, and what a person reads."""

    reason: Distrust
    detail: str


@dataclass(frozen=True, slots=True)
class Trust:
    """Which keys are believed. Where `required` is false everything is: there are no keys, and the log is this
    machine's own.
    """

    keys: tuple[PublicKey, ...] = ()
    required: bool = True

    def objection(self, event: AnyEvent, encoded: Encoded, *, past: bool = False) -> Untrusted | None:
        """Why this event is not believed; None where it may be, or where anybody may say it. Of the `past` a retired
        key may tell.
        """
        roles = who_may_say(event)
        if not roles or not self.required:
            return None
        found = self.signer(encoded)
        if isinstance(found, Untrusted):
            return found
        if found.retired and not past:
            return Untrusted("UnknownKey", f"key {found.id} ({found.name}) is retired")
        if found.role not in roles:
            return Untrusted(
                "NotItsToSay", f"{event.kind} was signed by {found.name}, a key of the {found.role}: not its to say"
            )
        return None

    def signer(self, encoded: Encoded) -> PublicKey | Untrusted:
        """Whose signature it bears: the first of ours that fits, one in use before a retired one."""
        if not self.keys:
            return Untrusted("NoKeys", "no trusted keys were given here: nothing that is said can be believed")
        given = list(signatures_of(encoded.headers))
        if not given:
            return Untrusted("Unsigned", "it bears no signature")
        known = {key.id: key for key in self.keys}
        ours = sorted(((known[name], made) for name, made in given if name in known), key=lambda pair: pair[0].retired)
        if not ours:
            there = ", ".join(name for name, _ in given)
            return Untrusted("UnknownKey", f"it is signed by {there}, and none of these is trusted here")
        message = covered(encoded)
        for key, signature in ours:
            if _fits(key.raw, signature, message):
                return key
        return Untrusted("BadSignature", f"its bytes are not those that key {ours[0][0].id} signed")


OPEN = Trust(required=False)
"""Believes everything: for a log on this machine's own loopback, and nobody's keys."""


def who_may_say(event: AnyEvent) -> tuple[KeyRole, ...]:
    """Whose keys may sign it, where it can steer a run; of all else nobody is asked who said it."""
    match event:
        case Decision() | Tick():
            return ("governor",)
        case OperatorCommand():
            return ("operator",)
        case PolicyActivated():
            return ("operator", "governor")
        case AdviceGiven():
            return ("advisor",)
        case _:
            return ()


def covered(encoded: Encoded) -> bytes:
    """The bytes that are signed: the body, and with their lengths before them the headers that say how to read it."""
    named = dict(encoded.headers)
    told = [DOMAIN, *(named.get(name, b"") for name in (KIND_HEADER, SCHEMA_HEADER, PREVIOUS_HEADER))]
    return b"".join(len(part).to_bytes(2, "big") + part[:65_535] for part in told) + encoded.body


def link_of(encoded: Encoded) -> bytes:
    """What the next decision of the run carries as the link to this one."""
    return sha256(covered(encoded)).digest()


def linked(encoded: Encoded, previous: bytes) -> Encoded:
    """The record with the link to the one before it."""
    return Encoded(encoded.body, [*encoded.headers, (PREVIOUS_HEADER, previous)])


def signed(encoded: Encoded, keys: Sequence[PrivateKey]) -> Encoded:
    """The record with a signature of each key; as it was where there is none."""
    if not keys:
        return encoded
    message = covered(encoded)
    made = ((_id_of(key.seed), _private(key.seed).sign(message)) for key in keys)
    pairs = [pair for name, signature in made for pair in ((KEY_ID_HEADER, name), (SIGNATURE_HEADER, signature))]
    return Encoded(encoded.body, [*encoded.headers, *pairs])


def signatures_of(headers: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """(key id, signature) for each pair, in their order."""
    name, left = "", MOST_SIGNATURES
    for header, value in headers:
        if header == KEY_ID_HEADER:
            name = (value or b"").decode(errors="replace")[:64]
        elif header == SIGNATURE_HEADER and left:
            left -= 1
            yield name, value or b""


def read_public(text: str, where: str) -> tuple[PublicKey, ...]:
    """The keys of a file of trusted keys: a line for each, `ROLE ed25519 BASE64 NAME`, and `retired` behind it.

    Raises:
        SettingsInvalid: a line is none.
    """
    keys = []
    for words in _lines(text):
        role, raw, name, *rest = _key(words, PUBLIC, where)
        if rest not in ([], [RETIRED]):
            raise SettingsInvalid(f"{where}: behind a key's name stands nothing or {RETIRED!r}, not {' '.join(rest)!r}")
        keys.append(PublicKey(_role(role, where), raw, name, retired=bool(rest)))
    return tuple(keys)


def read_private(text: str, where: str) -> tuple[PrivateKey, ...]:
    """The keys of a file of signing keys: a line for each, `ROLE ed25519-private BASE64 NAME`.

    Raises:
        SettingsInvalid: a line is none; the message shows nothing of it.
    """
    keys = []
    for words in _lines(text):
        role, seed, name, *_ = _key(words, PRIVATE, where)
        keys.append(PrivateKey(_role(role, where), seed, name))
    return tuple(keys)


def _lines(text: str) -> Iterator[list[str]]:
    for line in text.replace(",", "\n").splitlines():
        words = line.partition("#")[0].split()
        if words:
            yield words


def _key(words: list[str], kind: str, where: str) -> tuple[str, bytes, str, *tuple[str, ...]]:
    if len(words) < 4 or words[1] != kind:
        raise SettingsInvalid(
            f"{where}: a key is written as `ROLE {kind} BASE64 NAME`; `pilothouse keys new` makes one"
        )
    try:
        raw = b64decode(words[2], validate=True)
    except ValueError:
        raw = b""
    if len(raw) != KEY_BYTES:
        raise SettingsInvalid(f"{where}: the key {words[3]!r:.100} is not {KEY_BYTES} bytes in Base64")
    return words[0], raw, words[3], *words[4:]


def _role(word: str, where: str) -> KeyRole:
    for role in ROLES:
        if word == role:
            return role
    raise SettingsInvalid(f"{where}: a key's role is one of {', '.join(ROLES)}, not {word!r:.100}")


@lru_cache(maxsize=16)
def _private(seed: bytes) -> "Ed25519PrivateKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed)


@lru_cache(maxsize=16)
def _id_of(seed: bytes) -> bytes:
    return PublicKey("governor", _private(seed).public_key().public_bytes_raw(), "").id.encode()


@lru_cache(maxsize=64)
def _public(raw: bytes) -> "Ed25519PublicKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(raw)


def _fits(raw: bytes, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        _public(raw).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
