"""What people ask of the archive in SQL: the cookbook, service levels, limits and forms, on the real engine."""

import io
import math
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from statistics import fmean

import pyarrow.parquet as pq
import pytest
from clickhouse_connect.driver.client import Client

from pilothouse.cli.sql_output import Limits, print_answer
from pilothouse.control_room.report.material import read_material
from pilothouse.control_room.report.overview import overview
from pilothouse.docs._site.reference import views
from pilothouse.events.commands import PipelineReported
from pilothouse.events.errors import QueryRefused, SettingsInvalid, UserMistake
from pilothouse.settings import Settings
from pilothouse.storage import slo
from pilothouse.storage.archive import Archive
from pilothouse.storage.connect import connect
from pilothouse.storage.endpoint_config import READER_USER
from pilothouse.storage.queries import run_sql
from pilothouse.storage.upgrade import bring_up_to_date
from pilothouse.tests import cookbook
from pilothouse.tests.archive_events import logged
from pilothouse.tests.endpoint_fixture import READER_TOKEN, EndpointProcess
from pilothouse.tests.pages import PAGES, ROOT, Block, queries

PLENTY = Limits(60, 2**31)


@pytest.fixture(scope="module")
def client(endpoint: EndpointProcess) -> Iterator[Client]:
    """An archive of the committed histories."""
    settings = Settings(clickhouse_url=endpoint.clickhouse_url)
    connected = connect(settings)
    assert bring_up_to_date(connected, settings)
    cookbook.fill(connected)
    yield connected
    connected.close()


def reader_url(endpoint: EndpointProcess) -> str:
    """As `pilothouse sql` reads an embedded archive."""
    return f"http://{READER_USER}:{READER_TOKEN}@{endpoint.host}:{endpoint.port}/pilothouse"


def rows(client: Client, sql: str) -> list[tuple[object, ...]]:
    return run_sql(client, sql).rows


def test_the_cookbook_has_at_least_twenty_questions() -> None:
    assert len({question.sql for question in cookbook.questions()}) >= 20
    assert cookbook.PAGE.read_text(encoding="utf-8").count("\n### ") == len(cookbook.questions())


@pytest.mark.parametrize("question", cookbook.questions(), ids=lambda question: question.title)
def test_the_cookbook_s_answer_is_what_the_archive_says(client: Client, question: cookbook.Question) -> None:
    answer = cookbook.answer(client, question.sql)
    assert answer == question.answer.rstrip("\n"), "where histories were renewed: python -m pilothouse.tests.cookbook"


ELSEWHERE = [query for page in PAGES if page != ROOT / "docs" / "sql.md" for query in queries(page)]


@pytest.mark.parametrize("query", ELSEWHERE, ids=lambda query: query.name)
def test_every_query_on_another_page_is_one_that_the_archive_answers(client: Client, query: Block) -> None:
    run_sql(client, query.text.replace("'RUN'", "'run'"))


def test_the_reference_has_the_views_and_columns_that_the_archive_has(client: Client) -> None:
    there = "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'View'"
    sql = f"SELECT table, name FROM system.columns WHERE database = currentDatabase() AND table IN ({there})"
    of_the_levels_file = {"slo_objectives", "slo_samples"}
    told = {(view, column[0]) for view, columns in views().items() for column in columns}
    assert told == {(view, name) for view, name in rows(client, sql) if view not in of_the_levels_file}


def test_every_view_and_column_is_documented(client: Client) -> None:
    views = "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'View'"
    left_out = "('slo_objectives', 'slo_samples')"
    sql = f"SELECT table, name FROM system.columns WHERE database = currentDatabase() AND table IN ({views})"
    assert rows(client, f"{sql} AND comment = '' AND table NOT IN {left_out}") == []
    page = cookbook.PAGE.read_text(encoding="utf-8")
    assert [name for (name,) in rows(client, views) if f"`{name}`" not in page and name != "log_lines_dropped"] == [
        "slo_objectives"
    ]


# ------------------------------------------------------------------------------------------------------ one truth

FINER = {
    "incidents": "SELECT run_id, countIf(opened_at IS NOT NULL) FROM incidents GROUP BY run_id",
    "mttd_s": "SELECT run_id, avg(detection_s) FROM incidents GROUP BY run_id",
    "mttr_s": "SELECT run_id, avg(recovery_s) FROM incidents GROUP BY run_id",
    "steps_lost": "SELECT run_id, sum(ifNull(i.steps_lost, 0)) FROM incidents AS i GROUP BY run_id",
    "seconds_in_phase": "SELECT run_id, sumMap(map(toString(phase), seconds)) FROM time_in_phase GROUP BY run_id",
    "started_at": "SELECT run_id, min(first_at) FROM run_progress GROUP BY run_id",
    "last_at": "SELECT run_id, max(p.last_at) FROM run_progress AS p GROUP BY run_id",
    "checkpoints": "SELECT run_id, count() FROM checkpoints GROUP BY run_id",
}
"""Columns of `run_overview`, as what it is made of has them."""
SHARED = (
    "run_id, model, model_family, dataset, team, cluster, outcome, phase, margin, stability_score, attempts, world_size"
    ", last_step, started_at, last_at, incidents, open_incidents"
)


