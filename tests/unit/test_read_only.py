import pytest

from pilothouse.events.errors import QueryRefused
from pilothouse.storage.read_only import READONLY, ReaderLimits, reader_settings, refuse_unless_reading
from pilothouse.storage.statement import Statement

LIMITS = ReaderLimits(max_execution_time=60, max_memory_usage=1_000_000, max_result_rows=10)


def test_a_reader_gets_its_limits() -> None:
    assert reader_settings({}, LIMITS) == {
        "max_execution_time": "60",
        "max_memory_usage": "1000000",
        "max_result_rows": "10",
    }


def test_a_reader_may_lower_a_limit_and_choose_how_numbers_look() -> None:
    settings = reader_settings({"max_execution_time": "5", "output_format_json_quote_denormals": "0"}, LIMITS)
    assert settings["max_execution_time"] == "5"
    assert settings["output_format_json_quote_denormals"] == "0"


@pytest.mark.parametrize("value", ["0", "61", "-1", "nan", "inf", "", "lots"])
def test_a_reader_may_not_raise_a_limit(value: str) -> None:
    with pytest.raises(QueryRefused) as refused:
        reader_settings({"max_execution_time": value}, LIMITS)
    assert refused.value.code == READONLY


def test_a_reader_who_wants_rows_cut_instead_of_an_error_gets_as_many_as_are_allowed() -> None:
    def rows(asked: str, mode: str = "break") -> str:
        return reader_settings({"max_result_rows": asked, "result_overflow_mode": mode}, LIMITS)["max_result_rows"]

    assert rows("7") == "7"
    for no_limit in ("9223372036854775807", "0", "-1", "1e99", "nonsense", ""):
        assert rows(no_limit) == str(LIMITS.max_result_rows)
    with pytest.raises(QueryRefused):
        rows("9223372036854775807", mode="throw")


@pytest.mark.parametrize(
    "name", ["readonly", "max_result_bytes", "log_comment", "output_format_schema", "format_schema"]
)
def test_a_reader_may_not_touch_other_settings(name: str) -> None:
    with pytest.raises(QueryRefused):
        reader_settings({name: "1"}, LIMITS)


SELECT = frozenset({"SelectWithUnionQuery", "SelectQuery", "TablesInSelectQuery"})


def test_looking_at_tables_passes() -> None:
    refuse_unless_reading(Statement("SelectWithUnionQuery", nodes=SELECT, table_functions=frozenset({"numbers"})))
    refuse_unless_reading(Statement("ShowTables"))
    refuse_unless_reading(Statement("DescribeQuery", nodes=frozenset({"DescribeQuery", "TableExpression"})))


@pytest.mark.parametrize(
    "statement",
    [
        Statement("InsertQuery"),
        Statement("KillQueryQuery"),
        Statement("GrantQuery"),
        Statement("BackupQuery"),
        Statement("SYSTEM"),
        Statement("Set"),
        Statement(""),
        Statement("SelectWithUnionQuery", nodes=SELECT, names_a_file=True),
        Statement("SelectWithUnionQuery", nodes=SELECT, analysable=False),
        Statement("SelectWithUnionQuery", nodes=SELECT, functions=frozenset({"FILE"})),
        Statement("SelectWithUnionQuery", nodes=SELECT, functions=frozenset({"aiGenerate"})),
        Statement("SelectWithUnionQuery", nodes=SELECT, table_functions=frozenset({"python"})),
        Statement("SelectWithUnionQuery", nodes=SELECT | {"Set"}),
        Statement("ExistsTableQuery", tables=frozenset({"default", "/etc/passwd"})),
        Statement("DescribeQuery", table_functions=frozenset({"url"})),
        Statement("Explain", nodes=frozenset({"InsertQuery"})),
    ],
)
def test_everything_else_is_refused(statement: Statement) -> None:
    with pytest.raises(QueryRefused) as refused:
        refuse_unless_reading(statement)
    assert refused.value.code == READONLY
