"""What is scored: the series of one training, and what is known to have gone wrong in it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

Column = Sequence[float | None]
"""One value a row; None where the row does not have it. NaN and infinities are values."""


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that went wrong, from row `first` to row `last`, both included.

    `must` is whether a detector that watches this kind of thing has to say so: what is ambiguous, or no failure of the
    training, must not, and an alarm then is only no false one if `may`. Where the onset is not known to the row, an
    alarm up to `early` rows before it is about it.
    """

    kind: str
    first: int
    last: int
    must: bool = True
    may: bool = True
    early: int = 0


@dataclass(frozen=True, slots=True)
class Series:
    """One training: a row for each step that was logged.

    `ranks` has the metrics of each rank by name. `seconds` is when each row ended. `group` joins series that are alike
    (runs of one repository), which a fair split keeps together. `changes` are the rows from which on a new recipe was
    announced, `restarts` those at which the training was started again, `evaluations` validation losses by row.
    `pauses` are rows after which an announced evaluation takes until the next. After the last row come `silence`
    seconds without any.
    """

    name: str
    family: str
    group: str
    steps: list[int]
    seconds: list[float]
    ranks: list[dict[str, Column]]
    incidents: tuple[Incident, ...] = ()
    changes: tuple[int, ...] = ()
    restarts: tuple[int, ...] = ()
    pauses: tuple[int, ...] = ()
    evaluations: dict[int, float] = field(default_factory=dict)
    silence: float = 0.0

    def __len__(self) -> int:
        return len(self.steps)

    def column(self, name: str) -> Column:
        """Rank 0's, all None where it has none."""
        return self.ranks[0].get(name) or [None] * len(self)


@dataclass(frozen=True, slots=True)
class Alarm:
    """A detector's word that something is wrong, from row `first` to row `last`: `what` (ours: the condition) and `why`
    (its reason), where it says so.
    """

    first: int
    last: int
    what: str = ""
    why: str = ""
