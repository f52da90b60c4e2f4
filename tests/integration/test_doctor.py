"""The doctor on a real broker and a real archive: what is well, and the usual faults with what to do about each."""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pilothouse.cli.brokers import EmbeddedBroker, LocalBroker
from pilothouse.cli.key_files import TRUSTED_FILE
from pilothouse.events.commands import PolicyActivated, Tick
from pilothouse.events.envelope import LogPlace
from pilothouse.events.telemetry import Heartbeat, InterventionReceipt
from pilothouse.events.topics import DEADLETTER, TELEMETRY
from pilothouse.governance.policy import policy_hash
from pilothouse.producers.delivery.connection import connected_producer
from pilothouse.settings import Settings
from pilothouse.storage.archive import Archive, Archived
from pilothouse.storage.connect import connect
from pilothouse.storage.migrate import load_migrations
from pilothouse.storage.upgrade import bring_up_to_date
from pilothouse.tests.endpoint_fixture import EndpointProcess
from pilothouse.tests.stack_fixture import typed

Row = dict[str, Any]
OLD = "name: mine\nrules: []\n"


@dataclass(frozen=True)
class Patient:
    """A broker and an archive of this version; `see` is what the doctor says of them."""

    kafka: str
    settings: Settings
    keys: Path

    def see(self, home: Path, *, status: int | None = None, **settings: str) -> list[Row]:
        given = {"KAFKA": self.kafka, "CLICKHOUSE_URL": self.settings.clickhouse_url, "EMBEDDED_BROKER": "true"}
        given |= {
            "SIGNING_KEY_FILE": str(self.keys / "governor.key"),
            "TRUSTED_KEYS_FILE": str(self.keys / TRUSTED_FILE),
        }
        more = {f"PILOTHOUSE_{name}": each for name, each in (given | settings).items()}
        answer = typed("doctor", "--json", data_dir=home, more=more)
        assert status in (answer.returncode, None), answer.stdout + answer.stderr
        return [json.loads(line) for line in answer.stdout.splitlines()]

    def archive(self, *events: Any) -> None:
        places = [LogPlace(1, 0, offset) for offset in range(len(events))]
        client = connect(self.settings)
        Archive(client).insert([Archived(TELEMETRY.name, *pair) for pair in zip(places, events, strict=True)])
        client.close()


@pytest.fixture(scope="module")
def patient(
    embedded_broker: LocalBroker, endpoint: EndpointProcess, tmp_path_factory: pytest.TempPathFactory
) -> Patient:
    keys = tmp_path_factory.mktemp("keys")
    assert typed("keys", "new", "governor", "--keys", str(keys), data_dir=keys).returncode == 0
    settings = Settings(clickhouse_url=endpoint.clickhouse_url)
    client = connect(settings)
    bring_up_to_date(client, settings)
    client.close()
    return Patient(embedded_broker.address, settings, keys)


def now() -> int:
    return time.time_ns() // 1_000


def about(rows: list[Row], check: str, status: str) -> list[Row]:
    return [row for row in rows if (row["check"], row["status"]) == (check, status)]


def trainer(kind: type[Any], seq: int, **fields: Any) -> Any:
    identity = {"run_id": "gpt", "attempt_id": "a", "attempt": 1, "rank": 3, "writer_id": "w", "seq": seq, "at": now()}
    return kind(**identity | fields)


