"""How the API answers."""

from typing import Any

from fastapi import Response
from pydantic import BaseModel

from ...events import plain_json


class Answer(Response):
    """Strict JSON: NaN and the infinities are the strings "NaN", "Infinity" and "-Infinity"."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return plain_json.dumps(content).encode()


class Refusal(BaseModel):
    """Why it was refused, for a person."""

    detail: str


def _refusals(words: dict[int | str, str]) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Refusal, "description": told} for status, told in words.items()}


SIGNING_IN = _refusals({401: "this token is not known here", 421: "the control room does not go by this name"})
LET_IN = SIGNING_IN | _refusals(
    {401: "a token is needed", 403: "the token's role may not do this", 503: "the archive or the log does not answer"}
)
"""What any request may hear that needs a token."""
ABOUT_A_RUN = LET_IN | _refusals({400: "it makes no sense", 404: "there is no such thing"})
