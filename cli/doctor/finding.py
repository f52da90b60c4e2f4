"""What the doctor finds, one thing at a time, and how a check that is itself refused becomes a finding."""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from ...events.errors import PilothouseError
from ...settings import Settings

Status = Literal["well", "warning", "fault"]


class Finding(NamedTuple):
    """`fault`: something does not work, or will not for long. `warning`: it works, and somebody should look. `do` is
    what to do about it, as one would type or set it.
    """

    check: str
    status: Status
    found: str
    do: str = ""


class Check(NamedTuple):
    """One question to a stack. It yields what it finds, also that all is well, and may raise our own errors."""

    name: str
    look: Callable[[Settings], Iterable[Finding]]


def findings(check: Check, settings: Settings) -> Iterator[Finding]:
    """What a check finds; what refuses it is a fault, in the words of that refusal."""
    try:
        yield from check.look(settings)
    except PilothouseError as error:
        yield Finding(check.name, "fault", str(error))
    except OSError as error:
        yield Finding(check.name, "fault", f"this cannot be looked at: {error}")
