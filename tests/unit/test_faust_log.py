"""What the client's failures are called where the log port is Faust's."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import faust
import pytest
from aiokafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError, NodeNotReadyError
from faust.exceptions import ProducerSendError

from pilothouse.events.errors import BrokerUnavailable
from pilothouse.events.topics import CONTROL
from pilothouse.stream_processors.faust_log import FaustLog, NewestTable
from pilothouse.stream_processors.kept import KeptRun, Mark, encode, mark_key, restore, run_key, trouble_key
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


def written(key: bytes, value: bytes | None) -> Any:
    """A record of the changelog, as recovery hands it on."""
    return SimpleNamespace(key=key, value=value, message=SimpleNamespace(value=value, partition=0))


def states_to(offset: int, epoch: int = 0) -> list[Any]:
    """What a governor writes that has judged everything before this offset."""
    state = encode(KeptRun(epoch, 0, b"state at %d" % offset, offset))
    return [written(run_key("run"), state), written(mark_key(0), encode(Mark(epoch, offset)))]


@pytest.fixture
def table(tmp_path: Path) -> NewestTable:
    app = faust.App("kept", broker="kafka://nowhere", store="memory://", Table=NewestTable, datadir=tmp_path)
    return cast(NewestTable, app.Table("run-states", key_type=bytes, value_type=bytes, partitions=1))


def restored(table: NewestTable) -> tuple[int, bytes]:
    kept = restore(table.data, [0])[0]
    assert kept.mark is not None
    return kept.mark.next_offset, kept.runs["run"].state


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "a batch each"])
def test_what_a_worker_wrote_late_does_not_replace_what_was_written_by_its_successor(
    table: NewestTable, together: bool
) -> None:
    for batch in ([*states_to(300), *states_to(100)],) if together else (states_to(300), states_to(100)):
        table.apply_changelog_batch(batch)
    assert restored(table) == (300, b"state at 300")


def test_a_log_begun_anew_counts_from_nought(table: NewestTable) -> None:
    table.apply_changelog_batch([*states_to(300), *states_to(5, epoch=1)])
    assert restored(table) == (5, b"state at 5")


def test_what_was_forgotten_is_gone_and_notes_and_strangers_are_kept_as_they_came(table: NewestTable) -> None:
    others = [written(trouble_key(0), b"late"), written(trouble_key(0), b"later"), written(run_key("odd"), b"?")]
    table.apply_changelog_batch(
        [*states_to(300), *others, written(run_key("run"), None), written(run_key("odd"), b"!")]
    )
    assert dict(table.data) == {mark_key(0): encode(Mark(0, 300)), trouble_key(0): b"later", run_key("odd"): b"!"}


def test_a_state_that_is_written_behind_a_recovery_does_not_replace_what_was_recovered(table: NewestTable) -> None:
    class Silent:
        async def send(self, *_: Any) -> Awaitable[Any]:
            future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            future.set_result(None)
            return future

    table.apply_changelog_batch(states_to(300))
    late = {one.key: one.value for one in states_to(100)}
    asyncio.run(FaustLog(cast(Any, SimpleNamespace(producer=Silent())), table).keep(0, late))
    assert restored(table) == (300, b"state at 300")