def test_a_run_as_a_whole_is_what_the_finer_views_say_however_often_it_was_written(client: Client) -> None:
    whole = f"SELECT run_id, {', '.join(FINER)} FROM run_overview WHERE incidents > 0 ORDER BY run_id"
    before = rows(client, whole)
    assert len(before) >= 2, "histories with incidents"
    cookbook.fill(client)
    assert rows(client, whole) == before
    for number, (name, sql) in enumerate(FINER.items(), start=1):
        finer = {row[0]: row[1] for row in rows(client, sql)}
        for row in before:
            value = finer[row[0]]
            assert row[number] == (value if isinstance(value, datetime) else pytest.approx(value)), (row[0], name)
    wholes = rows(client, f"SELECT {SHARED}, interventions_issued FROM run_overview ORDER BY run_id")
    assert wholes == rows(client, f"SELECT {SHARED}, interventions FROM runs ORDER BY run_id")


def test_a_report_says_of_a_run_what_the_views_say(client: Client) -> None:
    [[run_id, score, incidents, mttd_s, seconds]] = rows(
        client,
        "SELECT run_id, stability_score, incidents, mttd_s, seconds_in_phase FROM run_overview"
        " WHERE mttd_s > 0 ORDER BY incidents DESC, run_id LIMIT 1",
    )
    assert isinstance(seconds, dict)
    whole = overview(read_material(client, str(run_id), lambda *_: None))
    assert (whole["run"]["stability_score"], whole["run"]["incidents"]) == (score, incidents)
    told = [row["seconds_to_detect"] for row in whole["incidents"]]
    assert fmean(one for one in told if one is not None) == pytest.approx(mttd_s)
    shares = {row["phase"]: row["seconds"] for row in whole["stability"]["time_in_phase"]}
    assert shares == pytest.approx(seconds)


# ---------------------------------------------------------------------------------------------------- service levels


def test_what_nobody_reports_is_not_computed_and_says_what_it_needs(client: Client) -> None:
    told = {str(row[0]): row[1:] for row in rows(client, "SELECT id, status, value, needs FROM slo")}
    assert list(told) == [f"M{number}" for number in range(1, 16)]
    assert told["M15"] == ("not computed", None, "pilothouse report-fact RUN latency p95_ms=...")
    assert told["M4"][0] == "not computed"


def test_a_level_is_met_missed_and_burnt_by_what_is_reported(client: Client) -> None:
    now = time.time_ns() // 1_000

    def report(writer: str, fact: str, ago_days: int = 0, **numbers: float) -> PipelineReported:
        told = {"who": "ci", "run_id": "levels", "seq": 1, "writer_id": writer, "at": now - ago_days * 86_400_000_000}
        return PipelineReported.model_validate(told | {"fact": fact, "numbers": numbers})

    facts = [
        report("a", "artifacts", available=9, expected=10),
        report("b", "reproduction", attempted=40, reproduced=39),
        report("c", "promotion", ago_days=100),
        *(report(f"d{number}", "retrain_trigger") for number in range(5)),
    ]
    for _ in range(2):
        Archive(client).insert(logged(facts, partition=7))
    told = {str(row[0]): row[1:] for row in rows(client, "SELECT id, status, value, budget_left FROM slo")}
    assert told["M14"][:2] == ("missed", 0.9)
    assert told["M13"][:2] == ("met", 0.975)
    assert told["M13"][2] == pytest.approx(0.5)
    assert told["M9"] == ("missed", 0.0, None)  # promotions are reported, but none of late
    assert told["M8"] == ("missed", 5.0, None)
    burnt = {(name, hours): rate for name, hours, rate in rows(client, "SELECT id, hours, burn_rate FROM slo_burn")}
    assert burnt["M13", 24] == pytest.approx(0.5)
    assert burnt["M8", 720] == pytest.approx(1.25)
    assert burnt["M8", 24] == pytest.approx(5 / (4 / 30))
    assert math.isinf(float(str(burnt["M14", 1])))


