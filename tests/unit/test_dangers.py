"""What a migration may not do by itself."""

import pytest

from pilothouse.storage.dangers import dangers, keeps
from pilothouse.storage.migrate import load_migrations

MADE = [statement for migration in load_migrations() for statement in migration.statements]


def test_no_migration_of_ours_loses_anything() -> None:
    before: list[str] = []
    for migration in load_migrations():
        assert dangers(migration.statements, before) == []
        before += migration.statements


@pytest.mark.parametrize(
    "statement, said",
    [
        ("DROP TABLE event_log", "DROP TABLE event_log"),
        ("TRUNCATE TABLE IF EXISTS step_log", "TRUNCATE TABLE step_log"),
        ("DROP DATABASE pilothouse", "DROP DATABASE pilothouse"),
        ("ALTER TABLE step_log\n    DROP COLUMN bits", "DROP COLUMN in step_log"),
        ("ALTER TABLE event_log ADD COLUMN x Int64, CLEAR COLUMN body", "CLEAR COLUMN in event_log"),
        ("ALTER TABLE tick_log DROP PARTITION 202501", "DROP PARTITION in tick_log"),
        ("ALTER TABLE event_log DELETE WHERE at < '2000-01-01'", "DELETE in event_log"),
        ("ALTER TABLE event_log UPDATE body = '' WHERE 1", "UPDATE in event_log"),
        ("DELETE FROM event_log WHERE 1", "DELETE FROM event_log"),
        ("EXCHANGE TABLES step_log AND other", "another table in the place of step_log"),
        ("CREATE OR REPLACE TABLE event_log (a Int64) ENGINE = Memory", "another table in the place of event_log"),
        ("ALTER TABLE step_log MODIFY COLUMN attempt Int32", "step_log.attempt from Int64 to Int32"),
        (
            "ALTER TABLE step_log MODIFY COLUMN times Array(DateTime64(3, 'UTC'))",
            "step_log.times from Array(DateTime64(6, 'UTC')) to Array(DateTime64(3, 'UTC'))",
        ),
        ("ALTER TABLE event_log MODIFY COLUMN step Int64 CODEC(LZ4)", "event_log.step from Nullable(Int64) to Int64"),
        ("ALTER TABLE event_log MODIFY COLUMN new Int64", "event_log.new from an unknown type to Int64"),
        ("ALTER TABLE tick_log MODIFY TTL at + INTERVAL 1 DAY", "MODIFY TTL in tick_log"),
    ],
)
def test_what_cannot_be_made_again_is_not_lost_in_silence(statement: str, said: str) -> None:
    assert dangers([statement], MADE) == [said]


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE run_summary",
        "ALTER TABLE run_progress DROP COLUMN last_step",
        "ALTER TABLE event_log ADD COLUMN mode LowCardinality(String) MATERIALIZED JSONExtractString(body, 'mode')",
        "ALTER TABLE step_log MODIFY COLUMN rank Int64",
        "ALTER TABLE step_log MODIFY COLUMN column_index UInt32, MODIFY COLUMN metric String",
        "ALTER TABLE event_log MODIFY COLUMN body String CODEC(ZSTD(9))",
        "CREATE OR REPLACE VIEW event_log_of_today AS SELECT 1",
    ],
)
def test_what_loses_nothing_runs(statement: str) -> None:
    assert dangers([statement], MADE) == []


@pytest.mark.parametrize(
    "had, wants, all_kept",
    [
        ("UInt8", "Int16", True),
        ("UInt16", "Int16", False),
        ("Int16", "UInt32", False),
        ("Float32", "Float64", True),
        ("Float64", "Float32", False),
        ("Int64", "Float64", False),
        ("String", "LowCardinality(String)", True),
        ("Int64", "Nullable(Int64)", True),
        ("Nullable(Int32)", "Nullable(Int64)", True),
        ("Array(UInt16)", "Array(UInt32)", True),
        ("DateTime64(3, 'UTC')", "DateTime64(6, 'UTC')", True),
        ("DateTime64(6, 'UTC')", "DateTime64(6, 'Asia/Tokyo')", False),
        ("FixedString(8)", "String", True),
        ("String", "FixedString(8)", False),
        ("String", "Int64", False),
    ],
)
def test_a_type_keeps_another_only_if_it_holds_every_value_of_it(had: str, wants: str, all_kept: bool) -> None:
    assert keeps(had, wants) is all_kept
