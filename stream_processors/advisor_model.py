"""The model behind the language model's advisor, through pydantic-ai: any of its providers, or any endpoint that speaks
OpenAI's chat completions. Composed by `parts`; needs the extra `llm`, which is imported here and nowhere else.

Nothing is repeated in secret: clients of OpenAI's kind are told not to. An answer of such an endpoint is read up to
`MAX_ANSWER_BYTES`, whatever it goes on sending.
"""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from ..events.errors import UserMistake
from ..settings import Settings
from .advisor_llm import Ask, Reply, Turn

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models import Model

MAX_ANSWER_BYTES = 1_000_000
MILLION = 1_000_000


def open_model(settings: Settings) -> Ask:
    """The way to the model of the settings. Imports a thousand modules: once per process.

    Raises:
        UserMistake: the extra is not installed, or there is no such model; what to set.
    """
    try:
        from pydantic_ai.direct import model_request
        from pydantic_ai.settings import ModelSettings
    except ImportError as error:
        raise UserMistake(
            f"PILOTHOUSE_LLM_MODEL is {settings.llm_model!r}, and pydantic-ai is not installed: "
            "pip install 'pilothouse[llm]'"
        ) from error
    model = _model(settings)
    asked = ModelSettings(max_tokens=settings.llm_max_tokens)
    if settings.llm_temperature is not None:
        asked["temperature"] = settings.llm_temperature

    async def ask(instructions: str, turns: Sequence[Turn]) -> Reply:
        response = await model_request(model, _messages(instructions, turns), model_settings=asked)
        return _reply(response, settings)

    return ask


def _model(settings: Settings) -> "Model":
    from pydantic_ai.exceptions import UserError
    from pydantic_ai.models import infer_model

    if settings.llm_base_url:
        return _compatible(settings)
    try:
        return infer_model(settings.llm_model)
    except (UserError, ValueError, ImportError) as error:
        raise UserMistake(f"PILOTHOUSE_LLM_MODEL={settings.llm_model}: {error}") from error


def _compatible(settings: Settings) -> "Model":
    import httpx2
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    class Bounded(httpx2.AsyncByteStream):
        """A body that ends in an error where it is too long."""

        def __init__(self, stream: httpx2.AsyncByteStream) -> None:
            self._stream = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            read = 0
            async for chunk in self._stream:
                read += len(chunk)
                if read > MAX_ANSWER_BYTES:
                    raise httpx2.ReadError(f"the answer has more than {MAX_ANSWER_BYTES} bytes")
                yield chunk

        async def aclose(self) -> None:
            await self._stream.aclose()

    class Transport(httpx2.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            response = await super().handle_async_request(request)
            assert isinstance(response.stream, httpx2.AsyncByteStream), "an asynchronous transport's body"
            response.stream = Bounded(response.stream)
            return response

    limits = httpx2.Limits(max_keepalive_connections=0)  # minutes lie between two questions
    client = AsyncOpenAI(
        base_url=settings.llm_base_url,
        api_key=settings.llm_api_key.get_secret_value() or "none",
        max_retries=0,
        http_client=httpx2.AsyncClient(transport=Transport(limits=limits), follow_redirects=False),
    )
    return OpenAIChatModel(settings.llm_model, provider=OpenAIProvider(openai_client=client))


def _messages(instructions: str, turns: Sequence[Turn]) -> "list[ModelMessage]":
    from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart

    return [
        ModelResponse(parts=[TextPart(turn.text)])
        if turn.by_model
        else ModelRequest.user_text_prompt(turn.text, instructions=instructions)
        for turn in turns
    ]


def _reply(response: "ModelResponse", settings: Settings) -> Reply:
    usage: Any = response.usage
    return Reply(
        text=response.text or "",
        model=response.model_name or settings.llm_model,
        tokens_in=usage.input_tokens,
        tokens_out=usage.output_tokens,
        cost_usd=_cost(response, settings),
    )


def _cost(response: "ModelResponse", settings: Settings) -> float | None:
    """By the prices of the settings; else by those that pydantic-ai knows of the model."""
    usage: Any = response.usage
    into, out = settings.llm_usd_per_million_in, settings.llm_usd_per_million_out
    if into is not None and out is not None:
        return float(usage.input_tokens * into + usage.output_tokens * out) / MILLION
    try:
        return float(response.cost().total_price)
    except (LookupError, ValueError, AssertionError):
        return None
