"""ClickHouse's HTTP interface as values: what a request asks for, and how an answer or an error looks on the wire.

Pure; no library of either side. `storage.query_handler` reads requests into `Asked` and writes `Answer`s; between the
two `storage.session` runs the statement. Header and parameter names are those clickhouse-connect, curl and JDBC use.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ..events.errors import QueryRefused

AUTHENTICATION_FAILED, BAD_ARGUMENTS, NOT_IMPLEMENTED = 516, 36, 48

LONGEST_REPLACING = 60.0
"""Seconds that a request may wait for the end of the one it replaces."""

_TRANSPORT = frozenset(
    {
        "buffer_size", "cancel_http_readonly_queries_on_client_close", "close_session", "compress", "database",
        "decompress", "default_format", "enable_http_compression", "http_headers_progress_interval_ms",
        "http_response_buffer_size", "http_zlib_compression_level", "password", "query", "query_id", "quota_key",
        "replace_running_query", "replace_running_query_max_wait_ms", "send_progress_in_http_headers",
        "session_check", "session_id", "session_timeout", "stacktrace", "user", "wait_end_of_query",
    }
)  # fmt: skip
"""Parameters of the interface itself; `param_*` are the statement's, and every other one is a setting."""

_NOT_HERE: Mapping[str, str] = {
    "client_protocol_version": "the Native format here is that of protocol version 0: use a client that can do without",
    "role": "there are no roles: the user decides what is allowed",
}

_STATUS: Mapping[int, int] = {
    **dict.fromkeys((192, 193, 194, AUTHENTICATION_FAILED), 401),
    **dict.fromkeys((497, 512), 403),
    **dict.fromkeys((6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167, 168, 223), 400),
    **dict.fromkeys((33, 40, 89, 246, 271), 400),
    **dict.fromkeys((321, 376, 427, 441, 675, 676), 400),
    **dict.fromkeys((46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511), 404),
    159: 408, 229: 413, NOT_IMPLEMENTED: 501, 76: 503, 202: 503, 209: 503, 236: 503, 439: 503,
}  # fmt: skip
"""ClickHouse's error codes as HTTP statuses, as its server maps them (401 for its 403 on a wrong password, so that
clients ask for one; 503 for 202 and 236, so that they try again; 400 for a body that cannot be unpacked); the rest are
500."""

_CONTENT_TYPES: Mapping[str, str] = {
    "tabseparated": "text/tab-separated-values; charset=UTF-8",
    "tsv": "text/tab-separated-values; charset=UTF-8",
    "csv": "text/csv; charset=UTF-8",
    "jsoneachrow": "application/x-ndjson; charset=UTF-8",
    "jsonlines": "application/x-ndjson; charset=UTF-8",
    "ndjson": "application/x-ndjson; charset=UTF-8",
    "json": "application/json; charset=UTF-8",
    "xml": "application/xml; charset=UTF-8",
    "pretty": "text/plain; charset=UTF-8",
    "vertical": "text/plain; charset=UTF-8",
    "values": "text/plain; charset=UTF-8",
    "markdown": "text/markdown; charset=UTF-8",
}


class Credentials(NamedTuple):
    """Who a client says it is. A bearer token names no user."""

    user: str
    secret: str


class Packing(NamedTuple):
    """How an answer is compressed: by ClickHouse's own blocks, and then by the first of HTTP's own in `accepts`."""

    in_blocks: bool = False
    accepts: str = ""


@dataclass(frozen=True)
class Asked:
    """One request, read. `sql` is the URL's query and the body, in that order; rows of an INSERT are still in it.

    `replaces_for`: a query of the same id is ended first, and may take that many seconds.
    """

    sql: bytes
    params: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    database: str = ""
    default_format: str = "TabSeparated"
    query_id: str = ""
    in_session: bool = False
    by_get: bool = False
    replaces_for: float | None = None


@dataclass(frozen=True)
class Answer:
    """A result as it goes out. `format` is None where the statement has no result."""

    body: bytes
    format: str | None
    timezone: str
    summary: Mapping[str, int] = field(default_factory=dict)


def read_credentials(headers: Mapping[str, str], query: Mapping[str, str]) -> Credentials:
    """User and secret from where ClickHouse looks for them: its own headers, Authorization, then the URL.

    Raises:
        QueryRefused: the Authorization header cannot be read.
    """
    if "X-ClickHouse-User" in headers or "X-ClickHouse-Key" in headers:
        return Credentials(headers.get("X-ClickHouse-User", ""), headers.get("X-ClickHouse-Key", ""))
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return Credentials("", value.strip())
    if scheme.lower() == "basic":
        try:
            user, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise authentication_failed("") from error
        return Credentials(user, secret)
    return Credentials(query.get("user", ""), query.get("password", ""))


