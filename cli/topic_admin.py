"""The topics on a broker: create what is missing, say what differs from what `events.topics` declares.

Called by `pilothouse topics`, by the supervisor before any client starts (a broker that makes topics by itself would
give them its own defaults), and by tests. Creating twice changes nothing.
"""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from ..access import Address, access_of
from ..events.errors import BrokerUnavailable, UserMistake
from ..events.topics import TOPICS, Topic
from ..login import refuse_stranger

ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class TopicState:
    """What a broker says of one of our topics. `drift`: what differs from its declaration; `partitions` 0: missing."""

    name: str
    partitions: int
    replication: int
    retention_ms: int | None
    max_record_bytes: int | None
    drift: tuple[str, ...] = ()

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


def cluster_id(address: Address, seconds: float = ANSWER_SECONDS) -> str:
    """The identity of the log at this address: the broker's own answer to a metadata request."""
    with admin_client(address, seconds) as client:
        return str(client.describe_cluster()["cluster_id"])


def create_topics(
    address: Address, partitions: int, replication: int, seconds: float = ANSWER_SECONDS
) -> list[TopicState]:
    """Create the missing topics and wait until each has a leader; what there is now, drift included.

    Raises:
        BrokerUnavailable: nobody answers at the address, or it refuses a topic.
    """
    from kafka.errors import KafkaError, TopicAlreadyExistsError, for_code

    wanted = {
        topic.name: {
            "num_partitions": partitions,
            "replication_factor": replication,
            "configs": _config(topic, replication),
        }
        for topic in TOPICS
    }
    with admin_client(address, seconds) as client:
        for answer in client.create_topics(wanted, raise_errors=False)["topics"]:
            if answer["error_code"] not in (0, TopicAlreadyExistsError.errno):
                reason = answer["error_message"] or for_code(answer["error_code"]).__name__
                raise BrokerUnavailable(f"the broker at {address} refuses the topic {answer['name']}: {reason}")
        try:
            client.wait_for_topics(list(wanted), timeout_ms=seconds * 1000)
        except KafkaError as error:
            raise BrokerUnavailable(f"the broker at {address} did not make the topics ready: {error}") from error
        return _describe(client, partitions, replication)


def describe_topics(
    address: Address, partitions: int, replication: int, seconds: float = ANSWER_SECONDS
) -> list[TopicState]:
    """Our topics as they are on the broker, in the order of `events.topics`."""
    with admin_client(address, seconds) as client:
        return _describe(client, partitions, replication)


@contextmanager
def admin_client(address: Address, seconds: float) -> Iterator[Any]:
    """kafka-python's admin client, closed at the end; every failure to reach the broker is `BrokerUnavailable`."""
    from kafka.admin import KafkaAdminClient
    from kafka.errors import KafkaError

    deadline = time.monotonic() + seconds
    access = access_of(address)
    _refuse_silence(access.servers, seconds)  # a constructor that fails would leave its thread behind
    refuse_stranger(access, seconds)
    milliseconds = max(500, int((deadline - time.monotonic()) * 1000))
    try:
        client = KafkaAdminClient(
            **access.options(), bootstrap_timeout_ms=milliseconds, request_timeout_ms=milliseconds
        )
    except (KafkaError, OSError, ValueError, AssertionError) as error:
        raise BrokerUnavailable(f"the broker at {address} does not answer ({error}): {access.advice()}") from error
    try:
        yield client
    except KafkaError as error:
        raise BrokerUnavailable(f"the broker at {address} failed: {error}") from error
    finally:
        client.close()


def servers(address: str) -> list[tuple[str, int]]:
    """The hosts and ports of such an address.

    Raises:
        UserMistake: it is none.
    """
    found = [server.strip().rpartition(":") for server in address.split(",")]
    for host, _, port in found:
        if not host or not port.isdecimal() or not 0 < int(port) <= 65_535:
            raise UserMistake(f"{address!r} is no address of a Kafka: write HOST:PORT, or several with commas between")
    return [(host.strip("[]"), int(port)) for host, _, port in found]


def _refuse_silence(address: str, seconds: float) -> None:
    last: OSError | None = None
    for server in servers(address):
        try:
            with socket.create_connection(server, timeout=min(seconds, 5.0)):
                return
        except OSError as error:
            last = error
    how = "start one with `pilothouse up`, or name one that runs in PILOTHOUSE_KAFKA (for `up`: --kafka)"
    raise BrokerUnavailable(f"no broker answers at {address} ({last}): {how}") from last


def _config(topic: Topic, replication: int) -> dict[str, str]:
    """With three replicas or more a write counts when all but one have it: any one may die, and nothing is lost."""
    durable = {"min.insync.replicas": str(replication - 1)} if replication > 2 else {}
    return {"retention.ms": str(topic.retention_ms), "max.message.bytes": str(topic.max_record_bytes), **durable}


def _describe(client: Any, partitions: int, replication: int) -> list[TopicState]:
    from kafka.admin import ConfigResource, ConfigResourceType
    from kafka.errors import KafkaError

    names = [topic.name for topic in TOPICS]
    found = {
        answer["name"]: answer["partitions"] for answer in client.describe_topics(names) if answer["error_code"] == 0
    }
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in found]
    try:
        configs = client.describe_configs(resources, config_filter="all")["topic"] if resources else {}
    except (KafkaError, KeyError):
        configs = {}  # a broker may know topics and not tell their settings; what it tells is compared
    return [
        _state(topic, found.get(topic.name, []), configs.get(topic.name, {}), partitions, replication)
        for topic in TOPICS
    ]


def _state(
    topic: Topic, found: Sequence[dict[str, Any]], config: dict[str, Any], partitions: int, replication: int
) -> TopicState:
    is_now = TopicState(
        name=topic.name,
        partitions=len(found),
        replication=len(found[0]["replica_nodes"]) if found else 0,
        retention_ms=_number(config, "retention.ms"),
        max_record_bytes=_number(config, "max.message.bytes"),
    )
    wanted = TopicState(topic.name, partitions, replication, topic.retention_ms, topic.max_record_bytes)
    return TopicState(**{**asdict(is_now), "drift": drift(is_now, wanted)})


def _number(config: dict[str, Any], key: str) -> int | None:
    value = config.get(key, {}).get("value")
    return int(value) if value is not None else None


def drift(is_now: TopicState, wanted: TopicState) -> tuple[str, ...]:
    """What differs, in words; what the broker does not tell is not compared."""
    if not is_now.partitions:
        return ("missing",)
    fields = ("partitions", "replication", "retention_ms", "max_record_bytes")
    pairs = [(name, getattr(is_now, name), getattr(wanted, name)) for name in fields]
    return tuple(f"{name} is {now}, declared {want}" for name, now, want in pairs if now is not None and now != want)
