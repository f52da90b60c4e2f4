"""How the API answers."""

from typing import Any

from fastapi import Response

from ...events import plain_json


class Answer(Response):
    """Strict JSON: NaN and the infinities are the strings "NaN", "Infinity" and "-Infinity"."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return plain_json.dumps(content).encode()
