"""Who may do what on a Kafka that asks: the least that a rank, each worker and a person need, as its access lists.

`pilothouse topics acl` shows them, or makes them on the broker (`grant`). The names of users are a site's own. Who
makes topics and access lists is its administrator, and none of these.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, get_args

from ..access import Address
from ..events.errors import BrokerUnavailable, UserMistake
from ..events.topics import CONTROL, DEADLETTER, TELEMETRY
from .topic_admin import ANSWER_SECONDS, admin_client

User = Literal["rank", "governor", "archiver", "advisor", "operator"]
USERS: tuple[User, ...] = get_args(User)
CHANGELOG = "pilothouse-governor-run-states-changelog"
"""The governor's states, written behind: its own topic, which it makes at its first start."""

SEES, READS, WRITES = ("DESCRIBE",), ("READ", "DESCRIBE"), ("WRITE", "DESCRIBE")


class Grant(NamedTuple):
    """What one user may do with one topic or consumer group."""

    user: User
    resource: Literal["topic", "group"]
    name: str
    operations: tuple[str, ...]


GRANTS = (
    Grant("rank", "topic", TELEMETRY.name, WRITES),
    Grant("rank", "topic", CONTROL.name, READS),
    Grant("governor", "topic", TELEMETRY.name, ("READ", *WRITES)),
    Grant("governor", "topic", CONTROL.name, WRITES),
    Grant("governor", "topic", DEADLETTER.name, WRITES),
    Grant("governor", "topic", CHANGELOG, ("CREATE", "READ", *WRITES)),
    Grant("governor", "group", "pilothouse-governor", READS),
    Grant("archiver", "topic", TELEMETRY.name, READS),
    Grant("archiver", "topic", CONTROL.name, READS),
    Grant("archiver", "topic", DEADLETTER.name, WRITES),
    Grant("archiver", "group", "pilothouse-archiver", READS),
    Grant("advisor", "topic", CONTROL.name, READS),
    Grant("advisor", "topic", TELEMETRY.name, WRITES),
    Grant("advisor", "topic", DEADLETTER.name, SEES),
    Grant("advisor", "group", "pilothouse-advisor", READS),
    Grant("operator", "topic", TELEMETRY.name, ("READ", *WRITES, "DESCRIBE_CONFIGS")),
    Grant("operator", "topic", CONTROL.name, (*READS, "DESCRIBE_CONFIGS")),
    Grant("operator", "topic", DEADLETTER.name, (*READS, "DESCRIBE_CONFIGS")),
)


def names_of(given: Mapping[str, str]) -> dict[User, str]:
    """The site's name of each user; `pilothouse-rank` and the like where none is given.

    Raises:
        UserMistake: there is no such user of ours.
    """
    if unknown := [user for user in given if user not in USERS]:
        raise UserMistake(f"{unknown[0]!r} is nobody here: there are {', '.join(USERS)}; write --user rank=NAME")
    return {user: given.get(user) or f"pilothouse-{user}" for user in USERS}


def rows(names: Mapping[User, str]) -> Iterator[dict[str, Any]]:
    """The access lists for a person or a program."""
    for user, resource, name, operations in GRANTS:
        yield {"user": names[user], "may": ", ".join(operations), "resource": resource, "name": name}


def commands(names: Mapping[User, str], address: str) -> Iterator[str]:
    """The same as lines for Kafka's own tool."""
    for user, resource, name, operations in GRANTS:
        what = " ".join(f"--operation {operation.title().replace('_', '')}" for operation in operations)
        yield (
            f"kafka-acls.sh --bootstrap-server {address} --add --allow-principal User:{names[user]} "
            f"{what} --{resource} {name}"
        )


def grant(address: Address, names: Mapping[User, str], seconds: float = ANSWER_SECONDS) -> int:
    """Make them on the broker; how many. Made twice, they are there once.

    Raises:
        BrokerUnavailable: it cannot be reached, or does not let this user change them.
    """
    from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

    wanted = [
        ACL(
            principal=f"User:{names[user]}",
            host="*",
            operation=ACLOperation[operation],
            permission_type=ACLPermissionType.ALLOW,
            resource_pattern=ResourcePattern(ResourceType[resource.upper()], name),
        )
        for user, resource, name, operations in GRANTS
        for operation in operations
    ]
    with admin_client(address, seconds) as client:
        answer = client.create_acls(wanted)
    if answer["failed"]:
        _, why = answer["failed"][0]
        raise BrokerUnavailable(
            f"the broker at {address} did not take {len(answer['failed'])} of {len(wanted)} access lists: {why}"
        )
    return len(wanted)
