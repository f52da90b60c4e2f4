"""Who says something: asked by `Run.report_fact` and by the commands that order or report. Loads nothing of ours."""

import getpass
import os
import socket


def person() -> str:
    """The user and the machine, as the system knows them."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
