"""The archive on the real engine: what it refuses, what it waits for, and what people read out of it."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from pilothouse.events.commands import PipelineReported
from pilothouse.events.envelope import LogPlace
from pilothouse.events.errors import ArchiveUnavailable, QueryRefused, StackNotRunning, UnknownRun
from pilothouse.events.telemetry import (
    DataProfiled,
    EvalCompleted,
    Heartbeat,
    LogLines,
    ResourcesSampled,
    RunStarted,
)
from pilothouse.events.union import AnyEvent
from pilothouse.settings import Settings
from pilothouse.storage import queries
from pilothouse.storage.archive import Archive, Archived
from pilothouse.storage.connect import connect
from pilothouse.storage.migrate import migrate
from pilothouse.tests.archive_events import INF, NAN, Writer, logged, story
from pilothouse.tests.endpoint_fixture import EndpointProcess, NewEndpoint


def connected_to(endpoint: EndpointProcess) -> Client:
    return connect(Settings(clickhouse_url=endpoint.clickhouse_url))


@pytest.fixture(scope="module")
def client(endpoint: EndpointProcess) -> Iterator[Client]:
    """An archive that holds the story of `gpt`, written twice, and a run that nobody started."""
    connected = connected_to(endpoint)
    migrate(connected)
    archive = Archive(connected)
    for _ in range(2):
        archive.insert(logged(story("gpt")))
        archive.insert(logged([Writer("orphan").steps([0, 1], loss=[2.0, 1.0])], partition=1))
    yield connected
    connected.close()


# -------------------------------------------------------------------------------------------------------- inserting


def test_a_poison_record_is_named_and_the_others_are_kept(client: Client) -> None:
    writer = Writer("poisoned")
    records = logged([writer.tell(Heartbeat, stage="train", step=step) for step in range(9)])
    impossible = records[4].event.model_copy(update={"attempt": 2**70})
    records[4] = records[4]._replace(event=impossible)
    [poison] = Archive(client).insert(records)
    assert poison.record.event is impossible
    assert poison.reason
    assert [row["step"] for row in queries.events_of(client, "poisoned")] == [0, 1, 2, 3, 5, 6, 7, 8]


def test_an_archive_that_is_gone_is_waited_for_and_then_takes_the_same_records(new_endpoint: NewEndpoint) -> None:
    running = new_endpoint()
    client = connected_to(running)
    migrate(client)
    records = logged(story("gpt"))
    Archive(client).insert(records[:4])
    running.kill()
    with pytest.raises(ArchiveUnavailable, match="takes no writes now: nothing answers"):
        Archive(client).insert(records)
    again = connected_to(new_endpoint())
    Archive(again).insert(records)
    assert len(queries.events_of(again, "gpt")) == sum(one.event.kind != "step_batch" for one in records)


def test_an_archive_without_its_schema_is_waited_for(endpoint: EndpointProcess) -> None:
    client = connected_to(endpoint)
    client.database = "not_yet"
    with pytest.raises(ArchiveUnavailable):
        Archive(client).insert(logged(story("gpt")))


# ------------------------------------------------------------------------------------------------------- connecting


def test_where_nothing_answers_the_person_is_told_how_to_start_it() -> None:
    with pytest.raises(
        StackNotRunning, match=r"nothing answers at http://127.0.0.1:1/x; start it with `pilothouse up`"
    ):
        connect(Settings(clickhouse_url="http://pilothouse:secret@127.0.0.1:1/x"))


def test_a_wrong_password_is_said_without_repeating_it(endpoint: EndpointProcess) -> None:
    url = endpoint.clickhouse_url.replace("full-token", "wrong")
    with pytest.raises(QueryRefused, match="refuses this user or password") as refused:
        connect(Settings(clickhouse_url=url))
    assert refused.value.code in (516, 194)
    assert "wrong-of-tests" not in str(refused.value)


class NotClickHouse(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    do_GET = do_POST  # noqa: N815 - the name is http.server's


def test_what_is_not_clickhouse_is_told_apart() -> None:
    server = HTTPServer(("127.0.0.1", 0), NotClickHouse)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(StackNotRunning, match="is not ClickHouse"):
            connect(Settings(clickhouse_url=f"http://127.0.0.1:{server.server_port}/x"))
    finally:
        server.shutdown()
        server.server_close()


# ---------------------------------------------------------------------------------------------------------- reading


def test_a_run_is_listed_as_it_stands(client: Client) -> None:
    runs = {row["run_id"]: row for row in queries.list_runs(client)}
    gpt = runs["gpt"]
    stands = {"phase": "Ended", "outcome": "completed", "attempt": 2, "attempts": 2, "world_size": 2, "model": "gpt"}
    assert {name: gpt[name] for name in stands} == stands
    assert (gpt["last_step"], gpt["interventions"], gpt["incidents"], gpt["open_incidents"]) == (10, 1, 1, 0)
    assert (gpt["stability_score"], runs["orphan"]["stability_score"]) == (97.5, None)


def test_a_run_that_nobody_started_is_listed_too(client: Client) -> None:
    orphan = queries.show_run(client, "orphan")
    assert (orphan["phase"], orphan["outcome"], orphan["attempts"], orphan["last_step"]) == ("Unknown", "", 0, 1)
    assert [row["rank"] for row in orphan["ranks"]] == [0]


def test_a_run_shows_its_attempts_conditions_incidents_and_last_values(client: Client) -> None:
    gpt = queries.show_run(client, "gpt")
    assert [row["reason"] for row in gpt["attempt_list"]] == ["start", "rollback"]
    [condition] = gpt["conditions"]
    assert (condition["condition"], condition["status"], condition["evidence"]["limit"]) == ("Stable", "False", 4.0)
    [incident] = gpt["incident_list"]
    assert (incident["outcome"], incident["onset_step"], incident["steps_lost"]) == ("recovered", 9, 2)
    assert {row["metric"]: row["value"] for row in gpt["metrics"]} == {"loss": 2.0, "lr": 0.1}


def test_an_intervention_is_proven_by_the_receipts_of_every_rank(client: Client) -> None:
    issued, proposed = queries.interventions_of(client, "gpt")
    assert (issued["state"], issued["action"], issued["verification"]) == ("verified", "rollback", "recovered")
    assert (issued["same_step"], issued["applied_steps"], issued["ranks_by_step"]) == (True, [12], {12: [0, 1]})
    assert [(row["rank"], row["before"], row["after"]) for row in issued["receipts"]] == [
        (0, {"lr": 0.1}, {"lr": 0.05}),
        (1, {"lr": 0.1}, {"lr": 0.05}),
    ]
    assert (proposed["state"], proposed["action"], proposed["same_step"]) == ("proposed", "scale_lr", False)
    assert proposed["issued_step"] is None


def test_phases_are_intervals_with_their_evidence(client: Client) -> None:
    phases = queries.phases_of(client, "gpt")
    assert [(row["phase"], row["from_step"], row["until_step"]) for row in phases] == [
        ("Normal", 9, 12),
        ("Unstable", 12, 20),
        ("Ended", 20, None),
    ]
    assert str(phases[1]["evidence"]) == "{'loss': nan, 'limit': 4.0}"
    assert [row["margin"] for row in phases] == [0.9, 0.0, None]


def test_evaluations_and_assessments_keep_every_bit_and_infinity(client: Client) -> None:
    evals = {row["metric"]: row["value"] for row in queries.evals_of(client, "gpt")}
    assert evals == {"loss": 2.0000000000000004, "perplexity": INF}
    [assessed] = queries.assessments_of(client, "gpt")
    assert (assessed["margin"], assessed["stability_score"], assessed["features"]) == (0.8, 97.5, {"loss_z": -INF})


def test_checkpoints_say_what_became_of_them(client: Client) -> None:
    became = {
        row["checkpoint_id"]: (row["rejected"], row["times_restored"], row["lost"], row["lost_reason"])
        for row in queries.checkpoints_of(client, "gpt")
    }
    assert became == {"c8": (False, 2, "", ""), "c10": (True, 0, "rotated", "two newer ones are kept")}


def test_a_series_counts_what_was_not_finite_and_leaves_it_out_of_the_mean(client: Client) -> None:
    [first, second, *_] = queries.series_of(client, "gpt", "loss", rank=0, points=2)
    assert (first["from_step"], first["to_step"], first["mean"], first["non_finite"]) == (8, 9, 3.0, 1)
    assert (second["from_step"], second["mean"], second["non_finite"]) == (10, 9.0, 0)
    infinite = queries.series_of(client, "gpt", "loss", rank=1, points=500)[1]
    assert (infinite["mean"], infinite["least"], infinite["greatest"], infinite["last"]) == (None, None, None, INF)


def test_events_can_be_followed_without_missing_or_repeating_one(client: Client) -> None:
    everything = queries.events_of(client, "gpt", limit=1_000)
    seen, cursor = [], queries.cursor_behind([])
    while rows := queries.events_of(client, "gpt", limit=3, after=cursor):
        seen += rows
        cursor = queries.cursor_behind(rows, cursor)
    assert sorted(row["event_id"] for row in seen) == sorted(row["event_id"] for row in everything)
    assert queries.events_of(client, "gpt", after=queries.last_places(client, "gpt")) == []
    kinds = {row["kind"] for row in queries.events_of(client, "gpt", kinds=["run_started", "eval_completed"])}
    assert kinds == {"run_started", "eval_completed"}


def test_the_archive_says_how_far_it_has_come(client: Client) -> None:
    places = {(row["topic"], row["log_partition"]): row["log_offset"] for row in queries.archive_progress(client)}
    topics = [one.topic for one in logged(story("gpt"))]
    assert places["pilothouse.control", 0] == topics.count("pilothouse.control") - 1
    assert places["pilothouse.telemetry", 1] == 0


def test_an_unknown_run_is_answered_with_the_nearest(client: Client) -> None:
    for ask in (queries.show_run, queries.events_of, queries.interventions_of, queries.phases_of, queries.metrics_of):
        with pytest.raises(UnknownRun, match="no run 'gtp'; did you mean gpt"):
            ask(client, "gtp")
    assert queries.runs_like(client, "gp") == ["gpt"]


def test_a_persons_sql_gives_rows_or_the_reason(client: Client) -> None:
    answer = queries.run_sql(
        client, "SELECT rank, count() AS n FROM steps WHERE run_id = 'gpt' GROUP BY rank ORDER BY rank"
    )
    assert (answer.columns, answer.rows) == (("rank", "n"), [(0, 7), (1, 3)])
    with pytest.raises(QueryRefused, match="nope") as refused:
        queries.run_sql(client, "SELECT nope FROM runs")
    assert refused.value.code == 47


def test_a_time_that_python_does_not_know_is_refused_in_words(client: Client) -> None:
    Archive(client).insert(logged([Writer("clock").tell(Heartbeat, stage="train", step=1, at=2**62 - 1)]))
    with pytest.raises(QueryRefused, match="ask for toString"):
        queries.run_sql(client, "SELECT at FROM events WHERE run_id = 'clock'")
    assert queries.show_run(client, "clock")["last_at"] == 2**62 - 1


def test_an_archive_without_tables_says_how_to_make_them(endpoint: EndpointProcess) -> None:
    client = connected_to(endpoint)
    client.command("CREATE DATABASE IF NOT EXISTS bare")
    client.database = "bare"
    with pytest.raises(QueryRefused, match="`pilothouse migrate` makes them"):
        queries.list_runs(client)


def test_the_place_at_which_an_event_was_judged_wins_over_a_later_one(client: Client) -> None:
    fact = Writer("judged").tell(EvalCompleted, step=1, metrics={"loss": 1.0})
    places = [LogPlace(1, 3, 0), LogPlace(0, 3, 7), LogPlace(0, 3, 9)]
    for place in places:
        Archive(client).insert([Archived("pilothouse.telemetry", place, fact)])
    [row] = queries.events_of(client, "judged")
    assert (row["log_epoch"], row["log_offset"]) == (0, 7)


# -------------------------------------------------------------------------------------- what a run overview is made of


def overview(run_id: str) -> list[AnyEvent]:
    """A run that is announced twice, samples its machine, profiles an input, logs, and is reported about."""
    zero, one = Writer(run_id), Writer(run_id, rank=1)
    whose = {"team": "vision", "cluster": "juno", "model_family": "transformer", "dataset": "clicks", "world_size": 2}
    started = {"reason": "start", "first_step": 3, "model": "gpt", **whose}
    said = {"level": "INFO", "logger": "job", "step": 4}
    pipeline: dict[str, Any] = {"run_id": run_id, "seq": 1, "at": 9_000_000, "who": "ci@host"}
    return [
        zero.tell(RunStarted, **started, environment={"host": "n1"}),
        zero.tell(RunStarted, **started, environment={"host": "n1", "git": {"dirty": True}}, steers=("stop",)),
        zero.tell(ResourcesSampled, values={"gpu_util": 0.5, "host_cpu_util": NAN}),
        zero.tell(DataProfiled, step=4, feature="length", data_schema="v2", edges=(1.0, INF), counts=(3, 2, 1),
                  batches=2, values_seen=60, values_sampled=6, numbers={"mean": 1.5}),
        zero.tell(LogLines, lines=({"at": 5_000_000, "text": "one", **said},
                                   {"at": 6_000_000, "text": "two\nlines", **said})),
        one.tell(LogLines, lines=({**said, "at": 5_500_000, "text": "between", "level": "ERROR"},),
                 dropped={"rate": 7}),
        PipelineReported(**pipeline, writer_id="p1", fact="latency", subject="gpt-7", numbers={"p95_ms": 41.5}),
        PipelineReported(**pipeline | {"who": "me"}, writer_id="p2", fact="retrain_trigger", note="drift",
                         attempt_id="seen-1", attempt=1, rank=0),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def seen(client: Client) -> Client:
    """The archive with the overview of `seen` in it, written twice."""
    for _ in range(2):
        Archive(client).insert(logged(overview("seen"), partition=2))
    return client


def rows(client: Client, sql: str) -> list[tuple[object, ...]]:
    return queries.run_sql(client, sql).rows


def test_an_attempt_that_is_announced_again_is_one_and_its_last_word_counts(seen: Client) -> None:
    run = queries.show_run(seen, "seen")
    [attempt] = run["attempt_list"]
    assert (attempt["first_step"], attempt["code_dirty"], attempt["started_at"]) == (3, True, 1_000_000)
    assert json.loads(attempt["environment"]) == {"host": "n1", "git": {"dirty": True}}
    whose = {"team": "vision", "cluster": "juno", "model_family": "transformer", "dataset": "clicks"}
    assert {name: run[name] for name in whose} == whose
    assert json.loads(run["environment"])["host"] == "n1"
    assert rows(seen, "SELECT code_dirty FROM attempts WHERE run_id = 'gpt' AND attempt = 1") == [(None,)]


def test_the_machine_is_sampled_by_name(seen: Client) -> None:
    told = rows(seen, "SELECT name, isNaN(value), rank FROM resources WHERE run_id = 'seen' ORDER BY name")
    assert told == [("gpu_util", 0, 0), ("host_cpu_util", 1, 0)]


def test_a_profile_has_its_bins_and_says_what_it_saw(seen: Client) -> None:
    columns = "feature, data_schema, edges, counts, values_seen, values_sampled, numbers['mean']"
    [told] = rows(seen, f"SELECT {columns} FROM data_profiles WHERE run_id = 'seen'")
    assert told == ("length", "v2", [1.0, INF], [3, 2, 1], 60, 6, 1.5)


def test_log_lines_of_all_ranks_stand_in_the_order_of_time(seen: Client) -> None:
    lines = queries.log_lines_of(seen, "seen")
    assert [(line["text"], line["rank"], line["step"]) for line in lines] == [
        ("one", 0, 4), ("between", 1, 4), ("two\nlines", 0, 4)]  # fmt: skip
    assert [line["at"] for line in lines] == [5_000_000, 5_500_000, 6_000_000]
    assert [line["text"] for line in queries.log_lines_of(seen, "seen", least_severity=40)] == ["between"]
    assert [line["text"] for line in queries.log_lines_of(seen, "seen", rank=0, limit=1)] == ["two\nlines"]
    assert queries.dropped_log_lines_of(seen, "seen") == {"rate": 7}
    assert queries.dropped_log_lines_of(seen, "seen", rank=0) == {}


def test_facts_of_the_pipeline_are_told_by_whoever_knows_them(seen: Client) -> None:
    columns = "fact, subject, who, note, attempt_id, rank, numbers['p95_ms']"
    assert rows(seen, f"SELECT {columns} FROM pipeline_facts WHERE run_id = 'seen' ORDER BY fact") == [
        ("latency", "gpt-7", "ci@host", "", None, None, 41.5),
        ("retrain_trigger", "", "me", "drift", "seen-1", 0, 0.0),
    ]


def test_a_run_of_schema_1_has_no_environment_and_reads_all_the_same(client: Client) -> None:
    run = queries.show_run(client, "gpt")
    assert (run["team"], run["cluster"]) == ("", "")
    assert [attempt["attempt"] for attempt in run["attempt_list"]] == [1, 2]
