"""What a run says of itself at its start: its configuration, labels and versions as plain, bounded data.

Called by `producers.start`. What can only be a slip in the call is refused at once (`refuse_mistakes`). What
stands inside a configuration may be anything (a dict, a dataclass, argparse's Namespace, a pydantic model, OmegaConf);
people read it later, so `producers.plain` makes it text, cuts what is too long, and marks what cannot be read: all that
is said in one line of the log, and the run goes on. What looks like a secret is redacted (`events.redaction`).
"""

import math
import os
from collections.abc import Mapping
from typing import Any, Literal, TypedDict

import msgspec

from ...events.errors import UserMistake
from ...events.redaction import redacted, redacted_text
from ...settings import Settings
from ..bad_calls import caller
from ..plain import NAME_CHARS, Reading, shown
from ..voice import logger

CONFIG_BYTES = 65_536
LABELS = 97
"""Of the hundred that a run may have; its name, its host and the rule by which it is thinned are the other three."""

LABEL_CHARS = 1_900
LABELS_BYTES = 200_000
TRUNCATED_KEY = "pilothouse_truncated"
NOTES = 5
"""So many changes are named; the others are counted."""

_size = msgspec.msgpack.Encoder().encode


class Description(TypedDict, total=False):
    """What a script may say of its run besides the name: the keywords of `start_run`."""

    config: object
    tags: Mapping[str, object]
    links: Mapping[str, object]
    code_version: str
    dataset: str
    dataset_version: str
    model: str
    model_family: str
    cluster: str
    team: str
    cost_per_hour: float


KNOWN = frozenset(Description.__annotations__)
TEXTS: tuple[Literal["code_version", "dataset", "dataset_version", "model", "model_family", "cluster", "team"], ...] = (
    "code_version",
    "dataset",
    "dataset_version",
    "model",
    "model_family",
    "cluster",
    "team",
)
_LABELS = (Mapping | None, "a mapping of names to texts, such as {'team': 'vision'}")
_WANTED: Mapping[str, tuple[Any, str]] = {
    "name": (str, "a text"),
    "run_id": (str | None, "a text"),
    "settings": (Settings | None, "a pilothouse.settings.Settings; left out, they are read from the environment"),
    "sidecar": (str | os.PathLike | None, "the path of a file"),
    "tags": _LABELS,
    "links": _LABELS,
}


def refuse_mistakes(given: Mapping[str, object]) -> None:
    """Look at the arguments of one call of `start_run`; None says the same as leaving out.

    Raises:
        UserMistake: one is of a kind that it cannot be; which, and what to write instead.
    """
    if unknown := sorted(set(given) - KNOWN - set(_WANTED)):
        raise UserMistake(f"start_run does not know {', '.join(unknown)}; it takes {', '.join(sorted(KNOWN))}")
    for argument, (kind, wanted) in _WANTED.items():
        value = given.get(argument)
        if not isinstance(value, kind):
            raise UserMistake(f"start_run: {argument} must be {wanted}, got {shown(value)}")
    name = str(given["name"])
    if not name.strip() or name.startswith("-"):
        raise UserMistake(f"start_run: name is what people call the run by: not empty, and no '-' first; got {name!r}")
    if given.get("cost_per_hour") is not None:
        _cost(given["cost_per_hour"])


def _cost(given: Any) -> float:
    try:
        cost = float(given)
    except Exception:  # noqa: BLE001  # whatever it is, it is no number, and that is what its author must hear
        cost = math.nan
    if not 0 <= cost < math.inf:
        raise UserMistake(f"start_run: cost_per_hour must be a number from 0, got {shown(given)}")
    return cost


def described(description: Description) -> dict[str, Any]:
    """The fields of `RunStarted` that describe the run. What could not be told as it was given is said once."""
    reading = Reading()
    given = {name: value for name in TEXTS if (value := description.get(name)) is not None}
    texts = {name: redacted_text(reading.text(value, name)) for name, value in given.items()}
    fields: dict[str, Any] = {name: text for name, text in texts.items() if text}
    labels = {"tags": description.get("tags"), "links": description.get("links")}
    fields |= {name: _labels(given, name, reading) for name, given in labels.items() if given is not None}
    if (cost := description.get("cost_per_hour")) is not None:
        fields["cost_per_hour"] = _cost(cost)
    fields["config"] = _config(description.get("config"), reading)
    if notes := reading.notes:
        more = f"; and {len(notes) - NOTES} more" if len(notes) > NOTES else ""
        logger.warning("%s: start_run tells less than it was given: %s%s", caller(), "; ".join(notes[:NOTES]), more)
    return fields


def _config(config: object, reading: Reading) -> dict[str, Any]:
    """`config` as plain data of at most 64 KB; what was cut is marked in place."""
    if config is None:
        return {}
    whole = redacted(reading.plain(config, "config"))
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
        reading.notes.append(f"config is over {CONFIG_BYTES} bytes: {kept[TRUNCATED_KEY]}")
    return kept


def _labels(given: Mapping[Any, object], place: str, reading: Reading) -> dict[str, str]:
    """Tags or links as text; as many as one run may have."""
    labels = redacted(reading.labels(given, place, LABEL_CHARS))
    kept: dict[str, str] = {}
    room = LABELS_BYTES
    for name, text in labels.items():
        room -= len(_size(name)) + len(_size(text))
        if name and len(kept) < LABELS and room >= 0:
            kept[name] = text
    if len(kept) < len(labels):
        reading.notes.append(f"{place}: {len(labels) - len(kept)} are left out, for want of a name or of room")
    return kept


def name_label(name: str) -> str:
    """The run's name as a label can say it."""
    return redacted_text(Reading().text(name, "name"))[:NAME_CHARS]
