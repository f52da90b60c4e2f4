import pytest

from pilothouse.events.errors import QueryRefused
from pilothouse.storage.statement import InsertWithRows, carries_rows, kills_queries, read_ast, split_insert


@pytest.mark.parametrize(
    "sql,expected",
    [
        (b"INSERT INTO t (a) FORMAT Native\n\x01\x02", InsertWithRows("INSERT INTO t (a)", "Native", b"\x01\x02")),
        (b"insert into t format CSV\r\n1,2", InsertWithRows("insert into t", "CSV", b"1,2")),
        (b"INSERT INTO t FORMAT TSV 1\t2", InsertWithRows("INSERT INTO t", "TSV", b"1\t2")),
        (b"INSERT INTO t VALUES (1,'x;y')", InsertWithRows("INSERT INTO t", "Values", b" (1,'x;y')")),
        (b"INSERT INTO t VALUES (1); ", InsertWithRows("INSERT INTO t", "Values", b" (1); ")),
        (b"INSERT INTO values VALUES (1)", InsertWithRows("INSERT INTO values", "Values", b" (1)")),
        (b"INSERT INTO db.format FORMAT CSV\n1", InsertWithRows("INSERT INTO db.format", "CSV", b"1")),
        (b"INSERT INTO TABLE t VALUES (1)", InsertWithRows("INSERT INTO TABLE t", "Values", b" (1)")),
        (
            b"/* FORMAT X */ INSERT INTO `FORMAT a` (`VALUES`, b) SETTINGS x = 'FORMAT CSV' FORMAT JSONEachRow\n{}",
            InsertWithRows(
                "/* FORMAT X */ INSERT INTO `FORMAT a` (`VALUES`, b) SETTINGS x = 'FORMAT CSV'", "JSONEachRow", b"{}"
            ),
        ),
        (
            b"INSERT INTO FUNCTION file('x', 'CSV') FORMAT CSV\n1",
            InsertWithRows("INSERT INTO FUNCTION file('x', 'CSV')", "CSV", b"1"),
        ),
    ],
)
def test_an_insert_is_cut_where_its_rows_begin(sql: bytes, expected: InsertWithRows) -> None:
    assert split_insert(sql) == expected
    assert carries_rows(sql)


def test_a_second_line_break_belongs_to_the_rows() -> None:
    found = split_insert(b"INSERT INTO t FORMAT Native\n\n\x01")
    assert found is not None
    assert found.rows == b"\n\x01"


@pytest.mark.parametrize(
    "sql",
    [
        b"",
        b"SELECT 1 FORMAT CSV",
        b"SELECT 'INSERT INTO t FORMAT CSV'",
        b"INSERT INTO t SELECT * FROM u FORMAT CSV",
        b"INSERT INTO t WITH 1 AS x SELECT x",
        b"INSERT INTO t FROM INFILE 'x' FORMAT CSV",
        b"INSERT INTO t FORMAT",
        b"INSERT INTO t; DROP TABLE t FORMAT CSV",
    ],
)
def test_other_statements_carry_no_rows(sql: bytes) -> None:
    assert split_insert(sql) is None
    assert not carries_rows(sql)


@pytest.mark.parametrize(
    "sql", [b"INSERT INTO t VALUES (1); DROP TABLE t", b"INSERT INTO t FORMAT CSV; 1", b"INSERT INTO t\xff VALUES (1)"]
)
def test_an_insert_that_cannot_be_one_statement_is_refused(sql: bytes) -> None:
    with pytest.raises(QueryRefused):
        split_insert(sql)


def test_the_tree_tells_the_format_and_the_functions() -> None:
    tree = (
        "SelectWithUnionQuery (children 2)\n ExpressionList (children 1)\n  SelectQuery (children 2)\n"
        "   ExpressionList (children 1)\n    Function file (children 1)\n     ExpressionList (children 1)\n"
        "      Literal 'x'\n   TablesInSelectQuery (children 1)\n    TablesInSelectQueryElement (children 1)\n"
        "     TableExpression (children 1)\n      Function numbers (alias n) (children 1)\n       ExpressionList\n"
        " Identifier JSON\n"
    )
    statement = read_ast("SELECT file('x') FROM numbers(1) AS n FORMAT JSON", tree)
    assert statement.returns_rows
    assert statement.format == "JSON"
    assert not statement.names_a_file
    assert statement.functions == {"file", "numbers"}
    assert statement.table_functions == {"numbers"}


def test_a_file_is_a_text_right_under_the_root() -> None:
    tree = "ShowTables (children 2)\n Literal '/tmp/x'\n Identifier JSON"
    assert read_ast("SHOW TABLES INTO OUTFILE '/tmp/x' FORMAT JSON", tree).names_a_file


def test_the_comment_of_a_table_is_no_file() -> None:
    tree = "CreateQuery t (children 2)\n Identifier t\n Literal 'tt'"
    assert not read_ast("CREATE TABLE t (`a` Int8) ENGINE = Memory COMMENT 'tt'", tree).names_a_file


def test_ordering_by_a_column_named_format_is_no_format_clause() -> None:
    tree = "SelectWithUnionQuery (children 1)\n ExpressionList (children 1)\n  SelectQuery (children 3)"
    assert read_ast("SELECT FORMAT FROM t ORDER BY FORMAT DESC", tree).format is None


def test_a_name_with_a_line_break_makes_a_tree_that_is_not_trusted() -> None:
    tree = "SelectWithUnionQuery (children 2)\n Identifier a\nShowTables`\n Literal '/tmp/x'"
    assert not read_ast(r"SELECT `a\nShowTables` INTO OUTFILE '/tmp/x'", tree).analysable
    assert read_ast(r"SELECT 'a\nb' AS `c`", tree).analysable


def test_a_kill_query_is_known_by_its_first_words() -> None:
    assert kills_queries(b"/* from an editor */ kill -- now\n Query WHERE query_id = 'a'")
    for sql in (
        b"KILL MUTATION WHERE 1",
        b"SELECT 'KILL QUERY'",
        b"KILL",
        b"",
        b"INSERT INTO t FORMAT CSV\nKILL QUERY",
    ):
        assert not kills_queries(sql)
