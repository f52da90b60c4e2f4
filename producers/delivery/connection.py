"""Connections to Kafka: made within a deadline or refused with a clear reason, and ended at once.

Called by `delivery.kafka`. What is odd about kafka-python 3 is known here and nowhere else: a constructor that blocks
and, failing, leaves its sockets open; a `close` that raises before it has stopped its thread.
"""

import socket
from functools import partial
from typing import Any

from ...access import Address, access_of
from ...events.errors import BrokerUnavailable
from ...events.topics import MAX_RECORD_BYTES, TELEMETRY
from ...login import refuse_stranger
from ...quiet import CLIENT_ID, allow_import, quiet_clients

BLOCK_SECONDS = 5.0
REQUEST_SECONDS = 10.0


def connected_producer(bootstrap: Address, seconds: float) -> tuple[Any, int]:
    """A producer that has met its broker, and how many partitions the telemetry topic has. Blocks up to `seconds`.

    Raises:
        BrokerUnavailable: no broker answers, or it has no such topic.
    """
    allow_import()
    from kafka import KafkaProducer
    from kafka.errors import KafkaError

    quiet_clients()
    access = access_of(bootstrap)
    _knock(access.servers, seconds)
    refuse_stranger(access)
    clients: list[Any] = []
    try:
        producer = KafkaProducer(
            kafka_client=partial(_remembered_client, clients),
            **access.options(),
            client_id=CLIENT_ID,
            acks="all",
            enable_idempotence=False,
            max_in_flight_requests_per_connection=1,
            max_request_size=MAX_RECORD_BYTES + 65_536,
            batch_size=256 * 1024,
            allow_auto_create_topics=False,
            bootstrap_timeout_ms=int(seconds * 1_000),
            max_block_ms=int(BLOCK_SECONDS * 1_000),
            request_timeout_ms=int(REQUEST_SECONDS * 1_000),
            reconnect_backoff_max_ms=1_000,
            metrics_enabled=False,
        )
    except (KafkaError, OSError, ValueError, AssertionError) as error:
        for client in clients:
            client.close()
        raise BrokerUnavailable(
            f"Kafka at {access} does not answer as a broker ({error}): {access.advice()}"
        ) from error
    producer._unregister_cleanup()  # at exit it would close before the run has sent what it still has
    try:
        partitions = producer.partitions_for(TELEMETRY.name)
    except KafkaError as error:
        abandon(producer)
        raise BrokerUnavailable(
            f"Kafka at {bootstrap} shows no topic {TELEMETRY.name} ({error}); make it with `pilothouse topics create`"
        ) from error
    return producer, len(partitions)


def _remembered_client(clients: list[Any], **options: Any) -> Any:
    """A constructor that fails leaves its sockets to the garbage collector; this way somebody can close them."""
    from kafka.net.compat import KafkaNetClient

    clients.append(KafkaNetClient(**options))
    return clients[-1]


def abandon(producer: Any) -> None:
    """End a producer now, whatever it still holds.

    Not by its `close`: with records unsent that raises before it stops its thread (seen in 3.0), which would then go on
    and deliver old records behind newer ones.
    """
    disarm(producer)
    producer._sender.force_close()


def disarm(producer: Any) -> None:
    """Keep `close` from ever running, at exit or when collected: it would wait for a thread or a lock."""
    producer._unregister_cleanup()
    producer._closed = True


def _knock(bootstrap: str, seconds: float) -> None:
    """Whether anybody listens: a refusal is known at once, where a constructor would try until its time is up."""
    faults: list[str] = []
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            socket.create_connection((host.strip("[]") or "127.0.0.1", int(port)), timeout=min(seconds, 5.0)).close()
        except (OSError, ValueError) as error:
            faults.append(f"{address}: {error}")
        else:
            return
    raise BrokerUnavailable(f"no Kafka broker listens at {'; '.join(faults)}")
