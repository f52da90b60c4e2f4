"""How a run ended, from how its script did: asked by `producers.run` when the script leaves it, or at exit."""

import time
import traceback
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from ..events.redaction import redacted_text
from ..events.telemetry import Outcome
from .plain import safe_text
from .voice import logger

ERROR_CHARS = 16_000


class Ending(NamedTuple):
    """The outcome, and the end of the error's text."""

    outcome: Outcome
    error: str = ""


def ending_of(error: BaseException | None, otherwise: Outcome) -> Ending:
    """What a script that ended by `error` did; `otherwise` where it ended without one."""
    match error:
        case None:
            return Ending(otherwise)
        case KeyboardInterrupt() | GeneratorExit():
            return Ending("stopped")
        case SystemExit():
            return Ending("crashed", f"exit status {safe_text(error.code)}") if error.code else Ending("stopped")
        case _:
            text = "".join(traceback.format_exception(error))
            return Ending("out_of_memory" if _is_out_of_memory(error) else "crashed", text)


def last_words(error: object) -> str:
    """As much of an error's text as a run may end with: its end, where the cause stands; without secrets, of which none
    is cut in half before it is seen.
    """
    return redacted_text(safe_text(error)[-4 * ERROR_CHARS :])[-ERROR_CHARS:]


class Closing(Protocol):
    """What a run closes at its end, as far as that goes."""

    def close(self, within: float) -> None: ...


def close_pilots(pilots: Iterable[Closing], deadline: float) -> None:
    """One after the other, until `deadline` (monotonic seconds)."""
    for pilot in pilots:
        try:
            pilot.close(max(0.0, deadline - time.monotonic()))
        except Exception:  # noqa: BLE001  # the run's telemetry must still go out
            logger.exception("closing the pilot failed; the run ends all the same")


def _is_out_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        error = error.__cause__
    return False
