"""The way to ClickHouse, embedded or a server: one client from the settings, and its errors in our words.

Whoever composes a process (`cli`, the archiver, the control room) calls `connect` and hands the client to `archive`,
`history` or `queries`; those run their SQL inside `refusals`, so that a person reads one line. The driver is imported
when it is needed.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

from ..events.errors import QueryRefused, SettingsInvalid, StackNotRunning
from ..settings import Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from clickhouse_connect.driver.exceptions import Error

CONNECT_SECONDS = 3
ANSWER_SECONDS = 60
DEFAULT_DATABASE = "pilothouse"

UNKNOWN_TABLE = 60
UNKNOWN_DATABASE = 81
NOT_LET_IN = (516, 194, 192)
"""AUTHENTICATION_FAILED, REQUIRED_PASSWORD, UNKNOWN_USER."""


def connect(settings: Settings) -> "Client":
    """A client of the archive in `settings.clickhouse_url`; its database need not exist yet.

    Raises:
        StackNotRunning: nothing answers there, or what answers is not ClickHouse.
        QueryRefused: ClickHouse answers and does not let this user in.
    """
    import clickhouse_connect

    # The driver logs a transport error before it raises it; without any handler Python would print that to stderr.
    logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())
    # What a user may set, the archive says: the driver would refuse a reader's own, lower limits.
    clickhouse_connect.common.set_setting("invalid_setting_action", "send")
    url = urlsplit(settings.clickhouse_url)
    with refusals(where=_shown(url)):
        client = clickhouse_connect.get_client(**_client_options(url), **_authority(settings))
    # Set here and not above: the driver's first queries would be refused while the database is not created.
    client.database = unquote(url.path.strip("/")) or DEFAULT_DATABASE
    return client


def _client_options(url: SplitResult) -> dict[str, Any]:
    secure = url.scheme == "https"
    return {
        "interface": url.scheme,
        "host": url.hostname,
        "port": url.port or (8443 if secure else 8123),
        "username": unquote(url.username) if url.username else None,
        "password": unquote(url.password or ""),
        "connect_timeout": CONNECT_SECONDS,
        "send_receive_timeout": ANSWER_SECONDS,
        # An insert may be sent twice without harm; a query that failed is for its caller to judge.
        "query_retries": 0,
        # One session would refuse the second of two queries at a time.
        "autogenerate_session_id": False,
        "client_name": "pilothouse",
    }


def _authority(settings: Settings) -> dict[str, Any]:
    """Who vouches for the server's certificate: the system's authorities, where nobody is named."""
    if settings.clickhouse_ca is None:
        return {}
    if not settings.clickhouse_ca.is_file():
        raise SettingsInvalid(f"PILOTHOUSE_CLICKHOUSE_CA names {settings.clickhouse_ca}, and there is no such file")
    return {"ca_cert": str(settings.clickhouse_ca)}


def _shown(url: SplitResult) -> str:
    """The address without the password in it."""
    port = f":{url.port}" if url.port else ""
    return f"{url.scheme}://{url.hostname}{port}{url.path}"


@contextmanager
def refusals(where: str = "the archive") -> Iterator[None]:
    """Whatever goes wrong between here and ClickHouse comes out as `QueryRefused` or `StackNotRunning`."""
    from clickhouse_connect.driver.exceptions import Error

    try:
        yield
    except Error as error:
        raise in_our_words(error, where) from error


def in_our_words(error: "Error", where: str) -> QueryRefused | StackNotRunning:
    """ClickHouse's error, or the way's to it, for a person."""
    code = error_code(error)
    if is_no_answer(error):
        return StackNotRunning(
            f"nothing answers at {where}; start it with `pilothouse up`, or set PILOTHOUSE_CLICKHOUSE_URL"
        )
    if not code and "HTTP driver received HTTP status" in str(error):
        return StackNotRunning(
            f"what answers at {where} is not ClickHouse ({_one_line(str(error))}); correct PILOTHOUSE_CLICKHOUSE_URL"
        )
    if code in NOT_LET_IN:
        message = (
            f"ClickHouse at {where} refuses this user or password: correct PILOTHOUSE_CLICKHOUSE_URL, or name the data "
            "directory of the stack that runs there (--data-dir, PILOTHOUSE_DATA_DIR)"
        )
    elif code == UNKNOWN_DATABASE:
        message = "the archive has no such database; `pilothouse migrate` makes it"
    else:
        message = _one_line(str(error))
    return QueryRefused(message + (f" (code {code})" if code else ""), code)


def is_no_answer(error: "Error") -> bool:
    """Whether the request never got an answer, as opposed to a refusal."""
    from clickhouse_connect.driver.exceptions import OperationalError

    return isinstance(error, OperationalError) and error_code(error) == 0


def error_code(error: "Error") -> int:
    """ClickHouse's code, from the error or out of its message; 0 where there is none."""
    if error.code:
        return error.code
    written = re.search(r"\bCode:\s*(\d+)", str(error))
    return int(written.group(1)) if written else 0


def _one_line(message: str) -> str:
    """ClickHouse's message without the driver's frame, code, stack and version, and without all that it would have
    understood."""
    message = message.split("server response:", 1)[-1]
    message = re.sub(r"^\s*Code: \d+\. DB::Exception: ", "", message)
    message = re.split(r"\s*(?:Stack trace:|\(version |\(for url |Expected one of: )", message, maxsplit=1)[0]
    message = re.sub(r"\s*FORMAT Native\b", "", message)  # the driver's
    return " ".join(message.split())[:600]
