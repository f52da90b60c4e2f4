"""The rights that `pilothouse storage grants` gives are enough, and no more: ClickHouse's own engine judges them.

The engine in a process of its own has one user, who is given here what a role has on a server. What differs from a
server: its system tables are everybody's, and opening it takes CREATE DATABASE.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from pilothouse.events.commands import Tick
from pilothouse.events.envelope import LogPlace
from pilothouse.events.topics import CONTROL, TELEMETRY
from pilothouse.settings import Settings
from pilothouse.storage.archive import Archive, Archived
from pilothouse.storage.connect import connect
from pilothouse.storage.grants import USERS, User, names_of, statements
from pilothouse.storage.history import open_runs
from pilothouse.storage.imports.keeping import Begun, Keeper
from pilothouse.storage.report_queries import fleet_runs
from pilothouse.storage.stretches import Stretches
from pilothouse.storage.upgrade import bring_up_to_date
from pilothouse.tests.endpoint_fixture import start_endpoint
from pilothouse.tests.governed_run import GovernedRun

ACCESS_DENIED = 497
KEY = b"k" * 32
CONFIG = "<!-- key {fingerprint} --><clickhouse><users_config>{users}</users_config></clickhouse>"
ONE_USER = """<clickhouse>
<profiles><default></default></profiles><quotas><default></default></quotas>
<users><default><password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
<grants>{grants}</grants></default></users></clickhouse>"""


def granted(user: User) -> list[str]:
    """What the last statement of this user grants, one by one, without the name."""
    [grant] = [line for line in statements(names_of({}), {}, "pilothouse") if f"TO `pilothouse-{user}` " in line]
    rights = re.sub(r"^GRANT | TO `[^`]+` WITH REPLACE OPTION$", "", grant)
    return [f"GRANT {each}" for each in re.findall(r"(?:^|, )(.*? ON [^,]+)", rights)]


@contextmanager
def as_user(user: User, folder: Path) -> Iterator[Client]:
    """The archive in `folder`, whose only user is this one."""
    archive = folder / "archive"
    archive.mkdir(exist_ok=True)
    wanted = [*granted(user), "GRANT CREATE DATABASE ON pilothouse.*"]
    users = folder / f"{user}.xml"
    users.write_text(ONE_USER.format(grants="".join(f"<query>{each}</query>" for each in wanted)))
    # The one file of configuration that the engine is ever given: that of an archive with a key.
    told = CONFIG.format(fingerprint=sha256(b"archive" + KEY).hexdigest()[:16], users=users)
    (archive / "encryption.xml").write_text(told)
    running = start_endpoint(archive, key=KEY.hex())
    try:
        client = connect(Settings(clickhouse_url=running.clickhouse_url))
        yield client
        client.close()
    finally:
        running.terminate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("granted")


def refused(client: Client, *wanted: str) -> None:
    for statement in wanted:
        with pytest.raises(DatabaseError) as error:
            client.command(statement)
        assert f"Code: {ACCESS_DENIED}." in str(error.value), statement


def test_migrations_make_the_schema_and_may_remove_no_table(folder: Path) -> None:
    with as_user("migrations", folder) as client:
        assert bring_up_to_date(client, Settings())
        refused(client, "DROP TABLE event_log", "TRUNCATE TABLE event_log", "CREATE USER a", "CREATE DATABASE other")


def test_the_archiver_writes_the_log_and_its_summaries_and_nothing_else(folder: Path) -> None:
    run = GovernedRun(run_id="kept").begin().train(40)
    told = [Archived(TELEMETRY.name, place, event) for place, event in run.records]
    decided = [Archived(CONTROL.name, LogPlace(0, 0, at), decision) for at, decision in enumerate(run.decisions)]
    with as_user("archiver", folder) as client:
        assert Archive(client).insert([*told, *decided]) == ()
        stretches = Stretches(client)
        stretches.take(event for _, event in run.records)
        client.command("INSERT INTO step_stretches SELECT * FROM step_stretches")
        assert open_runs(client) == ["kept"]
        assert client.query("SELECT count() FROM log_progress").result_rows[0][0] >= 2
        refused(
            client,
            "DROP TABLE event_log",
            "ALTER TABLE event_log DELETE WHERE 1",
            "INSERT INTO import_log SELECT * FROM import_log",
            "INSERT INTO schema_migrations (number, name, checksum) VALUES (99, 'a', 'b')",
            "CREATE TABLE more (x Int64) ENGINE = MergeTree ORDER BY x",
            "SELECT * FROM file('/etc/passwd', LineAsString)",
        )


@pytest.mark.chaos_long  # costs another start of the engine
def test_an_importer_brings_runs_and_leaves_the_clock_of_the_log_alone(folder: Path) -> None:
    run = GovernedRun(run_id="brought").begin().train(5)
    with as_user("importer", folder) as client:
        keeper = Keeper(client)
        keeper.note(Begun("brought", "csv", "digest", "recipe", "/a.csv", began_at=1))
        keeper.keep("brought", [Archived(TELEMETRY.name, place, event) for place, event in run.records])
        assert any(isinstance(event, Tick) for _, event in run.records)
        assert client.query("SELECT count() FROM imported_tick_log").result_rows[0][0] > 0
        refused(client, "INSERT INTO tick_log SELECT * FROM tick_log", "DROP VIEW runs")


@pytest.mark.chaos_long  # costs another start of the engine
def test_a_reader_asks_every_view_and_neither_writes_nor_leaves_the_archive(folder: Path) -> None:
    with as_user("reader", folder) as client:
        assert [run["run_id"] for run in fleet_runs(client, 0, 2**62)]
        asked = "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'View'"
        views = [row[0] for row in client.query(asked).result_rows]
        assert len(views) > 20
        for view in views:
            client.query(f"SELECT * FROM `{view}` LIMIT 1")
        refused(
            client,
            "INSERT INTO event_log SELECT * FROM event_log",
            "CREATE OR REPLACE VIEW runs AS SELECT 1",
            "SELECT * FROM file('/etc/passwd', LineAsString)",
            "SELECT * FROM url('http://127.0.0.1:1/', LineAsString)",
            "SELECT * FROM remote('127.0.0.1', 'system', 'one')",
        )


def test_who_only_reads_has_the_rights_of_the_reader_on_the_archive() -> None:
    for user in ("governor", "advisor", "control-room"):
        assert granted(user) == ["GRANT SELECT ON `pilothouse`.*"]
        assert granted(user)[0] in granted("reader")
    assert {user for user in USERS if any("INSERT" in each for each in granted(user))} == {
        "migrations",
        "archiver",
        "importer",
    }
