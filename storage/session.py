"""One request on the engine: split, judge, run. Called by `storage.endpoint` on a worker thread.

A session ends with its request, so what it would have to remember (SET, USE, temporary tables) is refused in words
instead of being forgotten in silence.
"""

from dataclasses import dataclass

from ..events.errors import QueryRefused
from .engine import DATABASE, Engine, Job, Result
from .http_protocol import NOT_IMPLEMENTED, Answer, Asked
from .read_only import READONLY, ReaderLimits, reader_settings, refuse_unless_reading
from .statement import InsertWithRows, Statement, decode_sql, split_insert

INTO_OUTFILE_NOT_ALLOWED = 358


@dataclass(frozen=True)
class Rights:
    """Who a user is and what that one may do. `reader` is None for full rights."""

    user: str = ""
    reader: ReaderLimits | None = None
    max_result_bytes: int = 0


def run(engine: Engine, asked: Asked, rights: Rights) -> Answer:
    """Run one request to its end.

    Raises:
        QueryRefused: with ClickHouse's code, why it did not run to its end.
    """
    insert = split_insert(asked.sql)
    if insert is not None:
        return _insert(engine, asked, _job(asked, rights, ""), insert)
    job = _job(asked, rights, decode_sql(asked.sql))
    statement, result = _query(engine, asked, job, rights)
    output = (statement.format or job.format) if statement.returns_rows else None
    return _answer(engine, asked, result, output)


def _job(asked: Asked, rights: Rights, sql: str) -> Job:
    if rights.reader is not None:
        settings, readonly = reader_settings(asked.settings, rights.reader), 1
    else:
        settings, readonly = dict(asked.settings), 2 if asked.by_get else 0
    settings.setdefault("max_result_bytes", str(rights.max_result_bytes))
    settings.pop("log_comment", None)  # the engine's own, to find what it must kill
    return Job(
        id=asked.query_id,
        sql=sql,
        format=asked.default_format,
        params=asked.params,
        settings=settings,
        database=asked.database or DATABASE,
        readonly=readonly,
    )


def _insert(engine: Engine, asked: Asked, job: Job, insert: InsertWithRows) -> Answer:
    if job.readonly:
        raise _readonly(asked)
    return _answer(engine, asked, engine.insert(job, insert), None)


def _query(engine: Engine, asked: Asked, job: Job, rights: Rights) -> tuple[Statement, Result]:
    def judge(statement: Statement) -> None:
        if rights.reader is not None:
            refuse_unless_reading(statement)
        _refuse_files(statement)
        _refuse_what_outlives(statement, asked.in_session)

    try:
        return engine.query(job, judge)
    except QueryRefused as error:
        if error.code == READONLY and asked.by_get and rights.reader is None:
            raise _readonly(asked) from error
        raise


def _readonly(asked: Asked) -> QueryRefused:
    hint = " For queries over HTTP, method GET implies readonly: use POST." if asked.by_get else ""
    return QueryRefused(f"Cannot execute query in readonly mode.{hint} (READONLY)", READONLY)


def _refuse_what_outlives(statement: Statement, in_session: bool) -> None:
    if in_session and (statement.kind in ("Set", "UseQuery") or statement.temporary):
        message = (
            "Sessions are not kept here, so this would have no effect: give settings and database with each query."
        )
        raise QueryRefused(f"{message} (NOT_IMPLEMENTED)", NOT_IMPLEMENTED)


def _refuse_files(statement: Statement) -> None:
    if statement.names_a_file:
        message = "INTO OUTFILE and FROM INFILE would mean files of the endpoint, not yours: use the body."
        raise QueryRefused(f"{message} (INTO_OUTFILE_NOT_ALLOWED)", INTO_OUTFILE_NOT_ALLOWED)


def _answer(engine: Engine, asked: Asked, result: Result, output: str | None) -> Answer:
    summary = {
        "read_rows": result.read_rows,
        "read_bytes": result.read_bytes,
        "written_rows": result.written_rows,
        "written_bytes": result.written_bytes,
        "total_rows_to_read": 0,
        "result_rows": result.result_rows,
        "result_bytes": len(result.data),
        "elapsed_ns": int(result.elapsed * 1e9),
    }
    return Answer(result.data, output, asked.settings.get("session_timezone") or engine.timezone, summary)
