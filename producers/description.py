"""What a run says of itself at its start: its configuration as plain, bounded data.

Called by `producers.run.start_run`. A configuration may be anything (a dict, a dataclass, argparse's Namespace, a
pydantic model, OmegaConf); people read it later, so what is no plain value becomes text, and what is too long is cut
with a mark that says so.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

import msgspec

logger = logging.getLogger("pilothouse")

CONFIG_BYTES = 65_536
STRING_CHARS = 4_096
ITEMS = 1_000
DEPTH = 12
LABEL_CHARS = 2_000
TRUNCATED_KEY = "pilothouse_truncated"

_size = msgspec.msgpack.Encoder().encode


class Description(TypedDict, total=False):
    """What a script may say of its run besides the name: the keywords of `start_run`."""

    config: object
    tags: Mapping[str, object]
    links: Mapping[str, object]
    code_version: str
    dataset_version: str
    model: str
    cost_per_hour: float


KNOWN = frozenset(Description.__annotations__)
TEXTS: tuple[Literal["code_version", "dataset_version", "model"], ...] = ("code_version", "dataset_version", "model")


def described(description: Description) -> dict[str, Any]:
    """The fields of `RunStarted` that describe the run."""
    fields: dict[str, Any] = {name: cut(str(description[name])) for name in TEXTS if description.get(name)}
    fields |= {name: labels(description[name]) for name in ("tags", "links") if description.get(name)}
    if (cost := description.get("cost_per_hour")) is not None:
        fields["cost_per_hour"] = float(cost)
    fields["config"] = bounded_config(description.get("config"))
    return fields


def bounded_config(config: object) -> dict[str, Any]:
    """`config` as plain data of at most 64 KB; what was cut is marked in place, and said once in the log."""
    if config is None:
        return {}
    whole = plain(config, DEPTH)
    fields = whole if isinstance(whole, dict) else {"config": whole}
    kept: dict[str, Any] = {}
    room = CONFIG_BYTES - 1_024
    for name, value in fields.items():
        length = len(_size(name)) + len(_size(value))
        if length <= room:
            kept[name] = value
            room -= length
    if len(kept) < len(fields):
        left_out = [name for name in fields if name not in kept]
        kept[TRUNCATED_KEY] = f"{len(left_out)} keys are left out for their size: {', '.join(left_out)}"[:500]
        logger.warning("the run's config is over %d bytes: %s", CONFIG_BYTES, kept[TRUNCATED_KEY])
    return kept


def plain(value: object, depth: int) -> Any:
    """`value` as msgpack and JSON can say it; numbers of no JSON are left to the event's own rule."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return int(value)
    if isinstance(value, str) or depth == 0:
        return cut(str(value) if isinstance(value, str) else f"{type(value)} nested deeper than {DEPTH}")
    return plain_collection(value, depth)


def plain_collection(value: object, depth: int) -> Any:
    """A mapping or sequence as plain data; whatever else it is, its text."""
    if (fields := _fields(value)) is not None:
        return {cut(str(name))[:200]: plain(item, depth - 1) for name, item in list(fields.items())[:ITEMS]}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | bytearray | memoryview):
        return [plain(item, depth - 1) for item in list(value)[:ITEMS]]
    return cut(str(value))


def cut(text: str) -> str:
    """Text that can be encoded and is not too long; where it was cut, it says so."""
    if len(text) > STRING_CHARS:
        logger.warning("a text of %d characters was cut to %d in the description of the run", len(text), STRING_CHARS)
        text = f"{text[:STRING_CHARS]}… [cut by pilothouse: {len(text)} characters]"
    return text.encode("utf-8", "replace").decode()


def labels(given: Mapping[str, object]) -> dict[str, str]:
    """Tags or links as text, at most 100 of them."""
    return {cut(str(name))[:200]: cut(str(value))[:LABEL_CHARS] for name, value in list(given.items())[:100]}


def _fields(value: object) -> Mapping[Any, Any] | None:
    """The named parts of whatever has named parts."""
    if isinstance(value, Mapping):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    if callable(dump := getattr(value, "model_dump", None)) and not isinstance(value, type):
        dumped = dump()
        return dumped if isinstance(dumped, Mapping) else None
    module = type(value).__module__
    return vars(value) if module == "argparse" or isinstance(value, _namespace()) else None


def _namespace() -> type:
    from types import SimpleNamespace

    return SimpleNamespace
