"""Whether the broker is there, has our topics, and is still the one whose log we follow.

`process` waits for it at the start and asks every few seconds after: a worker that outlives its broker, or that keeps
the offsets of a log begun anew, is alive and silent, which is worse than dead. It asks nothing that would create a
topic, and never for end offsets, which the embedded broker gets wrong.
"""

import asyncio
import logging
import time
from typing import Any

from ..access import Address, access_of
from ..events.errors import BrokerUnavailable, RestartRequired, StackNotRunning
from ..events.topics import CONTROL, DEADLETTER, TELEMETRY
from ..login import refuse_stranger
from .log import Layout

ANSWER_SECONDS = 4.0
PATIENCE_SECONDS = 10.0
"""Longer without an answer, and the broker counts as gone."""

log = logging.getLogger(__name__)
CLIENT_LOG = logging.getLogger("aiokafka")


class BrokerWatch:
    """One connection of its own, for metadata alone."""

    def __init__(self, address: Address) -> None:
        self._address = access_of(address)
        self._client: Any = None
        self._cluster_id: str | None = None
        self._answered = 0.0

    async def arrive(self, seconds: float) -> Layout:
        """Wait for the broker and its topics.

        Raises:
            StackNotRunning: it does not let us in; or not within `seconds`: says whether the broker or the topics are
                missing, and what to do.
        """
        CLIENT_LOG.disabled = True  # it says every second what is said here once
        try:
            return await self._arrive(seconds)
        finally:
            CLIENT_LOG.disabled = False

    async def _arrive(self, seconds: float) -> Layout:
        deadline = time.monotonic() + seconds
        told = ""
        while True:
            await asyncio.to_thread(self._refuse_stranger)
            missing = await self._missing()
            if not missing:
                return await self._layout()
            if time.monotonic() > deadline:
                raise StackNotRunning(f"{missing} (waited {seconds:.0f} s)")
            if missing != told:
                log.warning("waiting %.0f s at most: %s", seconds, missing)
                told = missing
            await asyncio.sleep(1.0)

    async def check(self) -> None:
        """
        Raises:
            BrokerUnavailable: no answer for `PATIENCE_SECONDS`.
            RestartRequired: another log answers at this address.
        """
        try:
            cluster_id = await asyncio.wait_for(self._ask_cluster_id(), ANSWER_SECONDS)
        except (TimeoutError, BrokerUnavailable) as error:
            silent = time.monotonic() - self._answered
            if silent > PATIENCE_SECONDS:
                raise BrokerUnavailable(f"the broker at {self._address} has not answered for {silent:.0f} s") from error
            return
        self._answered = time.monotonic()
        if self._cluster_id is not None and cluster_id != self._cluster_id:
            raise RestartRequired(f"the broker at {self._address} was replaced: its log is not the one we followed")
        self._cluster_id = cluster_id

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _missing(self) -> str:
        try:
            await asyncio.wait_for(self._ask_cluster_id(), ANSWER_SECONDS)
            known = (await asyncio.wait_for(self._metadata(), ANSWER_SECONDS)).topics(exclude_internal_topics=False)
        except (TimeoutError, BrokerUnavailable):
            return (
                f"no broker answers at {self._address}: start one with `pilothouse up`, "
                "or name one that runs, as HOST:PORT, in PILOTHOUSE_KAFKA"
            )
        self._answered = time.monotonic()
        absent = [topic.name for topic in (TELEMETRY, CONTROL, DEADLETTER) if topic.name not in known]
        return f"{self._address} has no {', '.join(absent)}; `pilothouse topics create` makes them" if absent else ""

    def _refuse_stranger(self) -> None:
        try:
            refuse_stranger(self._address)
        except BrokerUnavailable as error:
            raise StackNotRunning(str(error)) from error

    async def _layout(self) -> Layout:
        metadata = await self._metadata()
        return Layout(*(len(metadata.partitions_for_topic(topic.name)) for topic in (TELEMETRY, CONTROL, DEADLETTER)))

    async def _metadata(self) -> Any:
        from aiokafka.errors import KafkaError

        try:
            return await self._client.fetch_all_metadata()
        except KafkaError as error:
            raise BrokerUnavailable(str(error)) from error

    async def _ask_cluster_id(self) -> str | None:
        from aiokafka.client import AIOKafkaClient
        from aiokafka.errors import KafkaError
        from aiokafka.protocol.metadata import MetadataRequest

        try:
            if self._client is None:
                client = AIOKafkaClient(
                    **self._address.options_of_aiokafka(), client_id="pilothouse", request_timeout_ms=4_000
                )
                await client.bootstrap()
                self._client = client
            answer = await self._client.send(self._client.get_random_node(), MetadataRequest([]))
        except (KafkaError, OSError) as error:
            await self.close()
            raise BrokerUnavailable(f"no broker answers at {self._address}: {error}") from error
        return getattr(answer, "cluster_id", None)
