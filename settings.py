"""Settings of every process, one frozen model: `PILOTHOUSE_*` variables over a TOML file over what a running stack
says of itself.

Read once, by whoever composes a process (`cli`, `start_run`), and handed on as a value; nothing else reads the
environment.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .events.errors import SettingsInvalid

PREFIX = "PILOTHOUSE_"
CONFIG_KEY = "PILOTHOUSE_CONFIG"
STACK_FILE = "stack.json"
"""Written into the data directory by `pilothouse up` while it runs: the addresses and tokens of its parts."""

NOT_SETTINGS = frozenset({"CONFIG", "CORPUS", "DEBUG", "READER_TOKEN", "TEST_KAFKA", "RUN_ID"})
"""Variables of our prefix that are read elsewhere: the file's own name, the tests' inputs, the run's name in a job,
whether the command line shows tracebacks, and the password that only the archive's endpoint is given."""


class Settings(BaseModel):
    """Where things are and how they are paced. Seconds are floats, sizes are bytes.

    `kafka` is a list of host:port, comma separated. `clickhouse_url` is http(s)://user:password@host:port/database.
    `log_epoch` counts how often the log was lost and begun anew. `slot` names this worker among its equals.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kafka: Annotated[str, Field(min_length=1)] = "127.0.0.1:19092"
    clickhouse_url: str = "http://127.0.0.1:18123/pilothouse"
    data_dir: Path = Path("~/.pilothouse").expanduser()
    log_epoch: Annotated[int, Field(ge=0)] = 0
    slot: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] = "0"
    policy_file: Path | None = None
    partitions: Annotated[int, Field(ge=1, le=1_000)] = 4
    replication: Annotated[int, Field(ge=1, le=10)] = 1
    embedded_broker: bool = False
    tick_seconds: Annotated[float, Field(gt=0)] = 1.0
    state_flush_seconds: Annotated[float, Field(gt=0, le=5)] = 0.5
    archive_batch: Annotated[int, Field(ge=1, le=100_000)] = 500
    archive_linger_seconds: Annotated[float, Field(gt=0)] = 0.5
    producer_flush_seconds: Annotated[float, Field(gt=0)] = 0.2
    heartbeat_seconds: Annotated[float, Field(gt=0)] = 2.0
    spool_dir: Path | None = None
    spool_bytes: Annotated[int, Field(ge=0)] = 256 * 1024 * 1024
    close_seconds: Annotated[float, Field(gt=0)] = 10.0

    @field_validator("data_dir", "spool_dir", "policy_file", mode="after")
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value is not None else None

    @field_validator("clickhouse_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must look like http://user:password@host:8123/database")
        return value

    @property
    def spool(self) -> Path:
        """Where telemetry waits on disk while the broker is away."""
        return self.spool_dir if self.spool_dir is not None else self.data_dir / "spool"


def load_settings(environ: Mapping[str, str], **overrides: Any) -> Settings:
    """The settings of this process; `overrides` (command-line options) win over everything.

    Raises:
        SettingsInvalid: lists every wrong or unknown key, with where it came from.
    """
    values, faults = _from_file(environ.get(CONFIG_KEY))
    values |= _from_environment(environ)
    values |= {name: value for name, value in overrides.items() if value is not None}
    if not faults:
        try:
            return Settings(**(_from_stack(values) | values))
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
    raise SettingsInvalid("settings are wrong:\n  " + "\n  ".join(faults))


def _from_file(name: str | None) -> tuple[dict[str, Any], list[str]]:
    if not name:
        return {}, []
    try:
        return tomllib.loads(Path(name).read_text()), []
    except (OSError, tomllib.TOMLDecodeError) as error:
        return {}, [f"{CONFIG_KEY}={name}: {error}"]


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    ours = {name.removeprefix(PREFIX): value for name, value in environ.items() if name.startswith(PREFIX)}
    return {name.lower(): value for name, value in ours.items() if name not in NOT_SETTINGS}


def _from_stack(values: Mapping[str, Any]) -> dict[str, Any]:
    """What `pilothouse up` on this data directory left about itself; nothing where none runs."""
    data_dir = Path(values.get("data_dir") or Settings.model_fields["data_dir"].default).expanduser()
    try:
        stack = json.loads((data_dir / STACK_FILE).read_text())
    except (OSError, ValueError):
        return {}
    known = ("kafka", "clickhouse_url", "log_epoch", "embedded_broker", "partitions")
    return {name: stack[name] for name in known if name in stack}
