"""Settings of every process, one frozen model: `PILOTHOUSE_*` variables over a TOML file over what a running stack
says of itself.

Read once, by whoever composes a process (`cli`, `start_run`), and handed on as a value; nothing else reads the
environment.
"""

import json
import os
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from stat import S_ISDIR
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from .access import KafkaAccess, Mechanism, Security
from .events.errors import SettingsInvalid

PREFIX = "PILOTHOUSE_"
CONFIG_KEY = "PILOTHOUSE_CONFIG"
STACK_FILE = "stack.json"
"""Written into the data directory by `pilothouse up` while it runs: the addresses and tokens of its parts."""

NOT_SETTINGS = frozenset({"ATTACH", "CONFIG", "CORPUS", "DEBUG", "READER_TOKEN", "TEST_KAFKA", "RUN_ID"})
"""Variables of our prefix that are read elsewhere: what `pilothouse run` tells its script, the file's own name, the
tests' inputs, the run's name in a job, whether the command line shows tracebacks, and the password that only the
archive's endpoint is given."""


class Settings(BaseModel):
    """Where things are and how they are paced. Seconds are floats, sizes are bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    kafka: Annotated[str, Field(min_length=1)] = "127.0.0.1:19092"
    """Brokers, host:port, several with commas between them."""
    kafka_security: Security = "plaintext"
    """How the log lets clients in: plaintext, ssl, sasl_plaintext or sasl_ssl."""
    kafka_mechanism: Mechanism = "PLAIN"
    """How a password is shown under SASL: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."""
    kafka_user: str = ""
    """The name under SASL."""
    kafka_password: SecretStr = SecretStr("")
    """Its password."""
    kafka_password_file: Path | None = None
    """The same in a file that holds it and nothing else; read once."""
    kafka_ca: Path | None = None
    """A PEM file: who signed the broker's certificate. Without it the system's authorities count."""
    signing_key: SecretStr = SecretStr("")
    """What this process signs with: the text itself (`keyring`)."""
    signing_key_file: Path | None = None
    """The same in a file, read again when it changes."""
    trusted_keys: str = ""
    """Whom this process obeys: public keys, one a line or with commas between them."""
    trusted_keys_file: Path | None = None
    """The same in a file, read again when it changes."""
    encryption_key: SecretStr = SecretStr("")
    """32 bytes in Base64: spool, checkpoints and the embedded archive are encrypted with it."""
    encryption_key_file: Path | None = None
    """The same in a file."""
    clickhouse_ca: Path | None = None
    """A PEM file: who signed the archive's certificate."""
    clickhouse_password_file: Path | None = None
    """The password of the user in `clickhouse_url`, in a file that holds it and nothing else; read once."""
    archive_host: str = "127.0.0.1"
    """The address on which the embedded archive listens."""
    archive_certificate: Path | None = None
    """A PEM file: with it the embedded archive speaks TLS."""
    archive_certificate_key: Path | None = None
    """The key of that certificate."""
    clickhouse_url: str = "http://127.0.0.1:18123/pilothouse"
    """The archive: http(s)://user:password@host:port/database."""
    data_dir: Path = Path("~/.pilothouse")
    """Where a stack of this machine keeps everything, and what is taken from it while one runs (`stack.json`)."""
    log_epoch: Annotated[int, Field(ge=0)] = 0
    """How often the log was lost and begun anew."""
    slot: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] = "0"
    """Names this worker among its equals; two of one slot throw each other out."""
    policy_file: Path | None = None
    """Of new runs: a policy, or a folder of them of which `applies_to` chooses."""
    partitions: Annotated[int, Field(ge=1, le=1_000)] = 4
    """Of each topic, when it is made."""
    replication: Annotated[int, Field(ge=1, le=10)] = 1
    """Copies of each topic, when it is made."""
    embedded_broker: bool = False
    """Whether the log is the embedded broker, which has habits of its own; `up` says so."""
    log_format: Literal["text", "json"] = "text"
    """How a worker writes its log: text, or json, one object a line."""
    probe_address: Annotated[str, Field(pattern=r"^$|^\S+:[0-9]{1,5}$")] = ""
    """HOST:PORT at which a worker answers whether it lives and is ready (`stream_processors.probes`); empty:
    nowhere.
    """
    tick_seconds: Annotated[float, Field(gt=0)] = 1.0
    """From one record of time to the next."""
    state_flush_seconds: Annotated[float, Field(gt=0, le=5)] = 0.5
    """At most so long the governor's acknowledgements wait for the states that contain them."""
    archive_batch: Annotated[int, Field(ge=1, le=100_000)] = 500
    """Records that the archiver inserts at once, at most."""
    archive_linger_seconds: Annotated[float, Field(gt=0)] = 0.5
    """At most so long they wait for company."""
    dead_letter_limit: Annotated[int, Field(ge=0)] = 500
    """A worker ends when none of so many records in a row could be read; 0 is never."""
    producer_flush_seconds: Annotated[float, Field(gt=0)] = 0.5
    """From one sending of telemetry to the next; ranks other than 0 of large jobs wait longer."""
    heartbeat_seconds: Annotated[float, Field(gt=0)] = 2.0
    """From one sign of life of a rank to the next."""
    spool_dir: Path | None = None
    """Where telemetry waits on disk while the broker is away; without it, below `data_dir`."""
    spool_bytes: Annotated[int, Field(ge=0)] = 256 * 1024 * 1024
    """What one process may keep there."""
    spool_total_bytes: Annotated[int, Field(ge=0)] = 2 * 1024 * 1024 * 1024
    """What all of them may, the dead included; the oldest of the dead give way."""
    close_seconds: Annotated[float, Field(gt=0)] = 10.0
    """What the end of a run may take."""
    resources_seconds: Annotated[float, Field(ge=0)] = 10.0
    """From one sample of the machine to the next; 0 is never."""
    clickhouse_cluster: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.{}-]*$")] = ""
    """The archive lies on this cluster of ClickHouse."""
    keep_steps_days: Annotated[int, Field(ge=0, le=36_500)] = 0
    """How long steps are kept (`storage.retention`); 0 is for ever."""
    keep_evidence_days: Annotated[int, Field(ge=0, le=36_500)] = 0
    """How long heartbeats, log lines, samples of machines, inputs and outputs are; 0 is for ever."""
    keep_ticks_days: Annotated[int, Field(ge=0, le=36_500)] = 180
    """How long the clock is, which `replay` needs; 0 is for ever."""
    slo_file: Path | None = None
    """Service levels in the place of `storage/slo.yaml`."""
    llm_model: Annotated[str, Field(max_length=200)] = ""
    """What the advisor `llm` asks: provider:name as pydantic-ai has them, or the bare name at `llm_base_url`;
    without one it is off.
    """
    llm_base_url: str = ""
    """An endpoint of OpenAI's kind."""
    llm_api_key: SecretStr = SecretStr("")
    """Its key."""
    llm_api_key_file: Path | None = None
    """The same in a file that holds it and nothing else; read once."""
    llm_temperature: Annotated[float, Field(ge=0, le=2)] | None = 0.0
    """Without one the provider's own counts."""
    llm_max_tokens: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    """Of one answer."""
    llm_usd_per_million_in: Annotated[float, Field(ge=0)] | None = None
    """Price of a million tokens that are told."""
    llm_usd_per_million_out: Annotated[float, Field(ge=0)] | None = None
    """Price of a million tokens that are answered."""

    @field_validator(
        "data_dir",
        "spool_dir",
        "policy_file",
        "kafka_ca",
        "clickhouse_ca",
        "archive_certificate",
        "archive_certificate_key",
        "slo_file",
        mode="after",
    )
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        try:
            return value.expanduser() if value is not None else None
        except RuntimeError as error:
            raise ValueError(str(error)) from error

    @field_validator(
        "signing_key_file",
        "trusted_keys_file",
        "encryption_key_file",
        "kafka_password_file",
        "clickhouse_password_file",
        "llm_api_key_file",
        mode="after",
    )
    @classmethod
    def _stay(cls, value: Path | None) -> Path | None:
        """In a training a wrong setting falls back to its default: not these, for then nothing would be guarded."""
        return Path(os.path.expanduser(value)) if value is not None else None

    @field_validator("kafka_security", mode="before")
    @classmethod
    def _as_kafka_writes_it(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("clickhouse_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if not _is_http(value):
            raise ValueError("must look like http://user:password@host:8123/database")
        return value

    @field_validator("llm_base_url")
    @classmethod
    def _is_endpoint(cls, value: str) -> str:
        if value and not _is_http(value):
            raise ValueError("must look like http://host:8000/v1")
        return value

    @property
    def log_access(self) -> KafkaAccess:
        """How the log is reached. The embedded broker asks nobody for anything."""
        if self.embedded_broker:
            return KafkaAccess(self.kafka)
        return KafkaAccess(
            self.kafka,
            self.kafka_security,
            self.kafka_mechanism,
            self.kafka_user,
            self.kafka_password.get_secret_value(),
            self.kafka_ca,
        )

    @property
    def spool(self) -> Path:
        """Where telemetry waits on disk while the broker is away."""
        return self.spool_dir if self.spool_dir is not None else self.data_dir / "spool"


def _is_http(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


class Given(NamedTuple):
    """A value as somebody gave it, and where."""

    value: Any
    where: str


def load_settings(environ: Mapping[str, str], **overrides: Any) -> Settings:
    """The settings of this process; `overrides` (command-line options) win over everything.

    Raises:
        SettingsInvalid: lists every wrong or unknown key, with where it came from.
    """
    given, faults = _given(environ, overrides)
    try:
        settings = Settings(**_values(given))
    except ValidationError as error:
        faults += _faults(error, given).values()
    if faults:
        raise SettingsInvalid("settings are wrong:\n  " + "\n  ".join(faults))
    return settings


class Usable(NamedTuple):
    """Settings to go on with, and one line for each that was wrong and is left out."""

    settings: Settings
    faults: list[str]


def usable_settings(environ: Mapping[str, str]) -> Usable:
    """The settings of a training, which must not die of one: in the place of a wrong one its default counts.

    Without a home folder, what is kept on disk is kept in a folder below the system's for temporary files.
    """
    given, faults = _given(environ, {})
    while True:
        try:
            return Usable(Settings(**_values(given)), faults)
        except ValidationError as error:
            wrong = _faults(error, given)
        right = {name: item for name, item in given.items() if name not in wrong}
        if "data_dir" in wrong and "data_dir" not in given:
            right["data_dir"] = Given(_private_folder(), "no home folder")
            wrong["data_dir"] += f" {right['data_dir'].value} is used instead."
        faults += wrong.values()
        given = right


def _private_folder() -> Path:
    """This user's own below the temporary ones: the same each time, unless somebody else has put one there."""
    try:
        folder = Path(tempfile.gettempdir()) / f"pilothouse-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return folder
        return Path(tempfile.mkdtemp(prefix="pilothouse-"))
    except OSError:  # nothing can be written anywhere: what is not sent waits in memory
        return Path(os.devnull) / "pilothouse"


def _given(environ: Mapping[str, str], overrides: Mapping[str, Any]) -> tuple[dict[str, Given], list[str]]:
    given, faults = _from_file(environ.get(CONFIG_KEY))
    given |= _from_environment(environ)
    given |= {name: Given(value, f"option {name}") for name, value in overrides.items() if value is not None}
    told, wrong = _from_secret_files(given)
    return _from_stack(given) | given | told, faults + wrong


def _values(given: Mapping[str, Given]) -> dict[str, Any]:
    return {name: item.value for name, item in given.items()}


def _faults(error: ValidationError, given: Mapping[str, Given]) -> dict[str, str]:
    return {(name := str(item["loc"][0])): _fault(name, item["msg"], given) for item in error.errors()}


def _fault(name: str, message: str, given: Mapping[str, Given]) -> str:
    where = given[name].where if name in given else "default"
    if name not in Settings.model_fields:
        message = f"there is no such setting; there are: {', '.join(Settings.model_fields)}"
    return f"{name} ({where}): {message.removeprefix('Value error, ')}"


def _from_file(name: str | None) -> tuple[dict[str, Given], list[str]]:
    if not name:
        return {}, []
    try:
        values = tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # both of TOML and of UTF-8 are ValueErrors
        return {}, [f"{CONFIG_KEY}={name}: {error}"]
    return {key: Given(value, f"file {name}") for key, value in values.items()}, []


def _from_secret_files(given: Mapping[str, Given]) -> tuple[dict[str, Given], list[str]]:
    """The passwords that stand in files of their own, as secrets are mounted into containers."""
    told: dict[str, Given] = {}
    faults = []
    for name in ("kafka_password", "clickhouse_password", "llm_api_key"):
        if (file := given.get(f"{name}_file")) is None or not str(file.value):
            continue
        try:
            secret = Path(file.value).expanduser().read_text(encoding="utf-8").strip()
            told |= _put(name, secret, given)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            faults.append(f"{name}_file ({file.where}): {error}")
    return told, faults


def _put(name: str, secret: str, given: Mapping[str, Given]) -> dict[str, Given]:
    """
    Raises:
        ValueError: there is no such place for it, or something stands there already.
    """
    where = given[f"{name}_file"].where
    if not secret:
        if name == "llm_api_key":  # a model of one's own may want none
            return {}
        raise ValueError("the file is empty")
    if name != "clickhouse_password":
        if name in given:
            raise ValueError(f"{name} is given too ({given[name].where}): name one of them")
        return {name: Given(secret, where)}
    url = given.get("clickhouse_url") or Given(Settings.model_fields["clickhouse_url"].default, "default")
    parts = urlsplit(str(url.value))
    if not parts.username or parts.password is not None:
        raise ValueError(
            f"clickhouse_url ({url.where}) must name a user and no password: http://user@host:8123/database"
        )
    place = f"{parts.username}:{quote(secret, safe='')}@{parts.netloc.rpartition('@')[2]}"
    return {"clickhouse_url": Given(parts._replace(netloc=place).geturl(), f"{url.where}, {where}")}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    ours = {name.removeprefix(PREFIX): value for name, value in environ.items() if name.startswith(PREFIX)}
    return {
        name.lower(): Given(value, f"variable {PREFIX}{name}")
        for name, value in ours.items()
        if name not in NOT_SETTINGS
    }


def _from_stack(given: Mapping[str, Given]) -> dict[str, Given]:
    """What `pilothouse up` on this data directory left about itself; nothing where none runs."""
    named = given["data_dir"].value if "data_dir" in given else Settings.model_fields["data_dir"].default
    try:
        file = Path(named).expanduser() / STACK_FILE
        stack = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RuntimeError):  # what is wrong with the directory, its own check will say
        return {}
    if not isinstance(stack, dict):
        return {}
    known = ["kafka", "clickhouse_url", "log_epoch", "embedded_broker", "partitions"]
    if "kafka" not in given or given["kafka"].value == stack.get("kafka"):
        known += _keys_of_stack(given)
    return {name: Given(stack[name], str(file)) for name in known if name in stack}


def _keys_of_stack(given: Mapping[str, Given]) -> Iterator[str]:
    """Keys are the stack's as a whole, or not at all: of a file that somebody named none is added to."""
    for text, file in (("signing_key", "signing_key_file"), ("trusted_keys", "trusted_keys_file")):
        if text not in given and file not in given:
            yield file
