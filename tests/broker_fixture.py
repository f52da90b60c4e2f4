"""The brokers that tests run on: the embedded one always, an Apache Kafka where PILOTHOUSE_TEST_KAFKA names one.

`broker` gives each test both, one after the other, started once a module and with our topics made. A test that kills
or restarts its broker takes `new_broker` instead: one of its own.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pilothouse.cli.brokers import EmbeddedBroker, KafkaBroker, LocalBroker
from pilothouse.cli.topic_admin import create_topics
from pilothouse.events.errors import BrokerUnavailable

PARTITIONS = 4
BROKERS = ("embedded", "kafka")
CACHE = Path(__file__).parents[1] / "build" / "tests"
JAVA_OPTIONS = "_JAVA_OPTIONS"
TERMINATED = 143
"""How a JVM ends after SIGTERM, in order."""
START_SECONDS = 180.0
"""An Apache Kafka needs six on an idle machine; that is not what is tested here."""
NewBroker = Callable[[], LocalBroker]

# A test's Kafka lives for seconds: the compiler for long-lived servers costs half of the CPU its start takes.
os.environ.setdefault(JAVA_OPTIONS, "-XX:TieredStopAtLevel=1 -XX:-UseG1GC -XX:+UseSerialGC")


def broker_of_kind(kind: str, data_dir: Path) -> LocalBroker:
    """A broker that is not started yet; skips where this machine has none of the kind."""
    if kind == "embedded":
        return EmbeddedBroker(data_dir)
    return KafkaBroker(named_kafka(), data_dir)


def named_kafka() -> Path:
    """The Apache Kafka of PILOTHOUSE_TEST_KAFKA; skips where none is named, and fails where what is named is none."""
    named = os.environ.get("PILOTHOUSE_TEST_KAFKA")
    if not named:
        pytest.skip(
            "needs a real Apache Kafka: set PILOTHOUSE_TEST_KAFKA to the folder of a distribution, or to a launcher "
            "that understands `run FOLDER --ports PORT` and stays in the foreground (CONTRIBUTING.md says more)"
        )
    home = Path(named)
    if not home.is_dir() and not os.access(home, os.X_OK):
        pytest.fail(f"PILOTHOUSE_TEST_KAFKA={named} is neither a folder nor an executable file")
    _share_classes(home)
    return home


@cache
def _share_classes(home: Path) -> None:
    """Every Kafka of these tests finds its classes parsed, which saves a third of the CPU that its start takes.

    The first to need it makes the archive, with a broker that starts and stops; who comes meanwhile does without, and
    so do all on a machine that is too busy for it.
    """
    java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    archive = CACHE / f"kafka-{sha256(f'{home.resolve()} {java}'.encode()).hexdigest()[:12]}.jsa"
    CACHE.mkdir(parents=True, exist_ok=True)
    plain = os.environ[JAVA_OPTIONS]
    with archive.with_suffix(".lock").open("w") as lock, suppress(BlockingIOError, BrokerUnavailable):
        flock(lock, LOCK_EX | LOCK_NB)
        if not archive.exists():
            _archive_classes(home, archive, plain)
    if archive.exists():
        os.environ[JAVA_OPTIONS] = f"{plain} -XX:SharedArchiveFile={archive}"


def _archive_classes(home: Path, archive: Path, options: str) -> None:
    unfinished = archive.with_suffix(".unfinished")
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv(JAVA_OPTIONS, f"{options} -XX:ArchiveClassesAtExit={unfinished}")
        broker = started(KafkaBroker(home, Path(folder)))
        broker.stop_seconds = 60.0  # it writes the archive at its end
        broker.stop()
        if broker.child.exit_status == TERMINATED:
            unfinished.rename(archive)


def started(broker: LocalBroker) -> LocalBroker:
    broker.start(START_SECONDS)
    create_topics(broker.address, PARTITIONS, replication=1)
    return broker


@pytest.fixture(scope="module", params=BROKERS)
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """A running broker with our topics, shared by the module: use run ids of your own."""
    one = started(broker_of_kind(request.param, tmp_path_factory.mktemp(request.param)))
    yield one
    one.stop()


@pytest.fixture(params=BROKERS)
def new_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewBroker]:
    """Makes a running broker with our topics that this test may kill; all are stopped at its end."""
    made: list[LocalBroker] = []

    def make() -> LocalBroker:
        made.append(broker_of_kind(request.param, tmp_path / f"broker-{len(made)}"))
        return started(made[-1])

    yield make
    for one in made:
        one.kill()


@pytest.fixture(scope="module")
def embedded_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """The embedded broker alone, for what need not be shown twice."""
    one = started(EmbeddedBroker(tmp_path_factory.mktemp("embedded")))
    yield one
    one.stop()


@pytest.fixture(scope="session")
def kafka_home() -> Path:
    """What `--kafka-home` wants, where this machine has it."""
    return named_kafka()
