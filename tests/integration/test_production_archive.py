"""An archive as production has it: made by migrations, filled by the archiver, asked by Grafana and the control room,
each with the rights that `pilothouse storage grants` gives it: enough, and no more. ClickHouse's own engine judges.

The engine, in a process of its own for each of them, has one user, who is given what that role has on a server. What
differs from a server: its system tables are everybody's, and opening it takes CREATE DATABASE.
"""

import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from pilothouse.control_room.web.access import Access, Person, digest
from pilothouse.control_room.web.app import make_app
from pilothouse.control_room.web.archive import ArchivePool
from pilothouse.events.commands import PipelineReported, Tick
from pilothouse.events.envelope import LogPlace
from pilothouse.events.telemetry import (
    CheckpointUnavailable,
    DataProfiled,
    LogLines,
    ResourcesSampled,
    RunEnded,
    RunStarted,
    TelemetryGap,
)
from pilothouse.events.topics import CONTROL, TELEMETRY
from pilothouse.events.union import AnyEvent
from pilothouse.settings import Settings
from pilothouse.storage.archive import Archive, Archived
from pilothouse.storage.connect import connect
from pilothouse.storage.grants import USERS, User, names_of, statements
from pilothouse.storage.history import open_runs
from pilothouse.storage.imports.keeping import Begun, Keeper
from pilothouse.storage.stretches import Stretches
from pilothouse.storage.upgrade import bring_up_to_date
from pilothouse.tests.archive_events import Writer, logged, story
from pilothouse.tests.dashboards import ARCHIVE, BOARDS, as_sent, asked_of, expressions, names_in, rules
from pilothouse.tests.endpoint_fixture import EndpointProcess, start_endpoint
from pilothouse.tests.governed_run import GovernedRun

TOKEN = "a-token-of-the-dashboards-tests"
FOREIGN = frozenset(
    {
        "ALERTS",  # Prometheus' own
        "up",
        # https://docs.nvidia.com/datacenter/dcgm: the default counters of its exporter
        "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE", "DCGM_FI_DEV_POWER_USAGE",
        "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_XID_ERRORS",
        # https://github.com/prometheus/node_exporter: collectors that are on by default
        "node_uname_info", "node_cpu_seconds_total", "node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes",
        "node_filesystem_avail_bytes", "node_filesystem_size_bytes",
    }
)  # fmt: skip


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
def as_user(user: User, folder: Path) -> Iterator[EndpointProcess]:
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
        yield running
    finally:
        running.terminate()


def opened(running: EndpointProcess) -> Client:
    return connect(Settings(clickhouse_url=running.clickhouse_url))


def of_late(now: int) -> list[AnyEvent]:
    """A run that ended, as in the tests of the archive, and one that goes on on a machine of its own; both lately."""
    ended = story("ended")
    begun = min(event.at for event in ended)
    runner = Writer("goes-on")
    going: list[AnyEvent] = [
        runner.tell(RunStarted, reason="start", first_step=0, world_size=1, model="gpt", team="t", cost_per_hour=7.0,
                    environment={"host": "node-1"}),
        runner.steps([0, 1, 2], loss=[3.0, 2.0, float("nan")], step_s=[0.1, 0.1, 0.1]),
        runner.tell(ResourcesSampled, values={"gpu_util": 0.4, "gpu_power_w": 300.0}, host="node-2"),
        runner.tell(DataProfiled, step=2, feature="length", data_schema="v2", edges=(1.0, 2.0), counts=(3, 4, 5)),
        runner.tell(LogLines, lines=[{"at": now, "step": 1, "level": "ERROR", "logger": "x", "text": "disk full"}]),
        runner.tell(TelemetryGap, dropped={"spool full": 3}),
        runner.tell(CheckpointUnavailable, step=2, checkpoint_id="c2", path="/c2", how="not_saved", reason="full"),
    ]  # fmt: skip
    failed = Writer("failed")
    over: list[AnyEvent] = [
        failed.tell(RunStarted, reason="start", first_step=0, world_size=1, model="gpt"),
        failed.tell(RunEnded, step=0, outcome="crashed", error="why"),
    ]
    facts: list[AnyEvent] = [
        PipelineReported(
            run_id="goes-on", writer_id=f"fact-{fact}", seq=1, at=now, fact=fact, who="ada", subject="gpt-2"
        )
        for fact in ("retrain_trigger", "promotion")
    ]
    moved = [moved_to(event, now - begun - 60_000_000) for event in ended]
    return moved + [moved_to(event, now - 30_000_000) for event in (*going, *over)] + facts


