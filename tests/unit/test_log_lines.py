"""The job's own log lines: stamped, bounded, never in the way, and never about themselves."""

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pilothouse.events.redaction import MARK
from pilothouse.events.telemetry import LogLines
from pilothouse.producers.delivery.batching import Told
from pilothouse.producers.delivery.telling import refusal
from pilothouse.producers.metrics.log_lines import BATCH_LINES, LINE_CHARS, Allowance, LogCapture
from pilothouse.producers.ranks.context import Identity
from pilothouse.tests.outbox_bench import WHO


class Job:
    """A logger of the script's, captured."""

    def __init__(self, share: float = 1.0) -> None:
        self.identity: Identity | None = WHO
        self.step = 7
        self.log = logging.getLogger("test-job")
        self.log.propagate = False
        self.log.setLevel(logging.DEBUG)
        self.capture = LogCapture(logging.INFO, lambda: self.identity, lambda: self.step, share)
        self.log.addHandler(self.capture)

    def told(self) -> list[dict[str, Any]]:
        batches = list(self.capture.take())
        assert all(refusal(Told(batch.identity, 1, LogLines, batch.fields)) is None for batch in batches)
        return [batch.fields for batch in batches]

    def lines(self) -> list[dict[str, Any]]:
        return [line for fields in self.told() for line in fields["lines"]]

    def dropped(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for fields in self.told():
            for reason, count in fields["dropped"].items():
                counts[reason] = counts.get(reason, 0) + count
        return counts


@pytest.fixture
def job() -> Iterator[Job]:
    job = Job()
    yield job
    job.log.handlers.clear()


def test_a_line_has_its_step_level_logger_and_text(job: Job) -> None:
    job.log.debug("too fine")
    job.log.warning("loss is %.1f", 2.5)
    job.step = 8
    job.log.log(35, "between the levels")
    one, two = job.lines()
    assert (one["step"], one["level"], one["logger"], one["text"]) == (7, "WARNING", "test-job", "loss is 2.5")
    assert (two["step"], two["level"]) == (8, "WARNING")
    assert one["at"] > 10**15


def test_lines_of_two_attempts_are_told_apart(job: Job) -> None:
    job.log.info("one")
    job.identity = WHO._replace(attempt_id="second", attempt=2)
    job.log.info("two")
    batches = list(job.capture.take())
    assert [(batch.identity.attempt, batch.fields["lines"][0]["text"]) for batch in batches] == [(1, "one"), (2, "two")]


def test_an_error_brings_its_cause_and_a_long_text_keeps_both_ends(job: Job) -> None:
    try:
        raise ValueError("the loss is sad")
    except ValueError:
        job.log.exception("b" * 20_000)
    [line] = job.lines()
    assert line["text"].startswith("bbb")
    assert line["text"].endswith("ValueError: the loss is sad")
    assert len(line["text"]) < LINE_CHARS + 100


class Silent:
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Chatty:
    """Logs while it is made a text."""

    def __str__(self) -> str:
        logging.getLogger("test-job").warning("inside")
        return "chatty"


def emitted(job: Job, text: str, *arguments: object) -> None:
    """To our handler alone: pytest's own would fail on what these lines hold."""
    job.capture.handle(logging.LogRecord("test-job", logging.INFO, __file__, 1, text, arguments, None))


def test_a_line_that_cannot_be_read_is_counted_and_raises_nothing(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    emitted(job, "%s", Silent())
    emitted(job, "%d", "no number")
    emitted(job, "half a pair: \ud800")
    assert job.dropped() == {"unreadable": 2}
    assert capsys.readouterr().err == ""


def test_a_text_that_logs_while_it_is_made_is_one_line(job: Job) -> None:
    emitted(job, "%s", Chatty())
    assert [line["text"] for line in job.lines()] == ["chatty"]


@pytest.mark.parametrize("name", ["pilothouse", "pilothouse.producers.steering.pilot", "kafka.client"])
def test_our_own_lines_are_not_told(job: Job, name: str) -> None:
    ours = logging.getLogger(name)
    ours.addHandler(job.capture)
    try:
        ours.error("about telling lines")
    finally:
        ours.removeHandler(job.capture)
    assert job.told() == []


def test_lines_of_our_threads_are_not_told(job: Job) -> None:
    thread = threading.Thread(target=job.log.error, args=("from a library",), name="pilothouse-outbox")
    thread.start()
    thread.join()
    assert job.told() == []


def test_a_flood_is_bounded_and_what_is_over_is_counted(job: Job) -> None:
    for number in range(5_000):
        job.log.info("line %d", number)
    batches = job.told()
    kept = sum(len(fields["lines"]) for fields in batches)
    dropped = sum(fields["dropped"].get("rate", 0) for fields in batches)
    assert 1_000 <= kept < 2_000
    assert kept + dropped == 5_000
    assert all(len(fields["lines"]) <= BATCH_LINES for fields in batches)


def test_bytes_are_bounded_too(job: Job) -> None:
    for _ in range(200):
        job.log.info("x" * LINE_CHARS)
    batches = job.told()
    assert sum(len(line["text"]) for fields in batches for line in fields["lines"]) < 1_000_000
    assert sum(fields["dropped"].get("bytes", 0) for fields in batches) > 50


def test_ranks_of_a_large_job_share_what_one_may_say() -> None:
    job = Job(share=1 / 100)
    try:
        for number in range(50):
            job.log.info("line %d", number)
        assert len(job.lines()) == 10
    finally:
        job.log.handlers.clear()


def test_an_allowance_grows_with_time_and_not_without_end() -> None:
    now = [0.0]
    allowed = Allowance(2.0, lambda: now[0])
    assert [allowed.take(20), allowed.take(1)] == [True, False]
    now[0] = 1.0
    assert [allowed.take(2), allowed.take(1)] == [True, False]
    now[0] = 1e9
    assert [allowed.take(1_000), allowed.take(1)] == [True, False]  # more than can be saved: once, and then it is owed


def test_a_forked_child_or_a_run_that_is_over_keeps_nothing(job: Job) -> None:
    job.identity = None
    job.log.error("from the child")
    assert job.told() == []


def test_secrets_are_redacted(job: Job) -> None:
    job.log.info("logged in with api_key=%s", "Zq9secretZq9")
    assert job.lines()[0]["text"] == f"logged in with api_key={MARK}"


UNHANDLED = """
import logging
from pilothouse.producers.ranks.context import Identity
from pilothouse.producers.metrics.log_lines import LogCapture
capture = LogCapture(logging.INFO, lambda: Identity("r", "a", 1, 0, 1), lambda: 0)
logging.getLogger().addHandler(capture)
logging.getLogger("job").warning("nobody handles it")
logging.getLogger("pilothouse").warning("of ours")
logging.getLogger("job").info("below what Python prints")
logging.getLogger().addHandler(logging.NullHandler())
logging.getLogger("job").warning("somebody handles it")
"""


def test_what_python_prints_where_nobody_handles_a_line_is_printed_still() -> None:
    answer = subprocess.run([sys.executable, "-c", UNHANDLED], capture_output=True, text=True, check=True)
    assert answer.stderr == "nobody handles it\nof ours\n"
