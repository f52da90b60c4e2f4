"""What the SDK says to the people of a training: the logger `pilothouse`, whose words reach the script's own handlers.

Used by every part of `producers` instead of the logger itself. A handler or a filter is a stranger's code, and runs on
the thread that speaks: where it raises, the training loop would end, or the thread that sends. Then the words go to
standard error instead, and no further.
"""

import logging
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter


class Voice(_Adapter):
    """A logger none of whose calls raises."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        try:
            super().log(level, msg, *args, **{"stacklevel": 2, **kwargs})
        except Exception:  # noqa: BLE001  # of anybody's handler, filter or log record factory
            with suppress(Exception):  # standard error may be closed
                sys.stderr.write(f"pilothouse: {str(msg) % args if args else msg}\n")

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs


logger = Voice(logging.getLogger("pilothouse"))
