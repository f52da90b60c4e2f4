"""What a process of ours says on stderr: one line per event, as text for people or as JSON for a collector.

`process` sets it up for the workers, `cli.workers` for the archive's endpoint. A line about a run, a decision or a
record has their ids as fields of its own (`IDS`), given by `extra` where it is logged.
"""

import json
import logging
import sys
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Literal

from ..events.decisions import RunAssessed
from ..events.plain_text import printable
from ..events.union import AnyDecision

Form = Literal["text", "json"]

IDS = ("run_id", "attempt_id", "decision_id", "intervention_id", "step", "topic", "partition", "offset")
DAM_SECONDS = 2.0
LIBRARIES = ("faust", "mode", "aiokafka", "asyncio", "clickhouse_connect", "urllib3", "httpx", "httpx2", "openai")

decisions = logging.getLogger("pilothouse.decisions")


def log_to_stderr(role: str, slot: str, form: Form, *, quiet: Collection[str] = ()) -> None:
    """From now on; of the libraries, and of the modules in `quiet`, only what is wrong, and that not in a flood."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(AsJson(role, slot) if form == "json" else OneLine(role))
    handler.addFilter(_Dam())
    logging.root.handlers = [handler]
    logging.root.setLevel(logging.INFO)
    for library in (*LIBRARIES, *quiet):
        logging.getLogger(library).setLevel(logging.ERROR)


def tell_decision(decision: AnyDecision) -> None:
    """A line for each decision but the assessments, of which there is one a second and run."""
    if isinstance(decision, RunAssessed):
        return
    told = {name: found for name in IDS if (found := getattr(decision, name, None)) is not None}
    reason = getattr(decision, "reason", "")
    decisions.info("run %s step %s: %s %s", decision.run_id, decision.step, decision.kind, reason, extra=told)


class OneLine(logging.Formatter):
    """Faust logs tables of many lines, tracebacks have many lines: one record is one line here."""

    def __init__(self, role: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {role}: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return " | ".join(printable(line) for line in super().format(record).splitlines() if line.strip())


class AsJson(logging.Formatter):
    """One object a line: `at` (ISO 8601, UTC), `level`, `process`, `slot`, `pid`, `logger`, `message`, the ids that the
    record has, and `exception` with its traceback.
    """

    def __init__(self, role: str, slot: str) -> None:
        super().__init__()
        self._process = {"process": role, "slot": slot}

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            **self._process,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        told |= {name: value for name in IDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


class _Dam(logging.Filter):
    """With its broker gone a client says so a hundred times a second: of each module, one line in `DAM_SECONDS`."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(LIBRARIES):
            return True
        passes = record.created - self._said.get(record.name, 0.0) >= DAM_SECONDS
        if passes:
            self._said[record.name] = record.created
        return passes
