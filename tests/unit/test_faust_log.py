"""What the client's failures are called where the log port is Faust's."""

import asyncio
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError, NodeNotReadyError
from faust.exceptions import ProducerSendError

from pilothouse.events.errors import BrokerUnavailable
from pilothouse.events.topics import CONTROL
from pilothouse.stream_processors.faust_log import FaustLog
from pilothouse.stream_processors.log import Outgoing


class Producer:
    """Fails as the client does: at once, wrapped by Faust, or with the future of a record."""

    def __init__(self, error: KafkaError, *, at_once: bool) -> None:
        self.error = error
        self.at_once = at_once

    async def send(self, *_: Any) -> Awaitable[Any]:
        if self.at_once:
            raise ProducerSendError("refused") from self.error
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_exception(self.error)
        return future


def published(error: KafkaError, *, at_once: bool) -> list[int]:
    log = FaustLog(cast(Any, SimpleNamespace(producer=Producer(error, at_once=at_once))))
    return asyncio.run(log.publish([Outgoing(CONTROL.name, 0, b"run", (), b"body")]))


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("error", [KafkaTimeoutError("expired"), NodeNotReadyError("not ready")])
def test_a_record_given_up_because_the_broker_is_away_is_an_outage(error: KafkaError, at_once: bool) -> None:
    with pytest.raises(BrokerUnavailable, match=type(error).__name__):
        published(error, at_once=at_once)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_record_that_can_never_be_taken_is_none(at_once: bool) -> None:
    with pytest.raises((MessageSizeTooLargeError, ProducerSendError)):
        published(MessageSizeTooLargeError("too large"), at_once=at_once)
