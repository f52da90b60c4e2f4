"""Who may do what on a ClickHouse server: the least that migrations, each worker, the control room and people need.

`pilothouse storage grants` shows them, prints them as SQL, or puts them in force (`apply`), as its administrator. The
names of users are a site's own. The embedded archive has two users of its own (`read_only`), and none of these.
"""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from ..events.errors import UserMistake
from .connect import refusals
from .read_only import ReaderLimits

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

User = Literal["migrations", "archiver", "importer", "governor", "advisor", "control-room", "reader"]
USERS: tuple[User, ...] = get_args(User)
WITH_LIMITS: tuple[User, ...] = ("reader",)
"""Whoever asks what he likes: nothing but questions, each within the limits of the embedded archive's reader."""

ALL = "*"


class Grant(NamedTuple):
    """What one user may do with a table of the archive, with all of them, or (`database` given) outside of it."""

    user: User
    privileges: tuple[str, ...]
    table: str = ALL
    database: str | None = None


GRANTS = (
    Grant(
        "migrations",
        (
            "SELECT",
            "INSERT",
            "CREATE DATABASE",
            "CREATE TABLE",
            "CREATE VIEW",
            "DROP VIEW",
            "ALTER TABLE",
            "ALTER VIEW",
        ),
    ),
    Grant("archiver", ("SELECT",)),
    *(Grant("archiver", ("INSERT",), table) for table in ("event_log", "step_log", "tick_log", "step_stretches")),
    Grant("importer", ("SELECT",)),
    *(
        Grant("importer", ("INSERT",), table)
        for table in ("event_log", "step_log", "step_stretches", "import_log", "imported_tick_log")
    ),
    Grant("governor", ("SELECT",)),
    Grant("advisor", ("SELECT",)),
    Grant("control-room", ("SELECT",)),
    Grant("reader", ("SELECT",)),
    Grant("reader", ("SELECT",), "disks", "system"),  # how much room there is: `pilothouse doctor`
)
OF_CLUSTER = (Grant("migrations", ("CLUSTER", "REMOTE"), ALL, ALL),)
"""Beside those, where the archive lies on a cluster."""


def names_of(given: Mapping[str, str]) -> dict[User, str]:
    """The site's name of each user; `pilothouse-archiver` and the like where none is given.

    Raises:
        UserMistake: there is no such user of ours.
    """
    return {user: _of(given, "--user archiver=NAME").get(user) or f"pilothouse-{user}" for user in USERS}


def hashes_of(passwords: Mapping[str, str]) -> dict[User, str]:
    """What a server is told of each password, and keeps of it: its SHA-256.

    Raises:
        UserMistake: there is no such user of ours, or a password is empty.
    """
    known = _of(passwords, "--password-file archiver=FILE")
    if empty := [user for user, password in known.items() if not password]:
        raise UserMistake(f"the password of {empty[0]} is empty: whoever knows the name would be let in")
    return {user: sha256(password.encode()).hexdigest() for user, password in known.items()}


def _of(given: Mapping[str, str], instead: str) -> dict[User, str]:
    if unknown := [user for user in given if user not in USERS]:
        raise UserMistake(f"{unknown[0]!r} is nobody here: there are {', '.join(USERS)}; write {instead}")
    return {user: given[user] for user in USERS if user in given}


def rows(names: Mapping[User, str], database: str, cluster: str = "") -> Iterator[dict[str, Any]]:
    """The rights for a person or a program."""
    for grant in _granted(cluster):
        yield {
            "user": names[grant.user],
            "may": ", ".join(grant.privileges),
            "on": _target(grant, database, plain=True),
        }


def statements(
    names: Mapping[User, str], hashes: Mapping[User, str], database: str, cluster: str = ""
) -> Iterator[str]:
    """As SQL. A user with a password here is made, or given it; every user is left with these rights and no others."""
    where = f" ON CLUSTER {_quoted(cluster)}" if cluster else ""
    for user in USERS:
        name, limits = f"`{_escaped(names[user], '`')}`", _limits() if user in WITH_LIMITS else ""
        if user in hashes:
            secret = f"IDENTIFIED WITH sha256_hash BY '{hashes[user]}'"
            yield f"CREATE USER IF NOT EXISTS {name}{where} {secret}"
            yield f"ALTER USER {name}{where} {secret}"
        if limits:
            yield f"ALTER USER {name}{where} SETTINGS {limits}"
        granted = ", ".join(
            f"{', '.join(grant.privileges)} ON {_target(grant, database)}"
            for grant in _granted(cluster)
            if grant.user == user
        )
        yield f"GRANT{where} {granted} TO {name} WITH REPLACE OPTION"


def apply(client: "Client", wanted: list[str]) -> None:
    """Put them in force; again, nothing changes.

    Raises:
        QueryRefused: this user may not, or there is no such user and no password to make it with.
        StackNotRunning: nothing answers.
    """
    with refusals():
        for statement in wanted:
            client.command(statement, use_database=False)


def _granted(cluster: str) -> tuple[Grant, ...]:
    return (*GRANTS, *OF_CLUSTER) if cluster else GRANTS


def _limits() -> str:
    """ClickHouse takes 0 for no limit: what may be lowered may not become that."""
    bounds = (f"{name} = {value} MIN 1 MAX {value}" for name, value in vars(ReaderLimits()).items() if value)
    return ", ".join(("readonly = 2", *bounds))


def _target(grant: Grant, database: str, *, plain: bool = False) -> str:
    of = grant.database or database
    return f"{of}.{grant.table}" if plain or of == ALL else f"`{_escaped(of, '`')}`.{grant.table}"


def _quoted(text: str) -> str:
    return f"'{_escaped(text, chr(39))}'"


def _escaped(text: str, quote: str) -> str:
    return text.replace("\\", "\\\\").replace(quote, f"\\{quote}")
