"""Strict JSON of whatever a row holds: NaN and the infinities are the texts "NaN", "Infinity" and "-Infinity".

What the command line prints with `--json` and what the control room answers.
"""

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any


def body_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The own fields of an archived event, from its row."""
    loaded = json.loads(row["body"])
    return loaded if isinstance(loaded, dict) else {}


def dumps(value: Any) -> str:
    """One line of strict JSON with nothing in it that a terminal obeys; JSON itself escapes ASCII's controls only."""
    told = json.dumps(_for_json(value), ensure_ascii=False, allow_nan=False)
    return told if told.isprintable() else "".join(each if each.isprintable() else _escaped(each) for each in told)


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1]


def _for_json(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return non_finite(value)
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return {str(key): _for_json(each) for key, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_for_json(each) for each in value]
        case _:
            return value.isoformat() if isinstance(value, datetime) else str(value)


def non_finite(value: float) -> str:
    """The word for one that is not finite."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
