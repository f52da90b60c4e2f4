"""What one SQL statement is, before it runs: its kind, its output format, where an INSERT ends and its rows begin.

Pure. `storage.engine` asks the real parser (formatQuery, EXPLAIN AST) and gives its answer to `read_ast`;
`storage.session` splits inserts with `split_insert`; `storage.read_only` judges what `read_ast` found.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..events.errors import QueryRefused

SYNTAX_ERROR = 62
BAD_ARGUMENTS = 36

_TOKEN = re.compile(
    rb"""(?P<space>\s+|--[^\n]*|\#[ !][^\n]*|/\*.*?\*/)
       | (?P<quoted>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|`(?:[^`\\]|\\.|``)*`)
       | (?P<word>[A-Za-z_0-9$\x80-\xff]+)
       | (?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)
_NODE = re.compile(r"(?P<indent> *)(?P<node>\S+)(?: +(?P<rest>(?P<name>\S+).*))?")
_LINE_BREAK_IN_NAME = re.compile(r"[`\"](?:[^`\"\\]|\\.)*\\n")
_FORMAT_CLAUSE = re.compile(r" FORMAT (\w+)(?: SETTINGS .*)?$")


@dataclass(frozen=True)
class InsertWithRows:
    """An INSERT whose rows travel with it. `head` has neither FORMAT nor rows."""

    head: str
    format: str
    rows: bytes


@dataclass(frozen=True)
class Statement:
    """What the real parser says a statement is. Functions are named as written, `tables` with what follows them.

    `analysable` is False where the tree could be made to lie: then it must not be trusted to refuse anything.
    """

    kind: str
    nodes: frozenset[str] = frozenset()
    functions: frozenset[str] = frozenset()
    table_functions: frozenset[str] = frozenset()
    tables: frozenset[str] = frozenset()
    format: str | None = None
    names_a_file: bool = False
    temporary: bool = False
    analysable: bool = True

    @property
    def returns_rows(self) -> bool:
        """Whether it answers with a result (and so in a format), even an empty one."""
        return self.kind.startswith(("Select", "Show", "Describe", "Exists", "Explain", "Check", "KillQuery"))


def read_ast(normalised: str, ast: str) -> Statement:
    """Read EXPLAIN AST's indented tree; `normalised` is the same statement as formatQuerySingleLine writes it."""
    nodes = [match for line in ast.splitlines() if (match := _NODE.match(line))]
    if not nodes:
        raise QueryRefused("Empty query. (SYNTAX_ERROR)", SYNTAX_ERROR)
    kind = nodes[0]["node"]
    children = [match for match in nodes if match["indent"] == " "]
    return Statement(
        kind=kind,
        nodes=frozenset(match["node"] for match in nodes),
        functions=frozenset(match["name"] for match in nodes if match["node"] == "Function" and match["name"]),
        table_functions=frozenset(_table_functions(nodes)),
        tables=frozenset(match["rest"] for match in nodes if _names_a_table(match) and match["rest"]),
        format=_output_format(normalised, children),
        names_a_file=_may_name_a_file(kind) and any(_is_text(match) for match in children),
        temporary=normalised.upper().startswith("CREATE TEMPORARY "),
        # A name may hold a line break, and the tree prints it as it is: such a tree could pretend anything.
        analysable=_LINE_BREAK_IN_NAME.search(normalised) is None,
    )


def _may_name_a_file(kind: str) -> bool:
    # These print INTO OUTFILE and FROM INFILE as a text literal right under the root; elsewhere that is a comment.
    return kind.startswith(("Select", "Show", "Describe", "Exists", "Explain", "Insert"))


def _names_a_table(match: re.Match[str]) -> bool:
    # SELECT and DESCRIBE have TableIdentifiers; EXISTS and SHOW CREATE name theirs right under the root.
    return match["node"] == "TableIdentifier" or (match["node"] == "Identifier" and match["indent"] == " ")


def _is_text(match: re.Match[str]) -> bool:
    return match["node"] == "Literal" and (match["name"] or "").startswith("'")


def _output_format(normalised: str, children: list[re.Match[str]]) -> str | None:
    clause = _FORMAT_CLAUSE.search(normalised)
    if clause is None or not children:
        return None
    # `ORDER BY FORMAT DESC` reads like the clause too: the tree knows.
    last = children[-1]
    return clause[1] if last["node"] == "Identifier" and last["name"] == clause[1] else None


