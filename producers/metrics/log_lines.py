"""The job's own log beside its metrics: a `logging` handler that keeps each line with its run, attempt, rank and step.

`Run.capture_logs` attaches it where the script says; `producers.beside` takes what it kept and tells it as `LogLines`.
It is bounded by level, lines and bytes a second, and length; what is over is counted, and told with the next lines. It
never raises, writes nothing, and takes no line of ours: neither of the logger `pilothouse` and the Kafka client's, nor
of our threads, so that telling lines makes no lines.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ...events.redaction import redacted_text
from ...events.telemetry import LogLevel
from ..plain import safe_text
from ..ranks.context import Identity

LINES_PER_SECOND, BYTES_PER_SECOND = 100.0, 65_536.0
BURST_SECONDS = 10.0
"""What was not used is saved up for so long: starts and failures say much at once."""

LINE_CHARS = 8_000
WAITING = 5_000
BATCH_LINES, BATCH_CHARS = 500, 100_000
OURS = ("pilothouse", "kafka")
OUR_THREADS = "pilothouse-"

_LEVELS: tuple[tuple[int, LogLevel], ...] = (
    (50, "CRITICAL"),
    (40, "ERROR"),
    (30, "WARNING"),
    (20, "INFO"),
    (0, "DEBUG"),
)


class Kept(NamedTuple):
    """A line as it was logged."""

    identity: Identity
    at: int
    step: int
    level: LogLevel
    logger: str
    text: str


class Batch(NamedTuple):
    """The fields of one `LogLines`, and whose it is."""

    identity: Identity
    fields: dict[str, Any]


class Allowance:
    """So much a second, saved up for `BURST_SECONDS`."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._most = per_second, per_second * BURST_SECONDS
        self._left, self._clock, self._then = self._most, clock, clock()

    def take(self, amount: float) -> bool:
        """Whether that much may pass now. What is larger than all that can be saved passes when all was saved."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._then) * self._per_second)
        self._then = now
        if self._left < min(amount, self._most):
            return False
        self._left -= amount
        return True


class LogCapture(logging.Handler):
    """Keeps lines until somebody takes them. `who` and `step` are asked at each line; `share` of the usual rates."""

    def __init__(
        self, level: int | str, who: Callable[[], Identity | None], step: Callable[[], int], share: float = 1.0
    ) -> None:
        super().__init__(level)
        self._who, self._step = who, step
        self._lines: deque[Kept] = deque()
        self._dropped: Counter[str] = Counter()
        self._allowed = Allowance(LINES_PER_SECOND * share)
        self._allowed_bytes = Allowance(BYTES_PER_SECOND * share)
        self._busy = threading.local()
        self._heard: Identity | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line. `logging` calls this with the handler's lock held."""
        if getattr(self._busy, "now", False):
            return
        self._busy.now = True  # a text may log while it is made
        try:
            if not _is_ours(record):
                self._keep(record)
            _as_without_us(self, record)
        except Exception:  # noqa: BLE001  # a `__str__` of anybody's must not reach the training loop
            self._dropped["unreadable"] += 1
        finally:
            self._busy.now = False

    def take(self) -> Iterator[Batch]:
        """What was kept since the last call, secrets redacted, and what was dropped."""
        lines: list[Kept] = []
        chars = 0
        while self._lines:
            line = self._lines.popleft()
            if lines and (line.identity != lines[0].identity or len(lines) == BATCH_LINES or chars > BATCH_CHARS):
                yield Batch(lines[0].identity, self._fields(lines))
                lines, chars = [], 0
            lines.append(line)
            chars += len(line.text)
        who = lines[0].identity if lines else self._heard
        if who is not None and (lines or self._dropped):
            yield Batch(who, self._fields(lines))

    def _keep(self, record: logging.LogRecord) -> None:
        who = self._who()
        if who is None:
            return  # a forked child, or a run that is over
        self._heard = who
        if not self._allowed.take(1):
            self._dropped["rate"] += 1
            return
        text = _text(record)
        if not self._allowed_bytes.take(len(text)):
            self._dropped["bytes"] += 1
        elif len(self._lines) >= WAITING:
            self._dropped["queue_full"] += 1
        else:
            level = next(name for least, name in _LEVELS if record.levelno >= least or least == 0)
            logger = safe_text(record.name)[:200] or "root"
            self._lines.append(Kept(who, int(record.created * 1e6), self._step(), level, logger, text))

    def _fields(self, lines: list[Kept]) -> dict[str, Any]:
        with self._held():
            dropped, self._dropped = dict(self._dropped), Counter()
        told = [
            {
                "at": line.at,
                "step": line.step,
                "level": line.level,
                "logger": line.logger,
                "text": redacted_text(line.text),
            }
            for line in lines
        ]
        return {"lines": told, "dropped": dropped}

    def _held(self) -> Any:
        return self.lock if self.lock is not None else threading.Lock()


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in OURS or (record.threadName or "").startswith(OUR_THREADS)


def _text(record: logging.LogRecord) -> str:
    """What the line says, and the error it brings, in UTF-8 and within bounds: the middle of a long one is cut, for the
    cause of an error stands at its end.
    """
    text = record.getMessage()
    if record.exc_info:
        text = f"{text[:LINE_CHARS]}\n{logging.Formatter().formatException(record.exc_info)}"
    if len(text) > LINE_CHARS:
        half = LINE_CHARS // 2
        text = f"{text[:half]}\n[… {len(text) - LINE_CHARS} characters cut by pilothouse …]\n{text[-half:]}"
    return text.encode("utf-8", "replace").decode()


def _as_without_us(handler: logging.Handler, record: logging.LogRecord) -> None:
    """Python prints warnings itself where nobody handles them. Our handler must not end that."""
    last = logging.lastResort
    if last is None or record.levelno < last.level:
        return
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None:
        if any(other is not handler for other in logger.handlers):
            return
        logger = logger.parent if logger.propagate else None
    last.handle(record)
