"""What a running stack leaves in its data directory: its addresses, the archive's passwords, the log's epoch.

Written by `up` and the supervisor; `stack.json` is read by `settings` in every other process on this directory, and
is gone when nothing runs. The passwords and the epoch stay: what a person exported yesterday still works today.
"""

import json
import os
import secrets
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..events.signing import ROLES
from ..settings import STACK_FILE
from .brokers import HOST
from .key_files import TRUSTED_FILE, private_file

ACCESS_FILE = "access.json"
EPOCH_FILE = "epoch.json"


@dataclass(frozen=True, slots=True)
class Access:
    """The passwords of the archive's two users: everything, and reading only."""

    full: str = field(repr=False)
    reader: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Epoch:
    """Which log this is: the broker's identity, and how many logs there were up to it."""

    number: int = 0
    cluster_id: str = ""


@dataclass(frozen=True, slots=True)
class Stack:
    """Where everything is. `policy_file` is absolute or None; `partitions` is what the broker says; `page_port` is 0
    where no browser is served.
    """

    data_dir: Path
    kafka: str
    http_port: int
    access: Access
    embedded: bool
    partitions: int
    policy_file: Path | None = None
    page_port: int = 0
    log_epoch: int = 0
    keys: Path | None = None
    """The folder of this stack's own keys; None where the settings name others."""

    @property
    def archive_address(self) -> str:
        return f"http://{HOST}:{self.http_port}"

    @property
    def clickhouse_url(self) -> str:
        return f"http://pilothouse:{self.access.full}@{HOST}:{self.http_port}/pilothouse"

    @property
    def reader_url(self) -> str:
        return f"http://reader:{self.access.reader}@{HOST}:{self.http_port}/pilothouse"

    def with_log(self, epoch: int, partitions: int) -> "Stack":
        return replace(self, log_epoch=epoch, partitions=partitions)

    @property
    def environ(self) -> dict[str, str]:
        """The settings of a worker of this stack: the passwords are in no argument list."""
        named = {
            "KAFKA": self.kafka,
            "CLICKHOUSE_URL": self.clickhouse_url,
            "READER_TOKEN": self.access.reader,
            "DATA_DIR": str(self.data_dir),
            "LOG_EPOCH": str(self.log_epoch),
            "EMBEDDED_BROKER": str(self.embedded).lower(),
            "PARTITIONS": str(self.partitions),
        }
        if self.policy_file is not None:
            named["POLICY_FILE"] = str(self.policy_file)
        return {f"PILOTHOUSE_{name}": value for name, value in named.items()}

    def environ_of(self, role: str) -> dict[str, str]:
        """The same for one worker, with the keys that are its own."""
        if self.keys is None:
            return self.environ
        named = {"PILOTHOUSE_TRUSTED_KEYS_FILE": str(self.keys / TRUSTED_FILE)}
        if role in ROLES:
            named["PILOTHOUSE_SIGNING_KEY_FILE"] = str(self.keys / private_file(role))
        return self.environ | named

    def announce(self, pids: dict[str, int]) -> None:
        """Tell every other process on this data directory."""
        told = {
            "kafka": self.kafka,
            "clickhouse_url": self.clickhouse_url,
            "reader_url": self.reader_url,
            "log_epoch": self.log_epoch,
            "embedded_broker": self.embedded,
            "partitions": self.partitions,
            "page_port": self.page_port,
            "pids": pids,
        }
        if self.keys is not None:
            told["trusted_keys_file"] = str(self.keys / TRUSTED_FILE)
            told["signing_key_file"] = str(self.keys / private_file("operator"))
        write_private(self.data_dir / STACK_FILE, told)


def withdraw(data_dir: Path) -> None:
    """Nothing runs here (any more)."""
    (data_dir / STACK_FILE).unlink(missing_ok=True)


def told_by_stack(data_dir: Path) -> dict[str, Any]:
    """What the stack on this data directory says of itself; empty where none runs."""
    return _read(data_dir / STACK_FILE)


def access_of(data_dir: Path) -> Access:
    """This directory's passwords, made on the first call."""
    known = _read(data_dir / ACCESS_FILE)
    if {"full", "reader"} <= known.keys():
        return Access(known["full"], known["reader"])
    access = Access(secrets.token_urlsafe(24), secrets.token_urlsafe(24))
    write_private(data_dir / ACCESS_FILE, {"full": access.full, "reader": access.reader})
    return access


def read_epoch(data_dir: Path) -> Epoch:
    """The epoch of the log that ran here last; 0 where none did."""
    known = _read(data_dir / EPOCH_FILE)
    return Epoch(int(known.get("epoch", 0)), str(known.get("cluster_id", "")))


def write_epoch(data_dir: Path, epoch: Epoch) -> None:
    write_private(data_dir / EPOCH_FILE, {"epoch": epoch.number, "cluster_id": epoch.cluster_id})


def write_private(path: Path, content: dict[str, Any]) -> None:
    """Replace a file as a whole; nobody but its owner may read it, at no moment."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
