"""KILL QUERY, answered from what the endpoint itself runs: the ids that the embedded engine gives out, no client knows.

`storage.query_handler` hands in what is running, does the killing, and sends the report. The condition of a KILL is the
user's own SQL, so it is asked through `storage.session` like any other statement of that user, and a reader's is judged
like any other of the reader.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..events.errors import QueryRefused
from .engine import Engine, escape
from .http_protocol import NOT_IMPLEMENTED, Answer, Asked
from .session import Rights, run
from .statement import decode_sql

ASYNC, SYNC, TEST = "ASYNC", "SYNC", "TEST"

_STATUS = {ASYNC: "waiting", SYNC: "finished", TEST: "unknown_status"}
_LONGEST_SECONDS = 5
_KILL = re.compile(rf"KILL QUERY WHERE (.*) ({SYNC}|{ASYNC}|{TEST})(?: FORMAT (\w+))?", re.DOTALL)
_RUNNING = """
SELECT r.1 AS query_id, r.1 AS initial_query_id, r.2 AS user, r.2 AS initial_user, r.3 AS query, r.4 AS elapsed
FROM (
    SELECT arrayJoin(JSONExtract({pilothouse_running:String}, 'Array(Tuple(String, String, String, Float64))')) AS r
)
"""
_CHOSEN = f"SELECT query_id, user, query, elapsed FROM ({_RUNNING}) WHERE (%s)"
_REPORT = f"SELECT '%s' AS kill_status, query_id, user, query FROM ({_RUNNING})"


class Running(NamedTuple):
    """A statement that has not ended, `elapsed` in seconds. The columns that a KILL's condition may name."""

    query_id: str
    user: str
    query: str
    elapsed: float


@dataclass(frozen=True)
class Kill:
    """What a KILL QUERY means: whom it hits, and whether it waits for their end (SYNC) or only names them (TEST)."""

    chosen: tuple[Running, ...]
    mode: str
    format: str


@dataclass(frozen=True)
class Asker:
    """Who asks for a KILL, and by what request."""

    engine: Engine
    asked: Asked
    rights: Rights

    def find(self, running: Iterable[Running]) -> Kill:
        """Read a KILL QUERY and choose among what runs; nobody but the full user sees what others run.

        Raises:
            QueryRefused: it cannot be read, names a column that is not `Running`'s, or takes too long to decide.
        """
        condition, mode, output = self._read()
        own = [each for each in running if self.rights.reader is None or each.user == self.rights.user]
        rows = self._ask(_CHOSEN % condition, own, "JSONCompactEachRow").body.splitlines()
        return Kill(tuple(Running(*json.loads(row)) for row in rows), mode, output or self.asked.default_format)

    def report(self, kill: Kill) -> Answer:
        """What a server answers to a KILL QUERY: each statement it hit, and how that stands."""
        return self._ask(_REPORT % _STATUS[kill.mode], kill.chosen, kill.format)

    def _read(self) -> tuple[str, str, str | None]:
        formatting = replace(
            self.asked,
            sql=b"SELECT formatQuerySingleLine({pilothouse_sql:String})",
            params={"pilothouse_sql": escape(decode_sql(self.asked.sql))},
            default_format="TSVRaw",
        )
        read = _KILL.fullmatch(run(self.engine, formatting, self.rights).body.decode().strip())
        if read is None:
            message = "Only KILL QUERY WHERE … is served here, without ON CLUSTER and SETTINGS. (NOT_IMPLEMENTED)"
            raise QueryRefused(message, NOT_IMPLEMENTED)
        return read[1], read[2], read[3]

    def _ask(self, sql: str, rows: Iterable[Running], output: str) -> Answer:
        asked = replace(
            self.asked,
            sql=sql.encode(),
            params={**self.asked.params, "pilothouse_running": escape(json.dumps(list(rows)))},
            settings={**self.asked.settings, "max_execution_time": str(_LONGEST_SECONDS)},
            default_format=output,
        )
        return run(self.engine, asked, self.rights)
