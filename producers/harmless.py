"""Calls of a training script that never raise: the last guard around what a run offers.

Used by `producers.run`. What can be wrong with a call is looked at and said where it is made; here is caught what
nobody thought of, and the arguments that no call has.
"""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from .plain import why

logger = logging.getLogger("pilothouse")

Call = TypeVar("Call", bound=Callable[..., None])


def harmless(call: Call) -> Call:
    """A method of a run that returns nothing: an error in it is counted, said once, and goes no further."""
    name = call.__name__

    @wraps(call)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            call(self, *args, **kwargs)
        except Exception as error:  # whatever nobody thought of; the training must not end by it
            bad_calls = self._outbox.bad_calls
            trace = error.__traceback__
            if isinstance(error, TypeError) and trace is not None and trace.tb_next is None:
                bad_calls.add(name, f"run.{name}: {why(error)}")
            elif bad_calls.first(f"bug in {name}"):
                logger.exception("run.%s failed; training goes on, but this is a bug of Pilothouse", name)

    return guarded  # type: ignore[return-value]  # it takes and returns what the method does
