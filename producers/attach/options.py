"""What `pilothouse run` tells the Pythons that it starts, in one variable of their environment."""

import json
from dataclasses import asdict, dataclass

from ...events.actions import ActionKind
from ...events.errors import UserMistake

KEY = "PILOTHOUSE_ATTACH"
STEERED_BY: dict[str, tuple[ActionKind, ...]] = {
    "lr": ("scale_lr",),
    "clip": ("set_clip",),
    "weight_decay": ("set_weight_decay",),
    "pause": ("pause", "resume"),
}
"""By the word after `--steer`. The rest needs a loop that takes part."""


@dataclass(frozen=True, slots=True)
class Options:
    """`root` is the process that becomes the script's, `launch` a word that all its descendants share."""

    name: str = ""
    run_id: str = ""
    steer: tuple[ActionKind, ...] = ()
    norms: bool = True
    root: int = 0
    launch: str = ""

    def text(self) -> str:
        return json.dumps(asdict(self))


def read_options(text: str) -> Options:
    told = json.loads(text)
    return Options(**(told | {"steer": tuple(told.get("steer", ()))}))


def steered(words: str) -> tuple[ActionKind, ...]:
    """The actions behind `lr,clip`.

    Raises:
        UserMistake: a word is none of ours.
    """
    said = [word.strip() for word in words.split(",") if word.strip()]
    if unknown := [word for word in said if word not in STEERED_BY]:
        raise UserMistake(f"--steer takes {', '.join(STEERED_BY)}, with commas between them; got {', '.join(unknown)}")
    return tuple(dict.fromkeys(kind for word in said for kind in STEERED_BY[word]))
