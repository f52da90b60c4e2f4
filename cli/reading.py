"""Opening the archive to read it, and finding the run a person means. Used by the commands that look.

Where the archive is this machine's own stack, its reading user is used; elsewhere, the user of the settings.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..events.errors import UnknownRun
from ..settings import Settings, load_settings
from .stack_file import told_by_stack

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


class Archive(NamedTuple):
    """An open archive, and the settings it was found by."""

    client: "Client"
    settings: Settings


def open_archive(data_dir: Path | None, *, writing: bool = False) -> Archive:
    """The archive, to be read; as the user of the settings, who may write, only where that is asked for.

    Raises:
        SettingsInvalid: a setting is wrong.
        StackNotRunning: nothing answers.
    """
    from ..storage.connect import connect

    settings = load_settings(os.environ, data_dir=data_dir)
    if writing:
        return Archive(connect(settings), settings)
    told = told_by_stack(settings.data_dir)
    own = told.get("clickhouse_url") == settings.clickhouse_url and "reader_url" in told
    if own:
        return Archive(connect(settings.model_copy(update={"clickhouse_url": told["reader_url"]})), settings)
    client = connect(settings)
    # Whoever this user is: what a person types to look must not write.
    client.set_client_setting("readonly", 1)
    return Archive(client, settings)


def full_name(client: "Client", run: str) -> str:
    """The run of this name, or the only one whose name begins so.

    Raises:
        UnknownRun: there is none, or more than one.
    """
    from ..storage.queries import known_run, runs_like

    found = runs_like(client, run) if run else []
    if run in found or len(found) == 1:
        return run if run in found else found[0]
    if found:
        raise UnknownRun(f"{run!r} may be {', '.join(found[:5])}{', …' if len(found) > 5 else ''}: write more of it")
    known_run(client, run)  # says what there is
    return run