def _table_functions(nodes: list[re.Match[str]]) -> Iterator[str]:
    for parent, child in itertools.pairwise(nodes):
        if parent["node"] == "TableExpression" and child["node"] == "Function" and child["name"]:
            yield child["name"]


def carries_rows(sql: bytes) -> bool:
    """Whether `split_insert` would find rows; it looks no further than where they begin."""
    return _before_rows(sql) is not None


def kills_queries(sql: bytes) -> bool:
    """Whether it is a KILL QUERY."""
    return [token.text.upper() for token in itertools.islice(_tokens(sql), 2)] == [b"KILL", b"QUERY"]


def split_insert(sql: bytes) -> InsertWithRows | None:
    """Cut `INSERT … FORMAT X <rows>` or `INSERT … VALUES <rows>` in two; None for every other statement.

    Raises:
        QueryRefused: a semicolon stands where the rows should begin, or something follows the rows.
    """
    cut = _before_rows(sql)
    if cut is None:
        return None
    keyword, format_name = cut
    return _with_values(sql, keyword) if format_name is None else _with_format(sql, keyword, format_name)


def decode_sql(sql: bytes) -> str:
    """SQL as text.

    Raises:
        QueryRefused: it is not UTF-8, which the embedded engine cannot take.
    """
    try:
        return sql.decode()
    except UnicodeDecodeError as error:
        message = f"The SQL is not UTF-8 ({error}): send binary values as parameters. (BAD_ARGUMENTS)"
        raise QueryRefused(message, BAD_ARGUMENTS) from error


class _Token(NamedTuple):
    kind: str
    text: bytes
    start: int
    end: int


def _tokens(sql: bytes) -> Iterator[_Token]:
    for match in _TOKEN.finditer(sql):
        if match.lastgroup is not None and match.lastgroup != "space":
            yield _Token(match.lastgroup, match.group(), match.start(), match.end())


def _insert_clauses(sql: bytes) -> Iterator[_Token]:
    """The words of an INSERT after its target, outside quotes and parentheses; nothing for another statement."""
    tokens = _tokens(sql)
    first = next(tokens, None)
    if first is None or first.text.upper() != b"INSERT":
        return
    previous = next((t for t in tokens if t.text.upper() not in (b"INTO", b"TABLE", b"FUNCTION")), first)
    depth = int(previous.text == b"(")
    for token in tokens:
        depth += (token.text == b"(") - (token.text == b")")
        if token.text == b";":
            return
        if token.kind == "word" and depth == 0 and previous.text != b".":
            yield token
        previous = token


def _before_rows(sql: bytes) -> tuple[_Token, _Token | None] | None:
    """VALUES, or FORMAT and its name."""
    clauses = _insert_clauses(sql)
    for clause in clauses:
        match clause.text.upper():
            case b"SELECT" | b"WITH" | b"FROM" | b"EXPLAIN":
                return None
            case b"VALUES":
                return clause, None
            case b"FORMAT":
                name = next(clauses, None)
                return (clause, name) if name else None  # incomplete: the real parser says it better
            case _:
                continue
    return None


def _with_values(sql: bytes, keyword: _Token) -> InsertWithRows:
    rows = sql[keyword.end :]
    if b";" in rows and _something_after_semicolon(rows):
        raise QueryRefused(
            "Multi-statements are not allowed: send one statement a request. (SYNTAX_ERROR)", SYNTAX_ERROR
        )
    return InsertWithRows(decode_sql(sql[: keyword.start]).strip(), "Values", rows)


def _with_format(sql: bytes, keyword: _Token, name: _Token) -> InsertWithRows:
    rows = sql[name.end :].lstrip(b" \t\f")
    format_name = decode_sql(name.text)
    if rows.startswith(b";"):
        message = f"There is a ';' between FORMAT {format_name} and the rows: leave it out. (SYNTAX_ERROR)"
        raise QueryRefused(message, SYNTAX_ERROR)
    # One line break belongs to the statement; a second one is already the first byte of the rows.
    rows = rows.removeprefix(b"\r").removeprefix(b"\n")
    return InsertWithRows(decode_sql(sql[: keyword.start]).strip(), format_name, rows)


def _something_after_semicolon(rows: bytes) -> bool:
    tokens = _tokens(rows)
    return any(token.text == b";" for token in tokens) and next(tokens, None) is not None
