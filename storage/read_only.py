"""What the `reader` may do: look at tables, and nothing else. Pure; `storage.session` asks before it runs anything.

ClickHouse's own `readonly=1` is set on the reader's handle as well, but in an embedded engine it leaks (each of these
was seen to pass it): `SELECT … INTO OUTFILE` writes files, `DESCRIBE TABLE file(…)` and the function `file(…)` read
them, `sqlite(…)` makes one before it is refused, `python(…)` looks at this process, KILL, GRANT and BACKUP are let
through. So a statement must be of a known kind, and its table functions must be known to stay inside the archive.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ..events.errors import QueryRefused
from .statement import Statement

READONLY = 164

_SHOWS = frozenset(
    f"Show{what}"
    for what in (
        "Tables", "Columns", "Indexes", "Functions", "EngineQuery", "Setting", "ProcesslistQuery",
        "CreateTableQuery", "CreateViewQuery", "CreateDatabaseQuery", "CreateDictionaryQuery",
    )
)  # fmt: skip
_KINDS = _SHOWS | {
    "SelectWithUnionQuery", "DescribeQuery", "Explain", "UseQuery",
    "ExistsTableQuery", "ExistsViewQuery", "ExistsDatabaseQuery", "ExistsDictionaryQuery",
}  # fmt: skip
_INNER_QUERIES = _KINDS | {"SelectQuery", "SelectIntersectExceptQuery", "TablesInSelectQuery"}
_TABLE_FUNCTIONS = frozenset(
    {
        "numbers", "numbers_mt", "zeros", "zeros_mt", "generateseries", "generate_series", "primes",
        "values", "null", "merge", "view", "viewexplain",
    }
)  # fmt: skip
_SETTINGS = frozenset(
    {
        "async_insert", "date_time_output_format", "extremes", "final", "join_use_nulls", "max_threads",
        "output_format_binary_write_json_as_string", "output_format_json_named_tuples_as_objects",
        "output_format_json_quote_64bit_floats", "output_format_json_quote_64bit_integers",
        "output_format_json_quote_decimals", "output_format_json_quote_denormals",
        "output_format_native_write_json_as_string", "output_format_pretty_color", "output_format_pretty_max_rows",
        "result_overflow_mode", "session_timezone", "wait_for_async_insert",
    }
)  # fmt: skip
"""What changes an answer's form, or nothing at all for a reader: JDBC sends `async_insert` with every query. Not all of
`output_format_…`: some of those name files."""


@dataclass(frozen=True)
class ReaderLimits:
    """What one query of the reader may cost; a request may lower these, never raise them. Zero is no limit.

    Who asks for more rows and for `result_overflow_mode=break`, as JDBC does for "no limit", gets as many as allowed.
    """

    max_execution_time: int = 60
    max_memory_usage: int = 2 * 1024**3
    max_result_rows: int = 1_000_000


def refuse_unless_reading(statement: Statement) -> None:
    """Let a harmless statement pass.

    Raises:
        QueryRefused: it writes, leaves the archive, or cannot be judged; the message says which.
    """
    if not statement.analysable:
        raise _refusal("a name holds a line break, so that the statement cannot be judged")
    if statement.kind not in _KINDS:
        raise _refusal("only SELECT, SHOW, DESCRIBE, EXISTS and EXPLAIN are allowed")
    if statement.names_a_file:
        raise _refusal("INTO OUTFILE is not allowed")
    if "Set" in statement.nodes:
        raise _refusal("SETTINGS go with the request, not into its SQL")
    # An embedded engine has every file of the machine as a table of `default`, if only to say that it is there.
    if any("/" in name for name in statement.tables):
        raise _refusal("a table's name may not be a path")
    strange = {node for node in statement.nodes if node.endswith("Query")} - _INNER_QUERIES
    if strange:
        raise _refusal(f"{', '.join(sorted(strange))} is not allowed inside another statement")
    outside = {name for name in statement.table_functions if name.lower() not in _TABLE_FUNCTIONS}
    outside |= {name for name in statement.functions if _leaves_the_archive(name)}
    if outside:
        raise _refusal(f"{', '.join(sorted(outside))}(…) reaches outside the archive")


def reader_settings(requested: Mapping[str, str], limits: ReaderLimits) -> dict[str, str]:
    """The settings of a reader's query: its limits, with what the request may change.

    Raises:
        QueryRefused: the request changes a setting that is not the reader's to change, or raises a limit.
    """
    ceilings = vars(limits)
    settings = {name: str(value) for name, value in ceilings.items() if value}
    for name, value in requested.items():
        if name == "max_result_rows" and requested.get("result_overflow_mode") == "break":
            settings[name] = _cut_to(value, ceilings[name])
        elif name in ceilings:
            settings[name] = _lowered(name, value, ceilings[name])
        elif name in _SETTINGS:
            settings[name] = value
        else:
            raise QueryRefused(f"Cannot modify '{name}' setting in readonly mode. (READONLY)", READONLY)
    return settings


def _lowered(name: str, value: str, ceiling: int) -> str:
    try:
        asked = float(value)
    except ValueError:
        asked = 0.0
    if ceiling and not 0 < asked <= ceiling:
        raise QueryRefused(
            f"Cannot raise '{name}' over {ceiling} in readonly mode: '{value}' was asked. (READONLY)", READONLY
        )
    return value


def _cut_to(value: str, ceiling: int) -> str:
    return value if not ceiling or (value.isascii() and value.isdigit() and 0 < int(value) <= ceiling) else str(ceiling)


def _leaves_the_archive(function: str) -> bool:
    # The ai… functions send what they are given to a service on the network.
    return function.lower() == "file" or function.lower().startswith("ai")


def _refusal(why: str) -> QueryRefused:
    return QueryRefused(f"Cannot execute query in readonly mode: {why}. (READONLY)", READONLY)
