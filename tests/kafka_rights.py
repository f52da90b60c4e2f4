"""What a Kafka lets somebody do with a topic, by trying."""

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import TopicAuthorizationFailedError

from pilothouse.access import KafkaAccess
from pilothouse.tests.outbox_bench import wait_until


def may_write(access: KafkaAccess, topic: str) -> bool:
    """Whether a record of this one is taken."""
    producer = KafkaProducer(**access.options(), enable_idempotence=False, max_block_ms=60_000)
    try:
        if not producer.partitions_for(topic):
            return False
        producer.send(topic, b"x", partition=0).get(20)
    except TopicAuthorizationFailedError:
        return False
    finally:
        producer.close()
    return True


def may_read(access: KafkaAccess, topic: str) -> bool:
    """Whether a record is given to it; there must be one."""
    consumer = KafkaConsumer(**access.options(), enable_auto_commit=False, auto_offset_reset="earliest")
    try:
        if not consumer.partitions_for_topic(topic):  # who may not even know of it is told that there is none
            return False
        consumer.assign([TopicPartition(topic, 0)])
        wait_until(lambda: bool(consumer.poll(500)), 60)
    except TopicAuthorizationFailedError:
        return False
    finally:
        consumer.close()
    return True
