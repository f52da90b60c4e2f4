"""A Kafka that wants a user, a password and TLS, and gets them: by a stub everywhere, by an Apache Kafka where there is
one.
"""

import asyncio
import gc
import logging
import os
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from kafka import KafkaProducer

import pilothouse
from pilothouse.access import KafkaAccess
from pilothouse.cli.access_lists import GRANTS, User, names_of
from pilothouse.cli.brokers import KafkaBroker, free_port, listens
from pilothouse.cli.children import Child, stop_all
from pilothouse.cli.key_files import TRUSTED_FILE, KeyFolder
from pilothouse.cli.topic_admin import admin_client, create_topics, describe_topics
from pilothouse.cli.topic_reading import count_records
from pilothouse.events.actions import CheckpointNow, Stop
from pilothouse.events.codec import encode
from pilothouse.events.commands import OperatorCommand
from pilothouse.events.decisions import InterventionIssued
from pilothouse.events.errors import BrokerUnavailable
from pilothouse.events.telemetry import StepBatch
from pilothouse.events.topics import CONTROL, TELEMETRY, TOPICS, partition_of
from pilothouse.keyring import trust_of
from pilothouse.producers.delivery import kafka as kafka_module
from pilothouse.producers.delivery.kafka import send_fact
from pilothouse.producers.delivery.spool import read_folder
from pilothouse.producers.steering.control import Distrusted, Follower, follow
from pilothouse.settings import Settings, load_settings
from pilothouse.stream_processors.broker_watch import BrokerWatch
from pilothouse.tests.broker_fixture import PARTITIONS, named_kafka
from pilothouse.tests.kafka_rights import may_read, may_write
from pilothouse.tests.kafka_stub import KafkaStub
from pilothouse.tests.outbox_bench import wait_until
from pilothouse.tests.pilot_world import issued
from pilothouse.tests.stack_fixture import CLI, cli, typed

CERTIFICATE = (
    "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout key.pem "
    "-out cert.pem"
)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(kafka_module, "BOOTSTRAP_SECONDS", 1.0)
    yield
    wait_until(lambda: all(thread.name != "pilothouse-connect" for thread in threading.enumerate()), 30)
    gc.collect()


def settings_of(address: str, folder: Path, given: Mapping[str, str]) -> Settings:
    """As a training reads them."""
    environ = {"KAFKA": address, "DATA_DIR": str(folder), "CLOSE_SECONDS": "10", "RESOURCES_SECONDS": "0", **given}
    return load_settings({f"PILOTHOUSE_{name}": value for name, value in environ.items()})


