"""`pilothouse up`: composes a stack from the command line, runs it until a signal, and says where everything is.

Called by `stack_commands`; the work is `supervisor`'s. One `up` owns a data directory at a time.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.markup import escape

from ..events.errors import DirectoryInUse, UserMistake
from ..settings import Settings, load_settings
from ..storage.ownership import LOCK_FILE, DirectoryLock
from .asking import Asked, asked_in, missing_for
from .brokers import HOST, EmbeddedBroker, KafkaBroker, LocalBroker, free_port, refuse_taken_port
from .extras import LOCAL, require
from .key_files import KEYS, TRUSTED_FILE, KeyFolder
from .own_archive import is_elsewhere
from .parts import ArchivePart, BrokerPart, ControlRoomPart, ForeignBroker, Running, StreamPart
from .stack_file import Stack, access_of, withdraw
from .supervision import WORKERS, Part
from .supervisor import Supervisor
from .topic_admin import servers

KAFKA_PORT = 19092
HTTP_PORT = 18123
PAGE_PORT = 18080
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options of `up`. A port of 0 is any free one. `page_port` is None where nobody wants the control room in a
    browser, `advisor` where the policy is to say it.
    """

    data_dir: Path | None = None
    kafka_port: int = KAFKA_PORT
    http_port: int = HTTP_PORT
    page_port: int | None = PAGE_PORT
    kafka_home: Path | None = None
    kafka: str | None = None
    policy: Path | None = None
    advisor: bool | None = None


class StopAsked(BaseException):
    """A signal asked for the end; no `except Exception` may hold it up."""


def up(wanted: Wanted, console: Console) -> None:
    """Run a stack until SIGINT, SIGTERM or SIGHUP.

    Raises:
        UserMistake, Unavailable: it cannot be started, and nothing of it is left.
    """
    wanted = _checked(wanted)
    began = time.monotonic()
    data_dir = load_settings(os.environ, data_dir=wanted.data_dir).data_dir.absolute()
    with _owning(data_dir), _signals_raise():
        withdraw(data_dir)  # of a supervisor that was killed
        settings = load_settings(os.environ, data_dir=data_dir, policy_file=wanted.policy)
        _refuse_unreachable(settings)
        supervisor = _compose(wanted, settings, data_dir, console)
        try:
            with console.status("starting…"):
                supervisor.start()
            _greet(console, supervisor, time.monotonic() - began)
            supervisor.watch()
        except StopAsked:
            console.print("stopping…")
        finally:
            _end(supervisor, data_dir)
    console.print(f"stopped; the archive is kept in {data_dir}", soft_wrap=True, markup=False)


def _checked(wanted: Wanted) -> Wanted:
    """The same, with the file of the policy where a shipped one was named."""
    require(LOCAL, "`pilothouse up`")
    if wanted.kafka and wanted.kafka_home:
        raise UserMistake("--kafka names a Kafka that runs, --kafka-home one to run: give one of them")
    if wanted.kafka:
        servers(wanted.kafka)  # refuses what is no address
    if wanted.policy is None:
        return wanted
    from ..stream_processors.policy_text import read_policies
    from .policy_sources import policy_path

    known = replace(wanted, policy=policy_path(wanted.policy))
    read_policies(known.policy)  # its faults are better said here than by a worker that does not start
    return known


def _refuse_unreachable(settings: Settings) -> None:
    """The stack's own parts speak to an archive of its own, on loopback, without TLS."""
    if is_elsewhere(settings):
        raise UserMistake(
            "PILOTHOUSE_CLICKHOUSE_URL names a ClickHouse elsewhere, and `pilothouse up` runs an archive of its own: "
            "unset it; or run `pilothouse migrate`, `worker governor`, `worker archiver` and `serve` by themselves, "
            "with that one (by TLS where it says https)"
        )
    if settings.archive_certificate is not None:
        raise UserMistake(
            "the archive of `pilothouse up` speaks no TLS: put a proxy in front of it, or run "
            "`pilothouse worker endpoint` by itself with PILOTHOUSE_ARCHIVE_CERTIFICATE"
        )
    if settings.archive_host not in (HOST, "0.0.0.0"):
        raise UserMistake(f"PILOTHOUSE_ARCHIVE_HOST={settings.archive_host}: `pilothouse up` needs {HOST} or 0.0.0.0")


