"""The embedded ClickHouse engine (chdb) over one directory, owned by this process alone.

`storage.session` runs statements on it from worker threads; `storage.endpoint` opens and closes it. A handle runs one
statement at a time and keeps what was SET or USEd on it, so every statement gets a fresh one (0.2 ms): nothing leaks
from one request into the next, and a handle that was made read-only is never asked to be anything else. The engine's
threads do not survive a fork: processes around it must be spawned.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..events.errors import QueryRefused, SettingsInvalid
from .engine_encryption import encryption_option
from .ownership import DirectoryLock
from .statement import InsertWithRows, Statement, read_ast

if TYPE_CHECKING:
    from chdb.state.sqlitelike import Connection

DATABASE = "pilothouse"
"""Made when the engine is opened; the database of every statement that names no other."""

DEFAULTS: Mapping[str, str] = {
    "allow_introspection_functions": "0",
    "async_insert": "0",  # an acknowledged insert is on disk
    "implicit_select": "0",  # `prepare` is a mistake, as in a server, not SELECT prepare
    "input_format_null_as_default": "0",  # else a JSON null becomes a loss of exactly 0
    "output_format_json_quote_denormals": "1",  # else NaN and the infinities go out as null
}
"""Settings in which the embedded engine differs from what the archive needs; a statement's own settings win."""

STD_EXCEPTION, UNKNOWN_FORMAT, UNKNOWN_SETTING = 1001, 73, 115

WRITE_FAULTS = (
    *("NOT_ENOUGH_SPACE", "TOO_MANY_PARTS", "MEMORY_LIMIT_EXCEEDED", "VIOLATED_CONSTRAINT", "CANNOT_OPEN_FILE"),
    *("CANNOT_WRITE_TO_FILE_DESCRIPTOR", "TABLE_IS_READ_ONLY", "TABLE_IS_PERMANENTLY_READ_ONLY"),
)
"""As ClickHouse names them: what may happen to rows that can be read."""

BACKUPS = "?backups.allowed_path=../backups/"
"""An option of the engine: it backs up to that folder beside its own, and restores from there; by default to none."""

_CODE = re.compile(r"Code: (\d+)\. DB::Exception: ")
_VERSION = re.compile(r"\s*\(version [^()]*\)(\. \([A-Z_]+\))?\s*$")
_ASKING_FOR_THE_TREE = re.compile(r": In scope SELECT formatQuerySingleLine\(.*\)\. \(", re.DOTALL)
_PYTHON_ONLY_FORMATS = frozenset({"arrowtable", "dataframe", "datastore"})


@dataclass(frozen=True)
class Job:
    """One statement to run. `params` are TSV-escaped, as ClickHouse's HTTP interface takes them.

    `id` is what `Engine.kill` knows it by; it takes the place of `log_comment`. `readonly` is ClickHouse's setting of
    that name (0, 1 or 2).
    """

    id: str
    sql: str = ""
    format: str = "TabSeparated"
    params: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    database: str = DATABASE
    readonly: int = 0


@dataclass(frozen=True)
class Result:
    """The formatted result, with what it cost in rows, bytes and seconds."""

    data: bytes = b""
    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    result_rows: int = 0
    elapsed: float = 0.0


