"""The advisors of a real worker: the archive's memory, and the model of the settings. Composed by `parts`.

Nothing is connected before the first question. A model's client is a thousand modules: they are imported beside the
worker's own start, so that the first question need not wait for them.
"""

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ..events.decisions import AdviceRequested
from ..events.errors import PilothouseError, UserMistake
from ..settings import Settings
from ..storage.connect import connect
from ..storage.tried import Signature, tried_before, tried_in_incident
from .advisor_llm import LlmAdvisor, Past
from .advisor_memory import MemoryAdvisor, Rows, records_of, signature_of
from .advisor_opinion import Advise, Opinion

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

RECALL_SECONDS = 5.0
"""A model is asked without the archive's record where that takes longer."""
RECALLED = 20
"""So many actions of the record, the surest first, are told to a model."""

log = logging.getLogger(__name__)


def advisors_of(settings: Settings) -> Mapping[str, Advise]:
    """By the name that a policy calls them."""
    memory = _Memory(settings)
    return {"memory": MemoryAdvisor(memory.before), "llm": _llm(settings, memory)}


class _Memory:
    """The archive as advisors ask it, each question with a connection of its own: it may be away, and be another."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def before(self, signature: Signature) -> Rows:
        return tried_before(self._connected(), signature)

    async def recall(self, request: AdviceRequested) -> Past:
        """What is known of such incidents, and of this one; nothing, where the archive does not say it soon."""
        try:
            async with asyncio.timeout(RECALL_SECONDS):
                return await asyncio.to_thread(self._recalled, signature_of(request))
        except (PilothouseError, TimeoutError) as error:
            log.warning("the model is asked without the archive's record: %s", error)
            return Past([], [])

    def _recalled(self, signature: Signature) -> Past:
        client = self._connected()
        before = [known.plain for known in records_of(tried_before(client, signature))]
        return Past(before[:RECALLED], tried_in_incident(client, signature))

    def _connected(self) -> "Client":
        client = connect(self._settings)
        client.set_client_setting("readonly", 1)
        return client


def _llm(settings: Settings, memory: _Memory) -> Advise:
    """The model of the settings, or what is wrong with it."""
    if not settings.llm_model:
        said = "no model is configured: set PILOTHOUSE_LLM_MODEL for the advisor, or ask only memory in the policy"
        return _mute(said)

    def opened() -> Advise:
        from .advisor_model import open_model

        try:
            ask = open_model(settings)
        except UserMistake as error:
            log.error("%s", error)
            return _mute(str(error))
        secret = settings.llm_api_key.get_secret_value()
        return LlmAdvisor(ask, memory.recall, settings.llm_model, settings.llm_temperature, secret)

    opening = ThreadPoolExecutor(1, "model").submit(opened)

    async def advise(request: AdviceRequested) -> Opinion:
        return await (await asyncio.wrap_future(opening))(request)

    return advise


def _mute(why: str) -> Advise:
    """Of an advisor that cannot answer: it says why, at once, so that nobody waits for it."""

    async def advise(_: AdviceRequested) -> Opinion:
        return Opinion(error=why)

    return advise