def trained(settings: Settings) -> pilothouse.Run:
    with pilothouse.start_run("test", run_id="run-1", settings=settings) as run:
        for step in range(100):
            run.log(step, loss=1.0)
    return run


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """What a broker shows, and the file with which clients believe it."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the command openssl, which makes a certificate")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(["openssl", *CERTIFICATE.split()], cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context, folder / "cert.pem"


def login_of(authority: Path) -> dict[str, str]:
    login = {"KAFKA_SECURITY": "SASL_SSL", "KAFKA_USER": "user", "KAFKA_PASSWORD": "a secret"}
    return login | {"KAFKA_CA": str(authority)}


def test_with_its_user_and_password_over_tls_a_broker_takes_everything(
    tls: tuple[ssl.SSLContext, Path], tmp_path: Path
) -> None:
    context, authority = tls
    stub = KafkaStub(TELEMETRY.name, password="a secret", tls=context)
    try:
        run = trained(settings_of(stub.address, tmp_path, login_of(authority)))
        facts = stub.facts()
    finally:
        stub.close()
    assert [step for fact in facts if isinstance(fact, StepBatch) for step in fact.steps] == list(range(100))
    assert run.counts().accepted == run.counts().sent


WRONG = (
    ({"KAFKA_PASSWORD": "another"}, "or the password is wrong (PILOTHOUSE_KAFKA_USER"),
    ({"KAFKA_CA": ""}, "signed by nobody whom we know (PILOTHOUSE_KAFKA_CA)"),
    ({"KAFKA_CA": "/no/such/file.pem"}, "No such file"),
    ({"KAFKA_USER": ""}, "the user '' or the password is wrong"),
    ({"KAFKA_MECHANISM": "SCRAM-SHA-256"}, "(PILOTHOUSE_KAFKA_MECHANISM"),
)


def test_with_the_wrong_ones_it_is_said_what_to_look_at_and_everything_waits(
    tls: tuple[ssl.SSLContext, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context, authority = tls
    stubs = [KafkaStub(TELEMETRY.name, password="a secret", tls=context) for _ in WRONG]
    runs = []
    with caplog.at_level(logging.WARNING, logger="pilothouse"):
        for number, ((wrong, _), stub) in enumerate(zip(WRONG, stubs, strict=True)):
            given = {name: value for name, value in (login_of(authority) | wrong).items() if value}
            settings = settings_of(stub.address, tmp_path / str(number), given | {"CLOSE_SECONDS": "0.5"})
            runs.append(pilothouse.start_run("test", run_id="run-1", settings=settings))
            runs[-1].log(0, loss=1.0)
        wait_until(lambda: all(caplog.text.count(said) for _, said in WRONG), 30)
        for run in runs:
            run.close()
    for stub in stubs:
        stub.close()
    assert not [word for word in ("a secret", "another") if word in caplog.text]
    for number, run in enumerate(runs):
        (folder,) = (tmp_path / str(number) / "spool").glob("*/*")
        assert sum(record.entries for record in read_folder(folder)) == run.counts().accepted


def test_settings_show_no_password_and_the_embedded_broker_wants_none() -> None:
    settings = settings_of("host:1", Path("/"), {"KAFKA_SECURITY": "SASL_PLAINTEXT", "KAFKA_PASSWORD": "Zq9secret"})
    assert "Zq9" not in repr(settings) + repr(settings.log_access) + str(settings.log_access)
    assert settings.log_access.options()["sasl_plain_password"] == "Zq9secret"
    embedded = settings.model_copy(update={"embedded_broker": True})
    assert embedded.log_access == KafkaAccess("host:1")


class GuardedKafka(KafkaBroker):
    """An Apache Kafka with SASL/SCRAM and TLS; whether it is up is seen by its port alone."""

    def _command(self) -> Sequence[str]:
        return [str(self.home), "run", str(self.log_dir), "--ports", str(self.port), "--auth", "--tls"]

    def _first_answer(self, deadline: float) -> str:
        wait_until(lambda: listens(self.port) or not self.alive, deadline - time.monotonic())
        assert self.alive, self.child.last_lines()
        return ""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    launcher = named_kafka()
    if launcher.is_dir() or not os.access(launcher, os.X_OK):
        pytest.skip("needs a launcher that understands --auth and --tls in PILOTHOUSE_TEST_KAFKA (see CONTRIBUTING.md)")
    broker = GuardedKafka(launcher, tmp_path_factory.mktemp("kafka") / "kafka", free_port())
    try:
        broker.start(180.0)
        yield broker
    finally:
        broker.kill()


def admin_of(guarded: KafkaBroker) -> dict[str, str]:
    login = {"KAFKA_SECURITY": "SASL_SSL", "KAFKA_MECHANISM": "SCRAM-SHA-256", "KAFKA_USER": "admin"}
    return login | {"KAFKA_PASSWORD": "admin-secret", "KAFKA_CA": str(guarded.log_dir / "ca.pem")}


def test_a_guarded_apache_kafka_refuses_who_has_no_password_and_everything_waits_on_disk(
    guarded: KafkaBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="pilothouse"):
        run = trained(settings_of(guarded.address, tmp_path, {"CLOSE_SECONDS": "3"}))
    assert "PILOTHOUSE_KAFKA_SECURITY" in caplog.text
    (folder,) = (tmp_path / "spool").glob("*/*")
    assert sum(record.entries for record in read_folder(folder)) == run.counts().accepted
    with pytest.raises(BrokerUnavailable, match="PILOTHOUSE_KAFKA_SECURITY"):
        describe_topics(guarded.address, PARTITIONS, 1, seconds=3.0)


def test_an_apache_kafka_without_our_topics_gets_everything_when_they_are_made(
    guarded: KafkaBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(guarded.address, tmp_path, admin_of(guarded))
    with caplog.at_level(logging.WARNING, logger="pilothouse"), pilothouse.start_run("test", settings=settings) as run:
        for step in range(100):
            run.log(step, loss=1.0)
        wait_until(lambda: "pilothouse topics create" in caplog.text, 30)
        wait_until(lambda: run.counts().spooled > 0, 30)
        create_topics(settings.log_access, PARTITIONS, 1)
    assert run.counts().accepted == run.counts().sent


def test_every_client_of_ours_gets_into_a_guarded_apache_kafka(guarded: KafkaBroker, tmp_path: Path) -> None:
    settings = settings_of(guarded.address, tmp_path, admin_of(guarded))
    access = settings.log_access
    create_topics(access, PARTITIONS, 1)
    run = trained(settings)
    assert run.counts().accepted == run.counts().sent
    assert sum(count_records(access, {TELEMETRY.name: PARTITIONS}).values()) > 0
    follower = follow(access, "run-1", log_in_memory=False)
    producer = KafkaProducer(**access.options())
    wire = encode(issued(CheckpointNow()))
    partition = partition_of("run-1", PARTITIONS)
    producer.send(CONTROL.name, wire.body, key=b"run-1", headers=wire.headers, partition=partition).get(20)
    producer.close()
    wait_until(lambda: follower.take() is not None, 30)
    follower.close(5.0)
    assert asyncio.run(_watched(access)) == PARTITIONS


async def _watched(access: KafkaAccess) -> int:
    watch = BrokerWatch(access)
    try:
        return (await watch.arrive(20.0)).telemetry
    finally:
        await watch.close()


@pytest.fixture(scope="module")
def users(guarded: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Mapping[User, dict[str, str]]:
    """The settings of everybody whom `pilothouse topics acl` knows, made as an administrator makes them."""
    from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

    admin = settings_of(guarded.address, tmp_path_factory.mktemp("admin"), admin_of(guarded))
    create_topics(admin.log_access, PARTITIONS, 1)
    names = names_of({})
    with admin_client(admin.log_access, 20.0) as client:
        made = [
            UserScramCredentialUpsertion(name, ScramMechanism.SCRAM_SHA_256, f"{name}-secret")
            for name in names.values()
        ]
        assert not any(client.alter_user_scram_credentials(made).values())
    answer = typed("topics", "acl", "--apply", data_dir=admin.data_dir, more=environ_of(guarded, admin_of(guarded)))
    assert "access lists are in force" in answer.stdout, answer.stderr
    return {
        user: admin_of(guarded) | {"KAFKA_USER": name, "KAFKA_PASSWORD": f"{name}-secret"}
        for user, name in names.items()
    }


def environ_of(guarded: KafkaBroker, given: Mapping[str, str]) -> dict[str, str]:
    return {f"PILOTHOUSE_{name}": value for name, value in {"KAFKA": guarded.address, **given}.items()}


def allowed(user: User, operation: str) -> set[str]:
    """The topics on which this user has it."""
    return {one.name for one in GRANTS if one.user == user and one.resource == "topic" and operation in one.operations}


def test_every_user_may_do_what_is_written_out_and_nothing_else(
    guarded: KafkaBroker, users: Mapping[User, dict[str, str]], tmp_path: Path
) -> None:
    admin = settings_of(guarded.address, tmp_path, admin_of(guarded)).log_access
    topics = [topic.name for topic in TOPICS]
    for topic in topics:
        assert may_write(admin, topic)  # so that there is something to read
    for user, login in users.items():
        access = settings_of(guarded.address, tmp_path, login).log_access
        assert {name for name in topics if may_write(access, name)} == allowed(user, "WRITE") & set(topics), user
        assert {name for name in topics if may_read(access, name)} == allowed(user, "READ") & set(topics), user
    assert allowed("rank", "WRITE") == {TELEMETRY.name}
    assert allowed("rank", "READ") == {CONTROL.name}


class OwnUsers:
    """Everybody with a user and keys of their own, and a governor and an archiver that run so."""

    def __init__(self, guarded: KafkaBroker, users: Mapping[User, dict[str, str]], folder: Path) -> None:
        self._guarded, self._users, self._folder = guarded, users, folder
        self._keys = KeyFolder(folder / "keys")
        self._keys.ensure()
        self._workers: list[Child] = []

    def given(self, user: User, signs: str = "") -> dict[str, str]:
        own = {"SIGNING_KEY_FILE": str(self._keys.path / f"{signs}.key")} if signs else {}
        trusted = {"TRUSTED_KEYS_FILE": str(self._keys.path / TRUSTED_FILE)}
        return {**self._users[user], **trusted, **own, "PARTITIONS": str(PARTITIONS), "DATA_DIR": str(self._folder)}

    def settings(self, user: User, signs: str = "") -> Settings:
        return settings_of(self._guarded.address, self._folder, self.given(user, signs))

    def work(self, role: User, signs: str = "") -> None:
        child = Child(role, self._folder / f"{role}.log")
        child.start([*CLI, "worker", role], dict(os.environ) | environ_of(self._guarded, self.given(role, signs)))
        self._workers.append(child)

    def until_they_work(self) -> None:
        for child in self._workers:
            health = self._folder / "health" / f"{child.name}-0.json"
            wait_until(lambda health=health: health.exists() and "running" in health.read_text(), 60)  # type: ignore[misc]  # a default binds it

    def stop(self) -> None:
        stop_all(self._workers, 15.0)


def first_heard(follower: Follower) -> InterventionIssued:
    heard: list[InterventionIssued | Distrusted] = []

    def hears() -> bool:
        command = follower.take()
        heard.extend([command] if command is not None else [])
        return bool(heard)

    wait_until(hears, 60)
    assert isinstance(heard[0], InterventionIssued), heard[0]
    return heard[0]


def test_workers_with_users_and_keys_of_their_own_steer_a_rank_that_has_no_more_than_its_own(
    guarded: KafkaBroker, users: Mapping[User, dict[str, str]], tmp_path: Path
) -> None:
    """An operator's signed order goes through a governor to a rank, each with the least it needs; an archiver reads."""
    own = OwnUsers(guarded, users, tmp_path)
    order = {"verb": "stop", "who": "ada", "why": "w", "action": Stop(), "writer_id": "one", "seq": 1}
    try:
        own.work("governor", "governor")
        own.work("archiver")
        own.until_they_work()
        settings = own.settings("rank")
        follower = follow(settings.log_access, "steered", log_in_memory=False, trust=trust_of(settings))
        with pilothouse.start_run("test", run_id="steered", settings=settings) as run:
            run.steers(("stop",))
            run.log(0, loss=1.0)
            wait_until(lambda: run.counts().sent > 1, 30)
            command = OperatorCommand.model_validate({"at": time.time_ns() // 1_000, "run_id": "steered", **order})
            send_fact(own.settings("operator", "operator"), command)
            assert first_heard(follower).who == "ada"
        follower.close(5.0)
    finally:
        own.stop()


def test_a_wrong_password_gets_a_plain_word_from_worker_and_command_line(
    guarded: KafkaBroker, users: Mapping[User, dict[str, str]], tmp_path: Path
) -> None:
    environ = environ_of(guarded, users["operator"] | {"KAFKA_PASSWORD": "guessed", "TRUSTED_KEYS": ""})
    for command in (("topics", "list"), ("worker", "archiver")):
        answer = cli(*command, data_dir=tmp_path, more=environ, timeout=180)
        assert answer.returncode == 2
        last = answer.stderr.splitlines()[-1]
        assert "does not let us in" in last, answer.stderr
        assert "PILOTHOUSE_KAFKA_PASSWORD" in last or "logs in" in last, answer.stderr
        assert "guessed" not in answer.stderr
