"""What stands around the SQL: names, cursors, suggestions, and ClickHouse's errors in our words."""

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, Error, OperationalError

from pilothouse.events.envelope import LogPlace
from pilothouse.events.errors import QueryRefused, StackNotRunning
from pilothouse.storage.connect import in_our_words
from pilothouse.storage.named import split_named, statements
from pilothouse.storage.queries import cursor_behind, unknown_run_message


def test_a_file_is_split_by_its_names_and_comments_stay_out() -> None:
    text = "-- About.\n\n-- name: one\nSELECT 1\nFROM t;\n\n-- Why two.\n-- name: two\nSELECT ';';\n"
    assert split_named(text) == [("one", "SELECT 1\nFROM t"), ("two", "SELECT ';'")]


def test_every_statement_has_a_name_of_its_own() -> None:
    assert {"list_runs", "facts", "applied_migrations"} <= statements().keys()


def test_a_cursor_stands_behind_the_last_place_of_each_topic() -> None:
    rows = [
        {"topic": topic, "log_epoch": epoch, "log_partition": 1, "log_offset": offset}
        for topic, epoch, offset in (("facts", 0, 9), ("facts", 1, 2), ("control", 0, 4), ("facts", 0, 7))
    ]
    before = {"control": LogPlace(0, 1, 6), "other": LogPlace(0, 1, 1)}
    assert cursor_behind(rows, before) == {
        "facts": LogPlace(1, 1, 2),
        "control": LogPlace(0, 1, 6),
        "other": LogPlace(0, 1, 1),
    }


@pytest.mark.parametrize(
    "asked, names, said",
    [
        ("gpt", [], "no run 'gpt': the archive holds no runs yet"),
        ("gpt-smal", ["bert", "gpt-small"], "no run 'gpt-smal'; did you mean gpt-small?"),
        ("gpt", ["gpt-large-2024-11-02", "bert"], "no run 'gpt'; did you mean gpt-large-2024-11-02?"),
        ("zzz", ["a", "b", "c", "d"], "no run 'zzz'; the latest are a, b, c (all of them: `pilothouse runs`)"),
    ],
)
def test_an_unknown_run_is_answered_with_what_may_have_been_meant(asked: str, names: list[str], said: str) -> None:
    assert unknown_run_message(asked, names) == said


@pytest.mark.parametrize(
    "error, kind, said",
    [
        (OperationalError("Error refused"), StackNotRunning, "nothing answers at X; start it with `pilothouse up`, or"),
        (DatabaseError("HTTP driver received HTTP status 404"), StackNotRunning, "what answers at X is not ClickHouse"),
        (DatabaseError("no", code=516), QueryRefused, "ClickHouse at X refuses this user or password"),
        (DatabaseError("no", code=81), QueryRefused, "the archive has no such database; `pilothouse migrate` makes it"),
        (
            DatabaseError(
                "Received ClickHouse exception, code: 62, server response: Code: 62. DB::Exception: Syntax error: "
                "failed\nat position 1. (SYNTAX_ERROR) (version 26.9) (for url http://127.0.0.1:1)"
            ),
            QueryRefused,
            "Syntax error: failed at position 1. (SYNTAX_ERROR) (code 62)",
        ),
        (
            DatabaseError(
                "server response: Code: 62. DB::Exception: Syntax error: SELEC 1\n FORMAT Native. Maybe "
                "you meant: SELECT. Expected one of: Query, list of union elements. (SYNTAX_ERROR) (version 26.9)"
            ),
            QueryRefused,
            "Syntax error: SELEC 1. Maybe you meant: SELECT. (code 62)",
        ),
    ],
)
def test_an_error_of_the_driver_is_one_line_for_a_person(error: Error, kind: type[Exception], said: str) -> None:
    ours = in_our_words(error, "X")
    assert type(ours) is kind
    assert str(ours).startswith(said)
    assert "\n" not in str(ours)
