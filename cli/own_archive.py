"""The archive for commands that bring or take whole runs, whether a stack runs or not.

Where one runs, or the settings name a ClickHouse, that is it. Where none does, the archive of the data directory is
opened for as long as the command takes: by an endpoint of its own, so that nothing but how it was started is different.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..events.errors import StackNotRunning
from ..settings import Settings, load_settings
from .reading import Archive
from .stack_file import Stack, access_of, told_by_stack

READY_SECONDS = 120.0
STOP_SECONDS = 20.0
LOOK_EVERY = 0.02


@contextmanager
def whole_archive(data_dir: Path | None, *, make: bool) -> Iterator[Archive]:
    """An archive with full rights and this version's tables. `make`: where the data directory has none yet.

    Raises:
        StackNotRunning: what the settings name does not answer, or there is no archive to open.
    """
    settings = load_settings(os.environ, data_dir=data_dir)
    if told_by_stack(settings.data_dir) or is_elsewhere(settings):
        from ..storage.connect import connect

        yield Archive(connect(settings), settings)
        return
    if not make:
        _refuse_none(settings)
    with _opened(settings) as archive:
        yield archive


@contextmanager
def archive_as_it_is(settings: Settings) -> Iterator[Archive]:
    """The data directory's own archive with the tables it has, whether a stack runs on it or not.

    Raises:
        StackNotRunning: there is none, or the stack's does not answer.
    """
    if told_by_stack(settings.data_dir):
        from ..storage.connect import connect

        yield Archive(connect(settings), settings)
        return
    _refuse_none(settings)
    with bare_archive(settings) as archive:
        yield archive


def _refuse_none(settings: Settings) -> None:
    if not (settings.data_dir / "archive").is_dir():
        raise StackNotRunning(f"no stack runs on {settings.data_dir}, and it holds no archive; see --data-dir")


def is_elsewhere(settings: Settings) -> bool:
    """Whether the archive is one that somebody named, and not the data directory's own."""
    own = (Settings().clickhouse_url, told_by_stack(settings.data_dir).get("clickhouse_url"))
    return settings.clickhouse_url not in own


@contextmanager
def _opened(settings: Settings) -> Iterator[Archive]:
    from ..storage.upgrade import bring_up_to_date

    with bare_archive(settings) as archive:
        bring_up_to_date(archive.client, settings)
        yield archive


@contextmanager
def bare_archive(settings: Settings) -> Iterator[Archive]:
    """That of a data directory on which no stack runs: perhaps without tables, or with old ones."""
    from ..storage.connect import connect
    from .brokers import free_port
    from .extras import LOCAL, require
    from .parts import ArchivePart, start_failure

    require(LOCAL, "the archive of a data directory on which no stack runs")
    data_dir = settings.data_dir.absolute()
    data_dir.mkdir(parents=True, exist_ok=True)
    port = free_port()
    stack = Stack(data_dir, kafka="none", http_port=port, access=access_of(data_dir), embedded=True, partitions=1)
    part = ArchivePart(data_dir, port)
    part.start(stack, time.monotonic())
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not part.is_ready():
            if not part.alive or time.monotonic() > deadline:
                raise start_failure(part, part.child)
            time.sleep(LOOK_EVERY)
        client = connect(settings.model_copy(update={"clickhouse_url": stack.clickhouse_url}))
        yield Archive(client, settings)
        client.close()
    finally:
        part.ask_to_stop()
        part.stop(STOP_SECONDS)