class Engine:
    """Every method may be called from any thread; `query` and `insert` return when ClickHouse is done."""

    def __init__(self, path: str, lock: DirectoryLock, keeper: "Connection") -> None:
        self._path = path
        self._lock = lock
        self._keeper = keeper  # the engine lives as long as one handle does
        self.version, self.timezone = _version(keeper)

    @classmethod
    def open(cls, directory: Path, key: bytes | None = None) -> Self:
        """Own the directory and start the engine in it (0.5–1 s, 300 MB). With a `key` its tables are encrypted.

        Raises:
            DirectoryInUse: another process owns it.
            SettingsInvalid: the engine cannot live there, or what is there was written with another key or none.
        """
        if "?" in str(directory):
            raise SettingsInvalid(
                f"the archive cannot live in {directory}: the engine reads a '?' as options; rename it"
            )
        lock = DirectoryLock.take(directory)
        try:
            path = str(directory.resolve() / "clickhouse") + BACKUPS + encryption_option(directory.resolve(), key)
            keeper = _connect(path)
            keeper.query(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
            return cls(path, lock, keeper)
        except SettingsInvalid:
            lock.release()
            raise
        except RuntimeError as error:
            lock.release()
            raise SettingsInvalid(f"the archive in {directory} cannot be opened: {error}") from error

    def close(self) -> None:
        """Stop the engine and let go of the directory. No statement may be running."""
        self._keeper.close()
        self._lock.release()

    def query(self, job: Job, judge: Callable[[Statement], None]) -> tuple[Statement, Result]:
        """Run one statement that carries no rows, unless `judge`, who sees it before it runs, raises.

        Raises:
            QueryRefused: it is not exactly one statement, ClickHouse refused it (with its code), or it was killed.
        """
        _require_format(job.format)
        with self._handle(job) as handle:
            statement = _parse(handle, job)
            judge(statement)
            _configure(handle, job.settings, job.readonly)
            with _refusals():
                result: Any = handle.query(job.sql, job.format, dict(job.params))
            return statement, Result(
                data=result.bytes() or b"",
                read_rows=result.storage_rows_read(),
                read_bytes=result.storage_bytes_read(),
                written_rows=result.rows_written(),
                written_bytes=result.bytes_written(),
                result_rows=result.rows_read(),
                elapsed=result.elapsed(),
            )

    def insert(self, job: Job, insert: InsertWithRows) -> Result:
        """Run an INSERT with its rows; when it returns, they survive the death of this process.

        Raises:
            QueryRefused: ClickHouse refused the statement or a row; of many rows, earlier blocks may be stored.
        """
        _require_format(insert.format)
        with self._handle(job) as handle:
            # There is no other way to give this kind of insert its parameters.
            params = {f"param_{name}": value for name, value in job.params.items()}
            before = _write_faults(handle)
            _configure(handle, {**job.settings, **params}, job.readonly)
            with _refusals(), handle.send_insert(insert.head, insert.format) as inserter:
                inserter.append(insert.rows)
                done = inserter.finish()
            self._refuse_if_unwritten(before)
            return Result(written_rows=done.rows_written, written_bytes=done.bytes_written, elapsed=done.elapsed)

    def _refuse_if_unwritten(self, before: Mapping[str, int]) -> None:
        """The engine reports what is wrong with the rows and says nothing where they could not be written (seen in chdb
        26.9: a full disk, a constraint): it counts such faults, and then has taken none of them. A fault of another
        statement at the same moment is taken for ours, and the insert for one that must be repeated.
        """
        with self._handle(Job(id="")) as handle:
            now = _write_faults(handle)
            for name in sorted(name for name in now if now[name] > before.get(name, 0)):
                asked = {"name": name}
                said = _ask(
                    handle, "SELECT code, last_error_message FROM system.errors WHERE name = {name:String}", asked
                )
                code, message = said.split("\t", 1)
                raise QueryRefused(f"{message.strip()} ({name})", int(code))

    def kill(self, job_id: str) -> None:
        """Cancel the statement of this job, if it is running now. Returns before the statement has ended."""
        with self._handle(Job(id="")) as handle, _refusals():
            handle.query(f"KILL QUERY WHERE Settings['log_comment'] = {_quote(job_id)} ASYNC")

    @contextmanager
    def _handle(self, job: Job) -> Iterator["Connection"]:
        handle = _connect(self._path)
        try:
            # KILL finds a statement by its comment: an embedded engine gives out query ids that nobody can choose.
            _configure(handle, {**DEFAULTS, "log_comment": job.id}, 0)
            with _refusals():
                handle.query(f"USE {_quote_name(job.database)}")
            yield handle
        finally:
            handle.close()


def _write_faults(handle: "Connection") -> dict[str, int]:
    """How often the engine has noted each of the faults that writing may have."""
    rows = _ask(handle, f"SELECT name, value FROM system.errors WHERE name IN {WRITE_FAULTS}", {}).splitlines()
    return {name: int(value) for name, value in (row.split("\t") for row in rows)}


def _configure(handle: "Connection", settings: Mapping[str, str], readonly: int) -> None:
    changes = [f"{_name(name)} = {_quote(value)}" for name, value in settings.items()]
    if readonly:
        changes.append(f"readonly = {readonly:d}")
    if changes:
        with _refusals():
            handle.query(f"SET {', '.join(changes)}")


def _parse(handle: "Connection", job: Job) -> Statement:
    """Ask the real parser what a statement is; nothing of it is executed."""
    # In this order: EXPLAIN would run the second of two statements.
    normalised = _ask(handle, "SELECT formatQuerySingleLine({sql:String})", {"sql": escape(job.sql)})
    return read_ast(normalised.strip(), _ask(handle, f"EXPLAIN AST {job.sql}", job.params))


def _connect(path: str) -> "Connection":
    # Importing chdb starts an engine in memory: not before one is wanted.
    import chdb

    connect: Callable[[str], Connection] = chdb.connect
    return connect(path)


def _version(handle: "Connection") -> tuple[str, str]:
    version, timezone = _ask(handle, "SELECT version(), serverTimezone()", {}).split()
    return version, timezone


def _ask(handle: "Connection", sql: str, params: Mapping[str, str]) -> str:
    with _refusals():
        answer: Any = handle.query(sql, "TSVRaw", dict(params))
        return (answer.bytes() or b"").decode(errors="replace")


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise refusal(str(error)) from error


def refusal(message: str) -> QueryRefused:
    """The engine's error as ours: ClickHouse's code, and its message without what is not the user's."""
    found = _CODE.search(message)
    if found is None:
        return QueryRefused(f"{message.strip()} (STD_EXCEPTION)", STD_EXCEPTION)
    text = message[found.end() :]
    # A clause's error arrives wrapped in a second one with the same code.
    text = text.removeprefix(found.group())
    text = _ASKING_FOR_THE_TREE.sub(". (", text)
    text = _VERSION.sub("", text)
    return QueryRefused(text.strip(), int(found[1]))


def _require_format(name: str) -> None:
    # The wrapper around the engine takes these for Python objects, which no client on the wire can receive.
    if not re.fullmatch(r"\w+", name) or name.lower() in _PYTHON_ONLY_FORMATS:
        raise QueryRefused(f"Unknown format {name}. (UNKNOWN_FORMAT)", UNKNOWN_FORMAT)


def _name(setting: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", setting, re.ASCII):
        raise QueryRefused(f"Unknown setting '{setting}'. (UNKNOWN_SETTING)", UNKNOWN_SETTING)
    return setting


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _quote_name(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def escape(text: str) -> str:
    """A string as `Job.params` want it."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