@contextmanager
def _owning(data_dir: Path) -> Iterator[None]:
    try:
        lock = DirectoryLock.take(data_dir)
    except DirectoryInUse as error:
        owner = (data_dir / LOCK_FILE).read_text().strip()
        what = f"`pilothouse up` already runs on {data_dir} (process {owner})"
        raise DirectoryInUse(f"{what}: use it, stop it, or choose another --data-dir") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _signals_raise() -> Iterator[None]:
    """A signal ends whatever is being waited for. Set explicitly: a shell's background job would ignore SIGINT."""

    def ask(number: int, _: FrameType | None) -> NoReturn:
        _ignore_signals()
        raise StopAsked(number)

    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    """The end is on its way, and is bounded: a second Ctrl-C must not leave half of it undone."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _compose(wanted: Wanted, settings: Settings, data_dir: Path, console: Console) -> Supervisor:
    broker = _broker(wanted, settings, data_dir)
    http_port = wanted.http_port or free_port()
    page_port = 0 if wanted.page_port is None else wanted.page_port or free_port()
    stack = Stack(
        data_dir=data_dir,
        kafka=broker.address,
        http_port=http_port,
        access=access_of(data_dir),
        embedded=isinstance(broker, EmbeddedBroker),
        partitions=settings.partitions,
        page_port=page_port,
        policy_file=settings.policy_file.absolute() if settings.policy_file else None,
        keys=_keys(settings, data_dir),
    )
    asked = asked_in(settings.policy_file)
    workers = [part for part in WORKERS if part is not Part.ADVISOR or _runs_advisor(wanted, asked)]
    parts: dict[Part, Running] = {
        Part.BROKER: BrokerPart(broker) if isinstance(broker, LocalBroker) else broker,
        Part.ARCHIVE: ArchivePart(data_dir, http_port),
        **{part: StreamPart(part, data_dir, settings.slot) for part in workers},
    }

    if page_port:
        refuse_taken_port(page_port, "--page-port")
        parts[Part.CONTROL_ROOM] = ControlRoomPart(data_dir, page_port)

    def tell(what: str) -> None:
        console.print(f"{time.strftime('%H:%M:%S')}  {what}", markup=False, highlight=False, soft_wrap=True)

    for line in missing_for(asked, settings, advisor_runs=Part.ADVISOR in parts):
        console.print(f"[yellow]{escape(line)}[/]", highlight=False, soft_wrap=True)
    return Supervisor(stack, parts, tell, settings.replication)


def _keys(settings: Settings, data_dir: Path) -> Path | None:
    """The folder of the stack's own keys, made where they are missing; None where somebody named others."""
    if settings.trusted_keys or settings.trusted_keys_file or settings.signing_key_file:
        return None
    folder = KeyFolder(data_dir / KEYS)
    folder.ensure()
    return folder.path


def _runs_advisor(wanted: Wanted, asked: Asked) -> bool:
    return bool(asked) if wanted.advisor is None else wanted.advisor


def _broker(wanted: Wanted, settings: Settings, data_dir: Path) -> LocalBroker | ForeignBroker:
    if wanted.kafka:
        return ForeignBroker(settings.model_copy(update={"kafka": wanted.kafka}).log_access)
    if wanted.kafka_home:
        return KafkaBroker(wanted.kafka_home.expanduser().absolute(), data_dir, wanted.kafka_port)
    return EmbeddedBroker(data_dir, wanted.kafka_port)


def _end(supervisor: Supervisor, data_dir: Path) -> None:
    _ignore_signals()
    supervisor.stop()
    withdraw(data_dir)


def _greet(console: Console, supervisor: Supervisor, seconds: float) -> None:
    stack = supervisor.stack
    folder = escape(str(stack.data_dir))
    log = "embedded broker, in memory" if stack.embedded else "Kafka"
    reader = stack.access.reader
    client = {"host": HOST, "port": stack.http_port, "username": "reader", "password": reader}
    lines = [
        f"[bold green]Pilothouse is up[/] after {seconds:.1f} s",
        f"  log       {stack.kafka}  ({log}; epoch {stack.log_epoch})",
        f"  archive   {stack.archive_address}  (history in {folder})",
        f"  keys      {escape(_said_of_keys(stack))}",
        f"  workers   {', '.join(supervisor.workers)}  (what they say: {folder}/logs)",
        "[bold]In the shell of a training script[/]",
        *(f"  export {escape(line)}" for line in _exports(stack)),
        "[bold]To look[/]",
        *([f"  {page}  (this address lets in whoever has it)"] if (page := supervisor.page) else []),
        "  pilothouse runs",
        f"  curl -u reader:{reader} {stack.archive_address} -d 'SELECT * FROM pilothouse.runs FORMAT PrettyCompact'",
        f"  clickhouse_connect.get_client({', '.join(f'{name}={value!r}' for name, value in client.items())})",
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    for topic in supervisor.topics:
        for drift in topic.drift:
            console.print(f"[yellow]topic {topic.name}: {drift}[/]", highlight=False, soft_wrap=True)
    console.print("Ctrl-C stops it.", highlight=False)


def _said_of_keys(stack: Stack) -> str:
    if stack.keys is None:
        return "those that the settings name"
    return f"every command is signed; trainers obey those in {stack.keys / TRUSTED_FILE}"


def _exports(stack: Stack) -> list[str]:
    if stack.data_dir == Settings.model_fields["data_dir"].default:
        return [f"PILOTHOUSE_KAFKA={stack.kafka}"]
    # With the directory a process finds everything else: `stack.json` lies in it.
    return [f"PILOTHOUSE_DATA_DIR={stack.data_dir}", f"PILOTHOUSE_KAFKA={stack.kafka}"]
