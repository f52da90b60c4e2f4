"""Our Kafka clients keep silent, and only ours: a script's own clients say what they always did.

Called where `delivery.connection`, `steering.control` and `login` make a client. The library writes some ten lines a
second while a broker is away; what of it concerns a training we say ourselves, once. Its loggers are everybody's, so
what ours say is known by the thread that says it: one of Pilothouse's, or the client's own, which the library names by
its id.
"""

import logging
import warnings

LIBRARY = "kafka"
CLIENT_ID = "pilothouse"
_OURS = ("pilothouse-", f"kafka-io-{CLIENT_ID}")


def allow_import() -> None:
    """Where a script makes errors of warnings (`python -W error`), the library must come in all the same: it reads its
    message schemas by calls that Python 3.11 and 3.12 deprecate.
    """
    warnings.filterwarnings("ignore", "(open|read)_text is deprecated", DeprecationWarning, rf"({LIBRARY}|importlib)\.")


def quiet_clients() -> None:
    """From now on nothing of ours comes through the loggers that the library has by now. Once or often."""
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] == LIBRARY:
            logging.getLogger(name).addFilter(_is_not_ours)


def _is_not_ours(record: logging.LogRecord) -> bool:
    return not str(record.threadName).startswith(_OURS)
