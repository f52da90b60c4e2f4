"""What a migration may not do by itself: lose what cannot be made again. Pure.

`migrate` asks before it runs anything, and a test asks of every file. The truth is the log; all else can be filled from
it again. A migration that must lose something says so in its own text, and runs only where a person agreed.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

TRUTH = frozenset({"event_log", "step_log", "tick_log", "imported_tick_log", "import_log"})

_CREATED = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)\s*\((.*?)\n\)", re.DOTALL | re.IGNORECASE)
_COLUMN = re.compile(
    r"^\s*`?(\w+)`?\s+([A-Z][\w() ,']*?)(?:\s+(?:CODEC|DEFAULT|MATERIALIZED|ALIAS|COMMENT|SETTINGS)\b.*)?,?$"
)
_WHOLE = re.compile(
    r"^(DROP|TRUNCATE|DETACH)\s+(?:TEMPORARY\s+)?(TABLE|DATABASE)\s+(?:IF EXISTS\s+)?(\w+)", re.IGNORECASE
)
_REPLACED = re.compile(
    r"^(?:CREATE OR REPLACE|REPLACE) TABLE\s+(\w+)|^(?:RENAME TABLE|EXCHANGE TABLES)\s+(.*)", re.IGNORECASE
)
_DELETED = re.compile(r"^DELETE FROM\s+(\w+)", re.IGNORECASE)
_ALTER = re.compile(r"^ALTER TABLE\s+(\w+)\s+(.*)", re.IGNORECASE | re.DOTALL)
_LOSING = re.compile(
    r"\b(DROP COLUMN|CLEAR COLUMN|RENAME COLUMN|DROP PARTITION|DETACH PARTITION|DROP PART|DETACH PART|REPLACE PARTITION"
    r"|MOVE PARTITION|DELETE\b|UPDATE\b|MODIFY TTL|MODIFY ORDER BY)",
    re.IGNORECASE,
)
_RETYPED = re.compile(r"\b(?:MODIFY|ALTER) COLUMN\s+(?:IF EXISTS\s+)?`?(\w+)`?\s+(?:TYPE\s+)?([A-Z][\w() ,']*)")
_CHANGES = re.compile(r",\s*(?=(?:ADD|ALTER|CLEAR|COMMENT|DROP|MODIFY|REMOVE|RENAME)\b)", re.IGNORECASE)
_INTEGER = re.compile(r"(U?)Int(\d+)")
_MOMENT = re.compile(r"DateTime64\((\d), '([^']+)'\)")
_LETTERS = re.compile(r"(LowCardinality|Nullable|Array)\((.*)\)")


def dangers(statements: Sequence[str], before: Iterable[str]) -> list[str]:
    """What these statements would lose, in words; `before` are the statements that made the tables."""
    types = _types([*before, *statements])
    return [found for statement in statements for found in _in(" ".join(statement.split()), types)]


def _in(statement: str, types: dict[tuple[str, str], str]) -> Iterator[str]:
    if (whole := _WHOLE.match(statement)) and (whole[3] in TRUTH or whole[2].upper() == "DATABASE"):
        yield f"{whole[1].upper()} {whole[2].upper()} {whole[3]}"
    if (replaced := _REPLACED.match(statement)) and (
        named := TRUTH & set(re.findall(r"\w+", replaced[1] or replaced[2]))
    ):
        yield f"another table in the place of {', '.join(sorted(named))}"
    if (deleted := _DELETED.match(statement)) and deleted[1] in TRUTH:
        yield f"DELETE FROM {deleted[1]}"
    if (alter := _ALTER.match(statement)) and alter[1] in TRUTH:
        yield from _in_alter(alter[1], alter[2], types)


def _in_alter(table: str, change: str, types: dict[tuple[str, str], str]) -> Iterator[str]:
    for losing in _LOSING.findall(change):
        yield f"{losing.upper()} in {table}"
    for column, wanted in (found for one in _CHANGES.split(change) for found in _RETYPED.findall(one)):
        had, wants = types.get((table, column)), re.split(r"\s+(?:CODEC|DEFAULT|COMMENT)\b", wanted)[0].strip()
        if had is None or not keeps(had, wants):
            yield f"{table}.{column} from {had or 'an unknown type'} to {wants}"


def keeps(had: str, wants: str) -> bool:
    """Whether every value of the one type is a value of the other, to the last bit."""
    if had == wants:
        return True
    inner, outer = _LETTERS.fullmatch(had), _LETTERS.fullmatch(wants)
    if inner and inner[1] == "LowCardinality":
        return keeps(inner[2], wants)
    if outer and outer[1] == "LowCardinality":
        return keeps(had, outer[2])
    if outer and outer[1] == "Nullable":
        return keeps(inner[2] if inner and inner[1] == "Nullable" else had, outer[2])
    if inner and outer:
        return inner[1] == outer[1] and keeps(inner[2], outer[2])
    return _widens(had, wants)


def _widens(had: str, wants: str) -> bool:
    if (old := _INTEGER.fullmatch(had)) and (new := _INTEGER.fullmatch(wants)):
        room = int(new[2]) - int(old[2])
        return room >= 0 if old[1] == new[1] else room > 0 and old[1] == "U"
    if (was := _MOMENT.fullmatch(had)) and (now := _MOMENT.fullmatch(wants)):
        return was[2] == now[2] and was[1] <= now[1]
    return (had, wants) == ("Float32", "Float64") or (had.startswith("FixedString(") and wants == "String")


def _types(statements: Iterable[str]) -> dict[tuple[str, str], str]:
    """The type of each column as its table was made with it."""
    types: dict[tuple[str, str], str] = {}
    for statement in statements:
        if created := _CREATED.match(statement.strip()):
            for line in created[2].splitlines():
                if column := _COLUMN.match(line):
                    types[created[1], column[1]] = column[2].strip()
    return types
