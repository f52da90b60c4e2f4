"""What an embedded archive's endpoint is told when it starts: one frozen value, checked at once.

Built by `pilothouse up` (and by tests); read by `storage.endpoint` and `storage.query_handler`.
"""

from dataclasses import dataclass, field
from pathlib import Path

from ..access import is_loopback
from ..events.errors import SettingsInvalid
from .read_only import ReaderLimits

FULL_USER, READER_USER = "pilothouse", "reader"


@dataclass(frozen=True)
class EndpointConfig:
    """Tokens are the passwords of `pilothouse` (full rights) and `reader`; port 0 is any free one.

    A handle runs one statement at a time: `query_handles` of them run what answers, `insert_handles` only inserts that
    carry their rows. At most `max_requests` requests are held at once, each with at most `max_body_bytes` (after
    decompression). It listens on loopback unless it is told that others may come (`open_to_others`), and speaks TLS
    where it has a certificate. With a `key` what it stores is encrypted. A result over
    `max_result_bytes` is an error unless the request asks for a larger limit.
    """

    data_dir: Path
    full_token: str = field(repr=False)
    reader_token: str = field(repr=False)
    host: str = "127.0.0.1"
    port: int = 0
    query_handles: int = 4
    insert_handles: int = 2
    max_requests: int = 64
    max_body_bytes: int = 256 * 1024**2
    max_result_bytes: int = 512 * 1024**2
    stop_seconds: float = 20.0
    reader_limits: ReaderLimits = field(default_factory=ReaderLimits)
    key: bytes | None = field(default=None, repr=False)
    open_to_others: bool = False
    certificate: Path | None = None
    certificate_key: Path | None = None

    def __post_init__(self) -> None:
        if not self.full_token or not self.reader_token or self.full_token == self.reader_token:
            raise SettingsInvalid("the archive's endpoint needs two different tokens, even on loopback")
        if not is_loopback(self.host) and not self.open_to_others:
            raise SettingsInvalid(f"the embedded archive listens on loopback only, not on {self.host}")
