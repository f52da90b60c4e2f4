"""Whether a fact can be told, and what of it: asked on the thread that tells it, where the line that made the mistake
is still known.

Called by `producers.run` for every fact that is no row; they are few. What the event's own rules refuse never reaches
`delivery.outbox`, whose thread could only say that something was wrong somewhere.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from ...events.codec import first_fault
from ...events.commands import PipelineReported
from ...events.redaction import redacted_text
from ...events.telemetry import AttemptReason, InterventionReceipt, Outcome, RunEnded, Stage
from ..bad_calls import BadCalls
from ..plain import shown, why
from .batching import Draft, Told, encoded

STAGES: tuple[Stage, ...] = ("prepare", "compile", "warmup", "train", "evaluate", "checkpoint", "paused", "stop")
OUTCOMES: tuple[Outcome, ...] = ("completed", "stopped", "crashed", "out_of_memory", "preempted", "diverged")
REASONS: tuple[AttemptReason, ...] = ("start", "restart", "rollback")
Word = TypeVar("Word", Stage, Outcome, AttemptReason)
FREE_TEXTS: Mapping[type, tuple[str, ...]] = {
    RunEnded: ("error",),
    InterventionReceipt: ("reason",),
    PipelineReported: ("who", "subject", "note"),
}
"""What people or errors say in their own words. A sample of what the model says is told as it is."""

_WRITER = "0" * 32


class Trimmed(NamedTuple):
    """A fact without what its rules refuse, and what that was: one line each."""

    told: Told
    faults: tuple[str, ...]


def known_word(words: tuple[Word, ...], said: object, what: str, bad_calls: BadCalls) -> Word | None:
    """The one of `words` that was said; None where it is none of them, which is a bad call."""
    word = next((word for word in words if word == said), None) if isinstance(said, str) else None
    if word is None:
        bad_calls.add(what, f"the {what} is one of {', '.join(words)}; got {shown(said)}")
    return word


def refusal(told: Told) -> str | None:
    """Why no record can carry this fact, on one line; None where one can."""
    try:
        encoded(Draft(told=_all_there(told)), _WRITER, 1)
    except Exception as error:  # noqa: BLE001  # whatever a wrong fact runs into, its teller must hear it and go on
        return fault(error)
    return None


def trimmed(told: Told) -> Trimmed:
    """For facts that must not be lost for one field: those fields are left out that can be."""
    faults: list[str] = []
    for _ in told.fields:
        try:
            encoded(Draft(told=told), _WRITER, 1)
        except ValidationError as error:
            refused = error.errors(include_url=False, include_input=False)[0]["loc"][0]
            faults.append(f"{told.fact.__name__} goes without {fault(error)}")
            told = told._replace(fields={name: value for name, value in told.fields.items() if name != refused})
        except Exception:  # noqa: BLE001  # `refusal` says it
            break
        else:
            break
    return Trimmed(told, tuple(faults))


def without_secrets(told: Told) -> Told:
    """The fact, with its free texts redacted."""
    said = {name: told.fields.get(name) for name in FREE_TEXTS.get(told.fact, ())}
    clean = {name: redacted_text(text) for name, text in said.items() if isinstance(text, str)}
    return told._replace(fields={**told.fields, **clean}) if clean else told


def fault(error: Exception) -> str:
    """What was wrong with a fact, on one line."""
    return first_fault(error) if isinstance(error, ValidationError) else why(error)


def _all_there(told: Told) -> Told:
    """The fact as if its numbers had come from their devices: nobody waits for them here."""
    if not told.deferred:
        return told
    numbers = {name: value if isinstance(value, float | int) else 0.0 for name, value in told.fields["metrics"].items()}
    return told._replace(fields={**told.fields, "metrics": numbers}, deferred=())
