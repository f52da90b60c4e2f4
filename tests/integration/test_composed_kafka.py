"""What `compose/` starts, without containers: an Apache Kafka with the very variables of its service, and ours with the
very commands, variables and secrets of theirs. In the place of ClickHouse's server stands the embedded archive.
"""

import json
import os
import re
import shutil
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import pytest

import pilothouse
from pilothouse.access import KafkaAccess
from pilothouse.cli.access_lists import GRANTS, names_of
from pilothouse.cli.brokers import HOST, KafkaBroker, free_port
from pilothouse.cli.children import Child
from pilothouse.cli.topic_admin import cluster_id
from pilothouse.events.errors import BrokerUnavailable
from pilothouse.events.topics import CONTROL, TELEMETRY
from pilothouse.settings import Settings, load_settings
from pilothouse.storage.connect import connect
from pilothouse.storage.queries import list_runs
from pilothouse.storage.upgrade import bring_up_to_date
from pilothouse.tests.broker_fixture import named_kafka
from pilothouse.tests.composed import COMPOSE, MOUNTED, Told, composed, make_secrets, written
from pilothouse.tests.endpoint_fixture import EndpointProcess
from pilothouse.tests.kafka_rights import may_read, may_write
from pilothouse.tests.outbox_bench import wait_until
from pilothouse.tests.stack_fixture import CLI, environ

pytestmark = pytest.mark.chaos_long  # a broker, three workers and an archive

SERVICES = {told.name: told for told in composed()}
PROMETHEUS = shutil.which("prometheus")
NO_PROPERTIES = ("KAFKA_OPTS", "KAFKA_HEAP_OPTS", "CLUSTER_ID")
SECONDS = 300.0


@dataclass
class Composed:
    """Where things are here: the ports of Kafka's three listeners, the secrets, the archive."""

    secrets: Path
    archive: str
    folder: Path
    inside: int = field(default_factory=free_port)
    controller: int = field(default_factory=free_port)
    outside: int = field(default_factory=free_port)

    def here(self, text: str) -> str:
        """What a container is told, for this machine."""
        for name, port in (("9092", self.inside), ("9093", self.controller), ("9094", self.outside)):
            text = re.sub(rf"(//|@)(?:kafka|localhost|):{name}\b", rf"\g<1>localhost:{port}", text)
        text = text.replace("kafka:9092", f"localhost:{self.inside}")
        text = re.sub(rf"{MOUNTED}([\w.-]+)", lambda found: str(self.file(found[1])), text)
        return text.replace(
            "/etc/pilothouse/policy.yaml", str(COMPOSE.parent / "governance/policies/observe-only.yaml")
        )

    def file(self, name: str) -> Path:
        [file] = [file for file in self.secrets.rglob(name) if file.is_file()]
        return file

    def properties(self, log: Path) -> dict[str, str]:
        """As the image makes them of its variables: KAFKA_A_B is a.b."""
        told = {key: str(value) for key, value in written()["services"]["kafka"]["environment"].items()}
        named = {key: value for key, value in told.items() if key not in NO_PROPERTIES}
        made = {key.removeprefix("KAFKA_").lower().replace("_", "."): self.here(value) for key, value in named.items()}
        return made | {"log.dirs": str(log)}

    def environment(self, told: Told) -> dict[str, str]:
        """Of a service of ours; its archive is the embedded one, where there is one user."""
        given = {key: self.here(value) for key, value in told.environment.items()}
        given.pop("PILOTHOUSE_CLICKHOUSE_PASSWORD_FILE", None)
        own = {
            "PILOTHOUSE_CLICKHOUSE_URL": self.archive,
            "PILOTHOUSE_DATA_DIR": str(self.folder),
        }
        return environ(self.folder) | given | own

    def access(self, name: str) -> KafkaAccess:
        return load_settings(self.environment(SERVICES[name])).log_access

    def rank(self) -> Settings:
        """As a trainer elsewhere is told by the README."""
        secrets = {"PASSWORD_FILE": "kafka_rank_password", "CA": "kafka_ca.pem"}
        given = {f"PILOTHOUSE_KAFKA_{name}": str(self.file(file)) for name, file in secrets.items()}
        return load_settings(
            given
            | {
                "PILOTHOUSE_KAFKA": f"localhost:{self.outside}",
                "PILOTHOUSE_KAFKA_SECURITY": "sasl_ssl",
                "PILOTHOUSE_KAFKA_USER": names_of({})["rank"],
                "PILOTHOUSE_TRUSTED_KEYS_FILE": str(self.file("trusted.keys")),
                "PILOTHOUSE_DATA_DIR": str(self.folder / "trainer"),
                "PILOTHOUSE_CLOSE_SECONDS": "60",
            }
        )


