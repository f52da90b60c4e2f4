"""Calls of a training script that never raise: the last guard around what a run offers.

Used by `producers.run`. What can be wrong with a call is looked at and said where it is made; here is caught what
nobody thought of, and the arguments that no call has.
"""

import contextlib
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar

from .plain import why
from .voice import logger

Call = TypeVar("Call", bound=Callable[..., Any])


def harmless_or(otherwise: Callable[[Any], object]) -> Callable[[Call], Call]:
    """A method of a run: an error in it is counted, said once, and goes no further. It returns `otherwise` of the run
    then.
    """

    def harmless_call(call: Call) -> Call:
        name = call.__name__

        @wraps(call)
        def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return call(self, *args, **kwargs)
            except Exception as error:  # noqa: BLE001  # whatever nobody thought of; the training must not end by it
                bad_calls = self._outbox.bad_calls
                if isinstance(error, TypeError) and not _had_begun(error.__traceback__):
                    bad_calls.add(name, f"run.{name}: {why(error)}")
                elif bad_calls.first(f"bug in {name}"):
                    logger.exception("run.%s failed; training goes on, but this is a bug of Pilothouse", name)
            return otherwise(self)

        return guarded  # type: ignore[return-value]  # it takes and returns what the method does

    return harmless_call


harmless = harmless_or(lambda _run: None)


def _had_begun(trace: TracebackType | None) -> bool:
    """Whether the call had got as far as its own body."""
    while trace is not None and (trace := trace.tb_next) is not None:
        if trace.tb_frame.f_code.co_filename != contextlib.__file__:
            return True
    return False