def moved_to(event: AnyEvent, shift: int) -> AnyEvent:
    changed: dict[str, Any] = {"at": event.at + shift}
    if event.kind == "step_batch":
        changed["times"] = tuple(at + shift for at in event.times)
    return event.model_copy(update=changed)


def refused(client: Client, *wanted: str) -> None:
    for statement in wanted:
        with pytest.raises(DatabaseError) as error:
            client.command(statement)
        assert f"Code: {ACCESS_DENIED}." in str(error.value), statement


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by who may make it; what that one may not do is tried on the way, for a start of the engine is dear."""
    folder = tmp_path_factory.mktemp("granted")
    with as_user("migrations", folder) as running, closing(opened(running)) as client:
        assert bring_up_to_date(client, Settings())
        refused(client, "DROP TABLE event_log", "TRUNCATE TABLE event_log", "CREATE USER a", "CREATE DATABASE other")
    return folder


@pytest.fixture(scope="module")
def filled(migrated: Path) -> Path:
    """Filled by the archiver."""
    run = GovernedRun(run_id="kept").begin().train(40)
    told = [Archived(TELEMETRY.name, place, event) for place, event in run.records]
    decided = [Archived(CONTROL.name, LogPlace(0, 0, at), decision) for at, decision in enumerate(run.decisions)]
    lately = logged(of_late(time.time_ns() // 1_000), partition=1)
    with as_user("archiver", migrated) as running, closing(opened(running)) as client:
        assert Archive(client).insert([*told, *decided, *lately]) == ()
        Stretches(client).take(event for _, event in run.records)
        client.command("INSERT INTO step_stretches SELECT * FROM step_stretches")
        assert "kept" in open_runs(client)
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
    return migrated


@pytest.fixture(scope="module")
def asked(filled: Path) -> Iterator[EndpointProcess]:
    """As the reader finds it."""
    with as_user("reader", filled) as running:
        yield running


@pytest.fixture(scope="module")
def reader(asked: EndpointProcess) -> Iterator[Client]:
    client = opened(asked)
    yield client
    client.close()


# --------------------------------------------------------------------------------------------------------------- rights


def test_a_reader_neither_writes_nor_leaves_the_archive(reader: Client) -> None:
    assert reader.query("SELECT count() FROM runs").result_rows == [(4,)]
    refused(
        reader,
        "INSERT INTO event_log SELECT * FROM event_log",
        "CREATE OR REPLACE VIEW runs AS SELECT 1",
        "SELECT * FROM file('/etc/passwd', LineAsString)",
        "SELECT * FROM url('http://127.0.0.1:1/', LineAsString)",
        "SELECT * FROM remote('127.0.0.1', 'system', 'one')",
    )


@pytest.mark.chaos_long  # planning all of them takes some seconds of CPU
def test_a_reader_may_ask_every_view(reader: Client) -> None:
    views = reader.query("SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'View'")
    assert len(views.result_rows) > 20
    for (view,) in views.result_rows:
        reader.query(f"SELECT * FROM `{view}` LIMIT 1")


def test_who_only_reads_has_the_rights_of_the_reader_on_the_archive() -> None:
    for user in ("governor", "advisor", "control-room"):
        assert granted(user) == ["GRANT SELECT ON `pilothouse`.*"]
        assert granted(user)[0] in granted("reader")
    writing = {user for user in USERS if any("INSERT" in each for each in granted(user))}
    assert writing == {"migrations", "archiver", "importer"}


def test_clickhouse_itself_reads_what_the_rights_of_its_users_are_written_as(reader: Client) -> None:
    hashes = dict.fromkeys(USERS, "0" * 64)
    for statement in (
        *statements(names_of({}), hashes, "pilothouse"),
        *list(statements(names_of({}), hashes, "a", "b")),
    ):
        reader.query(f"EXPLAIN AST {statement}")


@pytest.mark.chaos_long  # costs another start of the engine
def test_an_importer_brings_runs_and_leaves_the_clock_of_the_log_alone(tmp_path: Path) -> None:
    run = GovernedRun(run_id="brought").begin().train(5)
    with as_user("migrations", tmp_path) as running, closing(opened(running)) as client:
        bring_up_to_date(client, Settings())
    with as_user("importer", tmp_path) as running, closing(opened(running)) as client:
        keeper = Keeper(client)
        keeper.note(Begun("brought", "csv", "digest", "recipe", "/a.csv", began_at=1))
        keeper.keep("brought", [Archived(TELEMETRY.name, place, event) for place, event in run.records])
        assert any(isinstance(event, Tick) for _, event in run.records)
        assert client.query("SELECT count() FROM imported_tick_log").result_rows[0][0] > 0
        refused(client, "INSERT INTO tick_log SELECT * FROM tick_log", "DROP VIEW runs")


# -------------------------------------------------------------------------------------------------------------- Grafana


def test_every_question_of_a_panel_is_answered_by_a_real_archive_with_what_the_panel_wants(reader: Client) -> None:
    questions = asked_of(ARCHIVE)
    assert len(questions) > 25
    for one in questions:
        answers = [reader.query(as_sent(one.text, run)) for run in ("ended", "goes-on")]
        shown = [answer for answer in answers if answer.row_count]
        assert shown, f"nothing is shown of {one.board}: {one.panel}"
        names = shown[0].column_names
        if one.kind == "timeseries":
            assert names[0] == "time", one
            assert len(names) >= 2, one
        if one.kind == "logs":
            assert {"timestamp", "body", "level"} <= set(names), one


def test_the_variables_of_a_board_are_filled_from_the_archive(reader: Client) -> None:
    runs, metrics = (
        [row[0] for row in reader.query(as_sent(variable["query"], "goes-on")).result_rows]
        for variable in BOARDS["debug"]["templating"]["list"]
    )
    assert set(runs) == {"ended", "goes-on", "failed", "kept"}
    assert metrics[0] == "loss"


# ----------------------------------------------------------------------------------------------------------- Prometheus

Series = dict[str, list[dict[str, str]]]


@pytest.fixture(scope="module")
def exposed(asked: EndpointProcess) -> Series:
    """What `/metrics` says of that archive: the labels of each series, by name."""
    settings = Settings(clickhouse_url=asked.clickhouse_url, kafka="127.0.0.1:1")
    people = {digest(TOKEN): Person("prometheus", "viewer")}
    with closing(connect(settings)) as client:
        app = make_app(ArchivePool(lambda: client), Access(people, frozenset({"testserver"})), settings)
        answer = TestClient(app).get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200, answer.text
    series: Series = {}
    for family in text_string_to_metric_families(answer.text):
        series.setdefault(f"{family.name}_total" if family.type == "counter" else family.name, [])
        for sample in family.samples:
            series.setdefault(sample.name, []).append(sample.labels)
    return series


def test_prometheus_is_told_on_which_machines_a_run_is_that_goes_on(exposed: Series) -> None:
    hosts = [(labels["run"], labels["host"]) for labels in exposed["pilothouse_run_host_info"]]
    assert ("goes-on", "node-2") in hosts, "as its machine said last"
    assert ("goes-on", "node-1") not in hosts
    assert "ended" not in {run for run, _ in hosts}
    assert {"ended", "goes-on", "failed"} <= {labels["run"] for labels in exposed["pilothouse_run_phase"]}


def test_every_figure_that_a_panel_or_a_rule_asks_for_is_one_that_somebody_tells(exposed: Series) -> None:
    known = set(exposed) | FOREIGN | {rule["record"] for rule in rules() if "record" in rule}
    known.add("pilothouse:quota_rank_hours")  # a record that a site may write
    asked_for = {name for expression in expressions() for name in names_in(expression)}
    assert len(asked_for) > 25
    assert asked_for <= known