def authentication_failed(user: str) -> QueryRefused:
    """The refusal of a wrong or missing token."""
    who = user or "default"
    message = f"{who}: Authentication failed: password is incorrect, or there is no user with such name."
    return QueryRefused(f"{message} (AUTHENTICATION_FAILED)", AUTHENTICATION_FAILED)


def read_request(by_get: bool, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> Asked:
    """What a request asks for. `query` holds the URL's parameters (and a form's fields).

    Raises:
        QueryRefused: it asks for a part of the interface that is not served here.
    """
    _refuse_what_is_not_here(query)
    params = {name.removeprefix("param_"): value for name, value in query.items() if name.startswith("param_")}
    settings = {
        name: value
        for name, value in query.items()
        if name not in _TRANSPORT and name not in _NOT_HERE and not name.startswith("param_")
    }
    parts = [part for part in (query.get("query", "").encode("utf-8", "surrogateescape"), body) if part]
    return Asked(
        sql=b"\n".join(parts),
        params=params,
        settings=settings,
        database=headers.get("X-ClickHouse-Database") or query.get("database", ""),
        default_format=headers.get("X-ClickHouse-Format") or query.get("default_format") or "TabSeparated",
        query_id=query.get("query_id", ""),
        in_session=bool(query.get("session_id")),
        by_get=by_get,
        replaces_for=_replacing(query) if is_on(query, "replace_running_query") else None,
    )


def read_packing(query: Mapping[str, str], headers: Mapping[str, str]) -> Packing:
    """How the answer is wanted, an error's too."""
    accepts = headers.get("Accept-Encoding", "") if is_on(query, "enable_http_compression") else ""
    return Packing(is_on(query, "compress"), accepts)


def _replacing(query: Mapping[str, str]) -> float:
    name = "replace_running_query_max_wait_ms"
    try:
        return min(max(float(query.get(name, "5000")) / 1000, 0.0), LONGEST_REPLACING)
    except ValueError as error:
        message = f"'{name}' is a number of milliseconds, not '{query[name]}'. (BAD_ARGUMENTS)"
        raise QueryRefused(message, BAD_ARGUMENTS) from error


def _refuse_what_is_not_here(query: Mapping[str, str]) -> None:
    for name, why in _NOT_HERE.items():
        if is_on(query, name):
            raise QueryRefused(f"The parameter '{name}' is not supported: {why}. (NOT_IMPLEMENTED)", NOT_IMPLEMENTED)


def is_on(query: Mapping[str, str], name: str) -> bool:
    """Whether a parameter of the interface is set."""
    return query.get(name, "0").lower() not in ("", "0", "false")


def answer_headers(answer: Answer, query_id: str) -> dict[str, str]:
    """The headers of a result, those clients read among them."""
    headers = {
        "Content-Type": content_type(answer.format),
        "X-ClickHouse-Query-Id": query_id,
        "X-ClickHouse-Server-Display-Name": "pilothouse",
        "X-ClickHouse-Summary": json.dumps({name: str(value) for name, value in answer.summary.items()}),
        "X-ClickHouse-Timezone": answer.timezone,
        "X-Content-Type-Options": "nosniff",
    }
    # Clients take this header for "there is a result", be it empty.
    return headers if answer.format is None else {**headers, "X-ClickHouse-Format": answer.format}


def content_type(name: str | None) -> str:
    """The media type of an output format; formats that are not text are octet streams."""
    if name is None:
        return "text/plain; charset=UTF-8"
    lower = name.lower()
    # The longest name that fits: JSONEachRow is not JSON, CSVWithNames is CSV.
    fitting = sorted((known for known in _CONTENT_TYPES if lower.startswith(known)), key=len)
    return _CONTENT_TYPES[fitting[-1]] if fitting else "application/octet-stream"


def error_status(code: int) -> int:
    """The HTTP status of a ClickHouse error code."""
    return _STATUS.get(code, 500)


def error_headers(refused: QueryRefused, query_id: str) -> dict[str, str]:
    """The headers of an error; clients read its code from them."""
    headers = {
        "Content-Type": "text/plain; charset=UTF-8",
        "X-ClickHouse-Exception-Code": str(refused.code),
        "X-ClickHouse-Server-Display-Name": "pilothouse",
        "X-Content-Type-Options": "nosniff",
    }
    if query_id:
        headers["X-ClickHouse-Query-Id"] = query_id
    if error_status(refused.code) == 401:
        headers["WWW-Authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
    return headers


def error_body(refused: QueryRefused, version: str) -> bytes:
    """An error as ClickHouse writes it: code, message, name, version."""
    return f"Code: {refused.code}. DB::Exception: {refused} (version {version} (embedded))\n".encode()
