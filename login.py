"""Whether a Kafka lets us in: one connection, and its own word where it does not.

Asked before a client is made of an access with a password or TLS. The clients themselves try again and again what was
refused, and after all their time say that nobody answers. What kafka-python tells of a single connection is known here.
"""

import threading
import time
from typing import Any

from .access import KafkaAccess
from .events.errors import BrokerUnavailable
from .quiet import CLIENT_ID, allow_import, quiet_clients

LOGIN_SECONDS = 10.0
TRIES = 2
"""A broker closes right behind its refusal: now and then only the closing is seen."""


def refuse_stranger(access: KafkaAccess, seconds: float = LOGIN_SECONDS) -> None:
    """Nothing, where one of the servers lets us in or none answers in time: that is for the client to find out.

    Raises:
        BrokerUnavailable: it was reached and does not let us in; says why, and what to look at.
    """
    if access.security == "plaintext":
        return
    allow_import()
    deadline = time.monotonic() + seconds
    why: BaseException | None = None
    for _ in range(TRIES):
        for number in range(len(access.servers.split(","))):
            why = _knock(access, number, deadline)
            if why is None:
                return
            if _is_definite(why):
                raise BrokerUnavailable(f"Kafka at {access} does not let us in: {_words(access, why)}") from why
    if why is not None and access.wants_login and "disconnected" in str(why):
        what = f"it ends the connection while {access.user!r} logs in"
        raise BrokerUnavailable(f"Kafka at {access} does not let us in: {what}; {access.advice()}") from why


def _knock(access: KafkaAccess, number: int, deadline: float) -> BaseException | None:
    """What becomes of one connection to one server; None where it stands, or where the time is over."""
    became: list[BaseException | None] = [None]

    def knock() -> None:
        became[0] = _try(access, number, deadline)

    # A thread whose name says that it is ours: what the client says of its troubles is said here (`quiet`).
    thread = threading.Thread(target=knock, name="pilothouse-login", daemon=True)
    thread.start()
    thread.join()
    return became[0]


def _try(access: KafkaAccess, number: int, deadline: float) -> BaseException | None:
    from kafka.errors import KafkaError
    from kafka.net.compat import KafkaNetClient

    quiet_clients()
    client: Any = None
    try:
        client = KafkaNetClient(**access.options(), client_id=CLIENT_ID)
        node = client.cluster.bootstrap_brokers()[number]
        connection = client._manager.get_connection(node.node_id, refresh_metadata_on_err=False)
        begun = connection.init_future
        client._net.poll(timeout_ms=max(1.0, (deadline - time.monotonic()) * 1_000), future=begun)
        return begun.exception if begun.is_done else None
    except (KafkaError, OSError, ValueError, AssertionError) as error:
        return error
    finally:
        if client is not None:
            client.close()


def _is_definite(why: BaseException) -> bool:
    """Whether another try cannot end otherwise."""
    from kafka.errors import InvalidReceiveError, SaslAuthenticationFailedError, UnsupportedSaslMechanismError

    refusals = (InvalidReceiveError, SaslAuthenticationFailedError, UnsupportedSaslMechanismError)
    return isinstance(why, (*refusals, OSError, ValueError, AssertionError)) or "Handshake failed" in str(why)


def _words(access: KafkaAccess, why: BaseException) -> str:
    from kafka.errors import InvalidReceiveError, SaslAuthenticationFailedError, UnsupportedSaslMechanismError

    match why:
        case SaslAuthenticationFailedError():
            return (
                f"the user {access.user!r} or the password is wrong "
                "(PILOTHOUSE_KAFKA_USER, PILOTHOUSE_KAFKA_PASSWORD, PILOTHOUSE_KAFKA_MECHANISM)"
            )
        case UnsupportedSaslMechanismError():
            return f"it does not take {access.mechanism} (PILOTHOUSE_KAFKA_MECHANISM)"
        case InvalidReceiveError():
            return f"what it answers is not {access.security}; {access.advice()}"
        case _ if "CERTIFICATE_VERIFY_FAILED" in str(why):
            return f"its certificate is signed by nobody whom we know (PILOTHOUSE_KAFKA_CA): {why}"
        case _:
            return f"{why}; {access.advice()}"
