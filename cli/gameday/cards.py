"""What may break in an exercise, what counts as having seen it, and how an answer is scored. Pure.

`exercise` deals one card, breaks what it says, and writes down what people answer and do; `score` judges that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Harm = Literal[
    "nothing", "spoilt data", "learning rate", "rank stands still", "governor stands still", "archive killed", "junk"
]
SEEN_POINTS, DONE_POINTS, CARE_POINTS = 50, 40, 10
PROMPT_SECONDS, LATE_SECONDS = 60.0, 300.0
"""Full points up to the first, a third of them from the second on."""
WRONG_ANSWER = 10


@dataclass(frozen=True, slots=True)
class Card:
    """`words`: any of them in an answer names it. `deeds`: orders that are right, by their verb; empty where the stack
    helps itself, and nothing need be done. `look`: where it shows, told afterwards.
    """

    harm: Harm
    words: tuple[str, ...]
    deeds: tuple[str, ...]
    look: str


CARDS = (
    Card("nothing", ("nothing", "healthy", "all well"), (), "every condition stays True: `pilothouse show RUN`"),
    Card(
        "spoilt data",
        ("data", "batch", "loss"),
        ("pause", "stop", "intervene"),
        "an incident on Stable, from the step at which the data turned: `pilothouse show RUN`, `report RUN`",
    ),
    Card(
        "learning rate",
        ("learning rate", "lr", "rate", "diverge"),
        ("pause", "stop", "intervene"),
        "the phase Diverged, and an `lr` that nobody ordered: `pilothouse show RUN`, `sql`",
    ),
    Card(
        "rank stands still",
        ("rank", "hang", "stuck", "stall"),
        ("stop", "continued"),
        "no step comes and the heartbeats of one rank fall silent: `pilothouse show RUN`",
    ),
    Card(
        "governor stands still",
        ("governor", "no decisions", "control"),
        (),
        "assessments end while steps arrive: `pilothouse status`, what `up` says",
    ),
    Card("archive killed", ("archive", "clickhouse", "endpoint"), (), "queries fail for a moment; what `up` says"),
    Card("junk", ("junk", "dead letter", "malformed", "deadletter"), (), "`pilothouse deadletter list`"),
)


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, and how many seconds after the break it came (negative: before it)."""

    after: float
    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """An order on the record, or `continued` for what was put right by hand."""

    after: float
    verb: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """Of `most` points. The times are seconds after the break; None: never."""

    points: int
    most: int
    seen_after: float | None
    done_after: float | None
    wrong_answers: int
    needless_orders: int


def named(card: Card, text: str) -> bool:
    """Whether an answer names what broke."""
    words = f" {' '.join(text.lower().split())} "
    return any(f" {word}" in words for word in card.words)


def score(card: Card, answers: Sequence[Said], orders: Sequence[Done]) -> Score:
    """How well people did: seen soon, the right order soon, and no other."""
    right = next((said.after for said in answers if said.after >= 0 and named(card, said.text)), None)
    wrong = sum(not named(card, said.text) or said.after < 0 for said in answers)
    deed = next((done.after for done in orders if done.after >= 0 and done.verb in card.deeds), None)
    needless = sum(done.after < 0 or done.verb not in card.deeds for done in orders)
    points = max(0, _timely(SEEN_POINTS, right) - WRONG_ANSWER * wrong)
    points += _timely(DONE_POINTS, deed) if card.deeds else 0
    points += CARE_POINTS if right is not None and not needless else 0
    most = SEEN_POINTS + CARE_POINTS + (DONE_POINTS if card.deeds else 0)
    return Score(points, most, right, deed, wrong, needless)


def _timely(points: int, after: float | None) -> int:
    if after is None:
        return 0
    late = min(1.0, max(0.0, (after - PROMPT_SECONDS) / (LATE_SECONDS - PROMPT_SECONDS)))
    return round(points * (1 - late * 2 / 3))