class ComposedKafka(KafkaBroker):
    """The broker of the service `kafka`."""

    def __init__(self, home: Path, where: Composed) -> None:
        super().__init__(home, where.folder / "broker", where.inside)
        self._where = where

    def _properties(self) -> dict[str, str]:
        return self._where.properties(self.log_dir / "data")

    def _first_answer(self, deadline: float) -> str:
        """An answer to its administrator."""
        while time.monotonic() < deadline and self.alive:
            try:
                return cluster_id(self._where.access("topics"), seconds=10.0)
            except BrokerUnavailable:
                continue
        raise BrokerUnavailable("\n".join(self.child.last_lines()))


@pytest.fixture(scope="module")
def where(endpoint: EndpointProcess, tmp_path_factory: pytest.TempPathFactory) -> Composed:
    folder = tmp_path_factory.mktemp("composed")
    settings = Settings(clickhouse_url=endpoint.clickhouse_url)
    bring_up_to_date(connect(settings), settings)
    return Composed(make_secrets(folder), endpoint.clickhouse_url, folder)


@pytest.fixture(scope="module")
def kafka(where: Composed) -> Iterator[ComposedKafka]:
    home = named_kafka()
    options = written()["services"]["kafka"]["environment"]["KAFKA_OPTS"]
    before = os.environ.get("JAVA_TOOL_OPTIONS", "")
    with pytest.MonkeyPatch.context() as here:
        here.setenv("JAVA_TOOL_OPTIONS", f"{before} {where.here(options)}".strip())
        broker = ComposedKafka(home, where)
        broker.start(SECONDS)
    try:
        for name in ("topics", "access"):
            run_once(where, name)
        yield broker
    finally:
        broker.stop()


def run_once(where: Composed, name: str, command: tuple[str, ...] = ()) -> None:
    """What a service runs, or another command in its place, to its end."""
    child = Child(f"{name}-once", where.folder / f"{name}-once.log")
    child.start([*CLI, *map(where.here, command or SERVICES[name].command)], where.environment(SERVICES[name]))
    child.wait(SECONDS)
    assert child.exit_status == 0, (where.folder / f"{name}-once.log").read_text()


@contextmanager
def at_work(where: Composed, port: int) -> Iterator[None]:
    """A governor, an archiver and the control room, as their services are; the workers end in order."""
    room = [word.replace("18080", str(port)).replace("0.0.0.0", HOST) for word in SERVICES["control-room"].command]
    commands = {name: SERVICES[name].command for name in ("governor", "archiver")} | {"control-room": tuple(room)}
    started = []
    try:
        for name, command in commands.items():
            child = Child(name, where.folder / f"{name}.log")
            child.start([*CLI, *map(where.here, command)], where.environment(SERVICES[name]))
            started.append(child)
        for role in ("governor", "archiver"):
            health = where.folder / "health" / f"{role}-0.json"
            wait_until(lambda health=health: health.exists() and "running" in health.read_text(), SECONDS)  # type: ignore[misc]  # a default binds it
        yield
    finally:
        for child in started:
            child.stop(60.0)  # asked once, as Docker does
    assert [child.exit_status for child in started[:2]] == [0, 0], "workers told to stop"


def scraped(where: Composed, port: int) -> str:
    """As Prometheus asks: by the service's name, with its own token."""
    token = where.file("prometheus_token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}", "Host": f"control-room:{port}"}
    with urllib.request.urlopen(urllib.request.Request(f"http://{HOST}:{port}/metrics", headers=headers)) as answer:
        return str(answer.read().decode())