def test_other_levels_are_put_in_force_and_a_second_time_nothing_happens(
    client: Client, endpoint: EndpointProcess, tmp_path: Path
) -> None:
    file = tmp_path / "slo.yaml"
    shipped = slo.SHIPPED.read_text(encoding="utf-8")
    file.write_text(shipped.replace("name: successful runs", "name: runs that went well"), encoding="utf-8")
    settings = Settings(clickhouse_url=endpoint.clickhouse_url, slo_file=file)
    assert bring_up_to_date(client, settings) == ["15 service levels are in force"]
    assert bring_up_to_date(client, settings) == []
    assert rows(client, "SELECT name FROM slo WHERE id = 'M1'") == [("runs that went well",)]
    file.write_text(shipped.replace("value: ratio", "value: ratios"), encoding="utf-8")
    with pytest.raises(SettingsInvalid, match=r"objectives.0.value: Input should be 'ratio'"):
        bring_up_to_date(client, settings)


# --------------------------------------------------------------------------------------------------- retention, lag


def test_each_class_of_data_is_kept_as_long_as_the_settings_say(client: Client, endpoint: EndpointProcess) -> None:
    def engine(table: str) -> str:
        [(full,)] = rows(
            client, f"SELECT engine_full FROM system.tables WHERE name = '{table}' AND database = currentDatabase()"
        )
        return str(full)

    assert "TTL toDateTime(archived_at) + toIntervalDay(180)" in engine("tick_log")
    assert "TTL" not in engine("step_log")
    shorter = Settings(
        clickhouse_url=endpoint.clickhouse_url, keep_steps_days=30, keep_evidence_days=7, keep_ticks_days=0
    )
    changed = [line for line in bring_up_to_date(client, shorter) if "kept" in line]
    assert [line.split()[0] for line in changed] == ["event_log", "step_log", "tick_log"]
    assert "toIntervalDay(7) WHERE kind IN ('data_profiled', 'heartbeat'" in engine("event_log")
    assert "TTL" not in engine("tick_log")
    assert [line for line in bring_up_to_date(client, shorter) if "kept" in line] == []


def test_the_lag_of_each_partition_is_told(client: Client) -> None:
    [(behind, took)] = rows(client, "SELECT behind_s, took_s FROM ingest WHERE log_partition = 7")
    assert 0 <= float(str(took)) <= float(str(behind)) < 600


# ------------------------------------------------------------------------------------------------------ limits, forms


def test_a_query_is_given_up_beyond_its_limits(endpoint: EndpointProcess, client: Client) -> None:
    reader = connect(Settings(clickhouse_url=reader_url(endpoint)))
    with pytest.raises(QueryRefused, match=r"Timeout exceeded.*\(code 159\)"):
        print_answer(reader, "SELECT count() FROM numbers(1000000000000)", "table", Limits(0.2, 2**30), None)
    with pytest.raises(QueryRefused, match=r"\(code 241\)"):
        print_answer(reader, "SELECT groupArray(number) FROM numbers(100000000)", "table", Limits(30, 50_000_000), None)
    with pytest.raises(QueryRefused, match="READONLY"):
        print_answer(reader, "DROP VIEW runs", "table", PLENTY, None)


def test_parquet_holds_what_was_asked_nan_and_all(endpoint: EndpointProcess, client: Client, tmp_path: Path) -> None:
    reader, file = connect(Settings(clickhouse_url=reader_url(endpoint))), tmp_path / "loss.parquet"
    sql = "SELECT step, value FROM steps WHERE run_id = 'run' AND metric = 'loss' AND rank = 2 ORDER BY step"
    print_answer(reader, sql, "parquet", PLENTY, file)
    told = pq.read_table(io.BytesIO(file.read_bytes())).to_pydict()
    assert told["step"] == [row[0] for row in rows(client, sql)]
    assert [step for step, value in zip(told["step"], told["value"], strict=True) if math.isnan(value)] == [158]
    with pytest.raises(QueryRefused):
        print_answer(reader, "SELECT nope FROM steps", "parquet", PLENTY, file)
    assert [path.name for path in tmp_path.iterdir()] == ["loss.parquet"]
    assert pq.read_metadata(file).num_rows == len(told["step"])


def test_only_what_is_a_file_goes_into_one(client: Client, tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match="--output is for csv and parquet"):
        print_answer(client, "SELECT 1", "table", PLENTY, tmp_path / "x")
    print_answer(client, "SELECT 1 AS one, NULL AS none", "csv", PLENTY, tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_bytes() == b"one,none\r\n1,\r\n"
    with pytest.raises(UserMistake, match="cannot be written"):
        print_answer(client, "SELECT 1", "csv", PLENTY, tmp_path / "no" / "x.csv")
