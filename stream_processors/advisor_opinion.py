"""What an advisor concludes, before the shell makes a record of the log of it. `advisor` asks, `advisor_memory` and
`advisor_llm` answer.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from ..events.actions import Action
from ..events.decisions import AdviceRequested

LONGEST = 16_000
"""Of a text in an event, in characters; what is more is cut, and says so."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """The fields of `AdviceGiven` that are the advisor's own. Without an action it proposes nothing, for `error` or
    `why`.
    """

    action: Action | None = None
    why: str = ""
    error: str = ""
    input: str = ""
    answer: str = ""
    retried_answer: str = ""
    retried_error: str = ""
    evidence: dict[str, float] = field(default_factory=dict)
    runs: tuple[str, ...] = ()
    model: str = ""
    temperature: float | None = None
    prompt_sha256: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float | None = 0.0


Advise = Callable[[AdviceRequested], Awaitable[Opinion]]
"""Answers one question. It may take long and raise anything: the shell gives it up in time, and says why."""


def bounded(text: str, longest: int = LONGEST) -> str:
    """A text as an event can hold it: not longer, and without halves of characters."""
    text = text.encode(errors="replace").decode()
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text)} characters)"