def test_a_training_elsewhere_is_judged_kept_and_seen_by_what_the_services_start(
    where: Composed, kafka: ComposedKafka
) -> None:
    port = free_port()
    with at_work(where, port):
        with pilothouse.start_run("test", run_id="elsewhere", settings=where.rank()) as run:
            for step in range(50):
                run.log(step, loss=3.0 - step / 100)
        assert run.counts().accepted == run.counts().sent
        with closing(connect(Settings(clickhouse_url=where.archive))) as client:
            wait_until(lambda: any(row["outcome"] for row in list_runs(client)), SECONDS)
        told = scraped(where, port)
        assert 'run="elsewhere"' in told
        assert 'pilothouse_worker_live{slot="0",worker="governor"} 1.0' in told
        assert 'pilothouse_worker_ready{slot="0",worker="archiver"} 1.0' in told
        for name in ("governor", "archiver"):
            run_once(where, name, tuple(written()["services"][name]["healthcheck"]["test"][2:]))


@pytest.mark.skipif(PROMETHEUS is None, reason="needs Prometheus: apt-get install prometheus")
def test_prometheus_with_its_own_configuration_is_let_in_by_the_control_room_and_judges_its_rules(
    where: Composed, kafka: ComposedKafka
) -> None:
    port, listens = free_port(), free_port()
    folder = where.secrets.parent / "prometheus"
    told = (folder / "prometheus.yml").read_text().replace("control-room:18080", f"{HOST}:{port}")
    (folder / "here.yml").write_text(where.here(told))
    prometheus = Child("prometheus", where.folder / "prometheus.log")
    try:
        with at_work(where, port):
            prometheus.start(
                [
                    str(PROMETHEUS),
                    f"--config.file={folder / 'here.yml'}",
                    f"--storage.tsdb.path={where.folder / 'tsdb'}",
                    f"--web.listen-address={HOST}:{listens}",
                ],
                dict(os.environ),
            )
            wait_until(lambda: bool(recorded(listens, 'up{job="pilothouse"} == 1')), SECONDS)
            wait_until(lambda: bool(recorded(listens, 'pilothouse_worker_live{worker="governor"} == 1')), SECONDS)
            wait_until(lambda: bool(recorded(listens, 'ALERTS{alertname="PilothouseWatchdog"}')), SECONDS)
    finally:
        prometheus.stop(30.0)


def recorded(port: int, expression: str) -> list[object]:
    """What Prometheus knows, asked twice a second; nothing while it does not answer."""
    time.sleep(0.5)
    asked = f"http://{HOST}:{port}/api/v1/query?{urlencode({'query': expression})}"
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return list(json.load(answer)["data"]["result"])
    except OSError:
        return []


def test_a_rank_writes_telemetry_over_tls_and_reads_commands_and_nothing_else(
    where: Composed, kafka: ComposedKafka
) -> None:
    access = where.rank().log_access
    assert (may_write(access, TELEMETRY.name), may_read(access, TELEMETRY.name)) == (True, False)
    assert may_write(access, CONTROL.name) is False


def test_every_service_is_let_in_with_what_its_access_list_gives_it(where: Composed, kafka: ComposedKafka) -> None:
    for name, user in (("governor", "governor"), ("archiver", "archiver"), ("control-room", "operator")):
        access = where.access(name)
        rights = {grant.name: grant.operations for grant in GRANTS if grant.user == user and grant.resource == "topic"}
        for topic in (TELEMETRY.name, CONTROL.name):
            assert may_write(access, topic) is ("WRITE" in rights[topic]), (name, topic)


def test_whoever_knows_no_password_is_not_let_in_and_from_elsewhere_only_tls_is_spoken(
    where: Composed, kafka: ComposedKafka
) -> None:
    access = where.access("governor")
    for stranger in (
        KafkaAccess(access.servers),
        KafkaAccess(access.servers, access.security, access.mechanism, access.user, "guessed"),
        KafkaAccess(f"localhost:{where.outside}", "sasl_plaintext", "PLAIN", access.user, access.password),
    ):
        with pytest.raises(BrokerUnavailable):
            cluster_id(stranger, seconds=5.0)
