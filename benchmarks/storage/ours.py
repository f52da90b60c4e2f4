"""Our archive, as it runs on a laptop: decoded events through `Archive.insert` into the embedded engine's endpoint, a
process of its own, and questions through the same queries as the command line's.
"""

import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time

import psutil

from pilothouse.settings import Settings
from pilothouse.storage import queries
from pilothouse.storage.archive import Archive, Archived
from pilothouse.storage.connect import connect
from pilothouse.storage.endpoint_config import FULL_USER
from pilothouse.storage.upgrade import bring_up_to_date

from .generate import LONG_RUN, Log, Run, records
from .questions import PIXELS, QUESTIONS, Stopwatch

RECORDS = 10_000
"""In one insert: what an archiver takes at once that has fallen behind."""
READY_SECONDS = 60
_ENDPOINT = """
import sys
from pathlib import Path
from pilothouse.storage.endpoint import EndpointConfig, run
folder, token = sys.argv[1:]
run(EndpointConfig(Path(folder), token, token + "-reader", max_body_bytes=2**30), lambda port: print(port, flush=True))
"""


class Ours:
    """One archive in a folder."""

    name = "pilothouse"
    note = "embedded ClickHouse behind its endpoint"

    def __init__(self, folder: Path) -> None:
        token = secrets.token_hex(8)
        command = [sys.executable, "-c", _ENDPOINT, str(folder), token]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        port = int(self._process.stdout.readline())
        self._folder = folder
        settings = Settings(
            clickhouse_url=f"http://{FULL_USER}:{token}@{socket.gethostbyname('localhost')}:{port}/pilothouse"
        )
        self._client = connect(settings)
        bring_up_to_date(self._client, settings)

    def keep(self, runs: Iterator[Run]) -> Stopwatch:
        archive, log, took, before = Archive(self._client), Log(), Stopwatch(), self._endpoint_seconds()
        waiting: list[Archived] = []
        for run in runs:
            for record in records(run, log):
                waiting.append(record)
                if len(waiting) >= RECORDS:
                    _insert(archive, waiting, took)
                    waiting = []
        _insert(archive, waiting, took)
        self._settle()
        # Its merges go on between the inserts.
        took.cpu += self._endpoint_seconds() - before
        return took

    def cpu_seconds(self) -> float:
        return process_time() + self._endpoint_seconds()

    def _endpoint_seconds(self) -> float:
        return sum(psutil.Process(self._process.pid).cpu_times()[:2])

    def bytes_on_disk(self) -> int:
        sql = "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = 'pilothouse'"
        return int(self._client.query(sql).result_rows[0][0])

    def questions(self) -> dict[str, Callable[[], object]]:
        client = self._client

        def sql(text: str) -> Callable[[], object]:
            return lambda: queries.run_sql(client, text)

        return dict(
            zip(
                QUESTIONS,
                (
                    lambda: queries.list_runs(client, 100),
                    sql("SELECT * FROM run_overview WHERE run_id = 'run-00004'"),
                    lambda: queries.series_of(client, LONG_RUN, "loss", rank=0, points=PIXELS),
                    sql("SELECT phase, sum(seconds), count() FROM time_in_phase GROUP BY phase"),
                    sql("SELECT * FROM intervention_efficacy"),
                ),
                strict=True,
            )
        )

    def close(self) -> None:
        self._client.close()
        self._process.terminate()
        self._process.wait()

    def _settle(self) -> None:
        """Until the merges that inserts set off have ended: what is on disk is what stays there."""
        busy = "SELECT count() FROM system.merges"
        quiet = 0
        while quiet < 3:
            quiet = 0 if self._client.query(busy).result_rows[0][0] else quiet + 1
            time.sleep(0.5)


def _insert(archive: Archive, waiting: list[Archived], took: Stopwatch) -> None:
    with took.running():
        assert archive.insert(waiting) == ()