def test_a_well_stack_is_status_0_and_a_sick_one_is_told_of_every_fault(patient: Patient, tmp_path: Path) -> None:
    patient.archive(Tick(at=now(), partition=0, writer_id="ticker", seq=1))
    rows = patient.see(tmp_path, status=0)
    assert {row["status"] for row in rows} == {"well"}
    looked = {"settings", "broker", "topics", "dead letters", "workers", "policies", "keys", "disk", "spool", "schema"}
    assert {row["check"] for row in rows} == looked | {"archive", "clocks"}

    producer, _ = connected_producer(patient.kafka, seconds=10.0)
    producer.send(DEADLETTER.name, b"junk", partition=0).get(timeout=10)
    producer.close()
    (tmp_path / "policy.yaml").write_text(f"{OLD}# and more\n")
    identity = {"run_id": "gpt", "writer_id": "p", "seq": 1, "at": now(), "who": "ada"}
    patient.archive(
        trainer(InterventionReceipt, 3, intervention_id="i", outcome="rejected", step=1, reason="unknown key"),
        trainer(Heartbeat, 1, at=now() + 90_000_000, stage="train", step=1),
        trainer(Heartbeat, 2, at=now() - 900_000_000, stage="train", step=1, rank=4),
        PolicyActivated.model_validate({**identity, "name": "mine", "text": OLD, "policy_hash": policy_hash(OLD)}),
    )
    rows = patient.see(tmp_path, status=1, POLICY_FILE=str(tmp_path / "policy.yaml"), PARTITIONS="7")
    assert [row["found"] for row in about(rows, "trainers", "warning")] == ["gpt: rejected 1 times: unknown key"]
    assert "gpt is governed by another text of mine" in about(rows, "policies", "warning")[0]["found"]
    assert about(rows, "dead letters", "warning")[0]["found"].startswith("1 records could not be used")
    [ahead] = about(rows, "clocks", "fault")
    assert "rank 3 of gpt" in ahead["found"]
    assert "s ahead" in ahead["found"]
    assert "rank 4 of gpt" in about(rows, "clocks", "warning")[0]["found"]
    drifting = about(rows, "topics", "warning")
    assert len(drifting) == 3
    assert all("partitions is 4, declared 7" in row["found"] for row in drifting)
    assert all(row["do"] for row in rows if row["status"] != "well")


def test_a_log_without_a_clock_is_found(patient: Patient, tmp_path: Path) -> None:
    client = connect(patient.settings)
    tick = Tick(at=now() - 600_000_000, partition=2, writer_id="ticker", seq=1)
    Archive(client).insert([Archived(TELEMETRY.name, LogPlace(1, 2, 0), tick)])
    client.close()
    [late] = about(patient.see(tmp_path, status=1), "archive", "fault")
    assert late["found"].startswith("pilothouse.telemetry/2: nothing newer than 6")


def test_missing_topics_are_named_with_the_command_that_makes_them(patient: Patient, tmp_path: Path) -> None:
    bare = EmbeddedBroker(tmp_path / "bare")
    bare.start()
    try:
        missing = about(replace(patient, kafka=bare.address).see(tmp_path, status=1), "topics", "fault")
    finally:
        bare.stop()
    assert missing[0]["found"] == "pilothouse.telemetry is missing"
    assert all("pilothouse topics create" in row["do"] for row in missing)


def test_a_schema_that_is_absent_behind_or_ahead_is_found(patient: Patient, tmp_path: Path) -> None:
    server = patient.settings.clickhouse_url.rpartition("/")[0]
    empty = replace(patient, kafka="127.0.0.1:1", settings=Settings(clickhouse_url=f"{server}/of_this_test"))
    assert "pilothouse migrate" in about(empty.see(tmp_path, status=1), "schema", "fault")[0]["found"]
    client = connect(patient.settings)
    client.command("CREATE DATABASE of_this_test")
    client.command("CREATE TABLE of_this_test.schema_migrations AS pilothouse.schema_migrations")
    *most, last = load_migrations()
    columns = ["number", "name", "checksum"]
    applied = [[each.number, each.name, each.checksum] for each in most]
    client.insert("of_this_test.schema_migrations", applied, column_names=columns)
    [behind] = about(empty.see(tmp_path, status=1), "schema", "fault")
    assert f"1 migrations behind: {last.number:04}_{last.name}" in behind["found"]
    assert "pilothouse migrate" in behind["do"]
    client.insert("of_this_test.schema_migrations", [[9999, "later", "x"]], column_names=columns)
    assert "upgrade it" in about(empty.see(tmp_path, status=1), "schema", "fault")[0]["found"]
    client.close()
