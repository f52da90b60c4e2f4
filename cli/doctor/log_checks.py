"""What the doctor asks the broker: whether it is there, whether our topics are as declared, what could not be used."""

from collections.abc import Iterator

from ...events.topics import DEADLETTER, TOPICS
from ...settings import Settings
from ..topic_admin import TopicState, cluster_id, describe_topics
from ..topic_reading import count_records
from .finding import Finding

ANSWER_SECONDS = 8.0
WANTED = {topic.name: topic for topic in TOPICS}


def broker(settings: Settings) -> Iterator[Finding]:
    """Whether it answers us, with what we say of ourselves."""
    identity = cluster_id(settings.log_access, ANSWER_SECONDS)
    yield Finding("broker", "well", f"{settings.kafka} answers (cluster {identity})")


def topics(settings: Settings) -> Iterator[Finding]:
    """Each of our topics against its declaration."""
    states = describe_topics(settings.log_access, settings.partitions, settings.replication, ANSWER_SECONDS)
    for state in states:
        if not state.partitions:
            yield Finding(
                "topics", "fault", f"{state.name} is missing", "pilothouse topics create, then start the workers again"
            )
        for drift in state.drift if state.partitions else ():
            yield Finding("topics", "warning", f"{state.name}: {drift}", _mend(state, drift.partition(" ")[0]))
    counts = {state.partitions for state in states if state.partitions}
    if len(counts) > 1:
        told = ", ".join(f"{state.name} {state.partitions}" for state in states)
        yield Finding("topics", "warning", f"they have different numbers of partitions: {told}", _MORE_PARTITIONS)
    if not any(state.drift for state in states):
        yield Finding("topics", "well", f"{len(states)} topics of {counts.pop()} partitions, as declared")


def dead_letters(settings: Settings) -> Iterator[Finding]:
    """Whether anything arrived that could not be used."""
    states = describe_topics(settings.log_access, settings.partitions, settings.replication, ANSWER_SECONDS)
    [partitions] = [state.partitions for state in states if state.name == DEADLETTER.name]
    if not partitions:
        return  # said by `topics`
    count = count_records(settings.log_access, {DEADLETTER.name: partitions}, ANSWER_SECONDS)[DEADLETTER.name]
    if count:
        found = f"{count} records could not be used; the reason stands with each"
        yield Finding("dead letters", "warning", found, "pilothouse deadletter list")
    else:
        yield Finding("dead letters", "well", "none")


_MORE_PARTITIONS = (
    "set PILOTHOUSE_PARTITIONS to what the broker has. Do not add partitions while runs go on: a run would move"
)


def _mend(state: TopicState, what: str) -> str:
    """How to make a topic what it was declared to be, with Apache Kafka's own tools."""
    topic = WANTED[state.name]
    change = {"retention_ms": f"retention.ms={topic.retention_ms}"}
    change["max_record_bytes"] = f"max.message.bytes={topic.max_record_bytes}"
    if what in change:
        return f"kafka-configs.sh --alter --entity-type topics --entity-name {state.name} --add-config {change[what]}"
    if what == "replication":
        return "kafka-reassign-partitions.sh, or set PILOTHOUSE_REPLICATION to what the broker has"
    return _MORE_PARTITIONS
