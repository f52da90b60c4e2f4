"""One server's statements as a cluster's. (That ClickHouse reads them: tests/integration/test_migrations.py.)"""

from pilothouse.storage.cluster import for_cluster
from pilothouse.storage.migrate import load_migrations

COLUMNS = "(\n    run_id String,\n    at Int64\n)"
TABLE = f"CREATE TABLE IF NOT EXISTS event_log\n{COLUMNS}\nENGINE = ReplacingMergeTree(at)\nORDER BY run_id"


def test_without_a_cluster_a_statement_is_itself() -> None:
    for migration in load_migrations():
        assert [for_cluster(statement, "") for statement in migration.statements] == [[s] for s in migration.statements]


def test_a_table_is_replicated_on_each_shard_and_distributed_over_them_by_run() -> None:
    kept, over = for_cluster(TABLE, "it's")
    assert kept == (
        f"CREATE TABLE IF NOT EXISTS event_log_local ON CLUSTER 'it\\'s'\n{COLUMNS}\n"
        "ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/event_log', '{replica}', at)\n"
        "ORDER BY run_id"
    )
    assert over == (
        "CREATE TABLE IF NOT EXISTS event_log ON CLUSTER 'it\\'s' AS event_log_local "
        "ENGINE = Distributed('it\\'s', currentDatabase(), 'event_log_local', cityHash64(run_id))"
    )


def test_what_belongs_to_no_run_is_everywhere() -> None:
    [kept] = for_cluster(TABLE.replace("event_log", "regime_bands"), "c")
    assert "regime_bands ON CLUSTER 'c'" in kept
    assert "('/clickhouse/tables/all/{database}/regime_bands', '{shard}-{replica}', at)" in kept


def test_what_fills_a_table_does_so_on_its_own_shard_and_views_read_all_of_them() -> None:
    filled = "CREATE MATERIALIZED VIEW IF NOT EXISTS v TO run_progress AS\nSELECT 1\nFROM event_log AS e"
    [told] = for_cluster(filled, "c")
    assert told == (
        "CREATE MATERIALIZED VIEW IF NOT EXISTS v ON CLUSTER 'c' TO run_progress_local AS\n"
        "SELECT 1\nFROM event_log_local AS e"
    )
    [further] = for_cluster(
        "CREATE MATERIALIZED VIEW IF NOT EXISTS w TO run_summary AS\nSELECT 1\nFROM run_progress AS p", "c"
    )
    assert further.endswith("TO run_summary_local AS\nSELECT 1\nFROM run_progress_local AS p")
    view = "CREATE OR REPLACE VIEW events\n(\n    a Int64\n)\nAS\nSELECT a FROM event_log FINAL"
    assert for_cluster(view, "c") == [view.replace("VIEW events", "VIEW events ON CLUSTER 'c'")]


def test_a_new_column_is_added_below_and_above_a_ttl_only_below() -> None:
    assert for_cluster("ALTER TABLE step_log ADD COLUMN x Int64 CODEC(ZSTD(1))", "c") == [
        "ALTER TABLE step_log_local ON CLUSTER 'c' ADD COLUMN x Int64 CODEC(ZSTD(1))",
        "ALTER TABLE step_log ON CLUSTER 'c' ADD COLUMN x Int64",
    ]
    assert for_cluster("ALTER TABLE step_log REMOVE TTL", "c") == [
        "ALTER TABLE step_log_local ON CLUSTER 'c' REMOVE TTL"
    ]


def test_every_table_and_view_of_ours_is_made_on_the_whole_cluster() -> None:
    for statement in (statement for migration in load_migrations() for statement in migration.statements):
        if statement.startswith("CREATE"):
            assert all("ON CLUSTER 'c'" in each for each in for_cluster(statement, "c"))
