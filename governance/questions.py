"""What a run's state remembers of its advisors: open questions, what each was asked and cost, who had nothing to say.

Kept in `interventions.Ledger`; changed by `advice` alone.
"""

import msgspec

MAX_OPEN = 4
"""Questions of a run that may be open at once: its state is bounded, and so is what it asks for."""


class Question(msgspec.Struct):
    """A question that is open."""

    request_id: str
    rule: str
    advisor: str
    since_tick: int
    deadline_ticks: int


class Spent(msgspec.Struct):
    """What one advisor was asked in this run, and what it cost. `unpriced`: an answer's price was not known."""

    calls: int = 0
    cost_usd: float = 0.0
    unpriced: bool = False


class Advice(msgspec.Struct):
    """What a run's state remembers of its advisors. `exhausted` are the rules whose advisors had nothing to propose, so
    that the ladder's turn has come.
    """

    open: list[Question] = []
    spent: dict[str, Spent] = {}
    exhausted: list[str] = []

    def find(self, request_id: str) -> Question | None:
        return next((known for known in self.open if known.request_id == request_id), None)

    def of(self, advisor: str) -> Spent:
        return self.spent.setdefault(advisor, Spent())

    def exhaust(self, rule: str) -> None:
        if rule not in self.exhausted:
            self.exhausted.append(rule)

    def renew(self, rule: str) -> None:
        """The rule has acted, or holds anew: its advisors may be asked again."""
        if rule in self.exhausted:
            self.exhausted.remove(rule)
