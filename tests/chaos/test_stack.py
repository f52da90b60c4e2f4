"""A whole stack under its supervisor, and a real job on it: the supervisor dies, then the broker, and all goes on.

The broker that keeps its log loses nothing. The embedded one loses what had not reached the archive: those steps are
counted in the row, and the run must have been told of a loss; what was decided of them cannot be replayed any more.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pilothouse.cli.brokers import free_port
from pilothouse.events.decisions import ConditionChanged
from pilothouse.events.union import AnyEvent
from pilothouse.settings import load_settings
from pilothouse.storage.connect import connect
from pilothouse.storage.history import decisions_in_order, read_log
from pilothouse.stream_processors.replay import prove
from pilothouse.tests.stack_fixture import RunningStack, running_stack, typed

from .governors import DEFAULT_POLICY
from .job import Job
from .ledger import Row, applied_twice, out_of_bounds, recorded

RUN = "on-a-stack"
WAIT = 480.0

pytestmark = pytest.mark.chaos_long


class Scene:
    """A stack that can be started again on the same directory and port, and the job on it."""

    def __init__(self, folder: Path, options: tuple[str, ...]) -> None:
        self.folder = folder
        policy = folder / "policy.yaml"
        policy.write_text(DEFAULT_POLICY)
        self._port = free_port()
        self._options = (*options, "--policy", str(policy), "--kafka-port", str(self._port), "--http-port", "0")
        self.job = Job(RUN, f"127.0.0.1:{self._port}", folder / "job", faults="nan_grad@grad/130", needs=2, least=500)
        self.stack: RunningStack

    @contextmanager
    def up(self) -> Iterator["Scene"]:
        with running_stack(self.folder / "stack", *self._options) as self.stack:
            yield self

    def until_steps(self, count: int) -> None:
        self.stack.until(lambda: self.job.ended() or self.job.step() >= count, f"the job is at step {count}", WAIT)

    def until_over(self) -> None:
        self.stack.until(self.job.ended, "the job has come to its end", WAIT)
        # A job that ends while no broker answers keeps what it has on its disk, for a person to send.
        self.stack.until(self._pushed, "what the job left on its disk is sent", WAIT)
        self.stack.until(lambda: self.stack.archived(RUN, "run_ended"), "its end is archived", WAIT)

    def _pushed(self) -> bool:
        more = {"PILOTHOUSE_KAFKA": self.job.kafka}
        return typed("spool", "push", data_dir=self.job.folder, more=more).returncode == 0

    def judged(self, scenario: str, broker: str) -> Row:
        client = connect(load_settings(self.stack.environ))
        log, decided = read_log(client, RUN), decisions_in_order(client, RUN)
        events: list[AnyEvent] = [*decided, *(record.event for record in log)]
        lost = self.job.lost(events)
        proof = prove(RUN, iter(log), decided)
        [[twice]] = client.query(
            "SELECT count() - uniqExact(run_id, event_id) FROM events", settings={"final": 0}
        ).result_rows
        keeps_log = broker != "the embedded broker"
        different = int(keeps_log and proof.difference is not None)
        row = Row(
            scenario, broker, 1, len(events), lost, twice + different, applied_twice(events), out_of_bounds(events)
        ).concluded()
        told = any(isinstance(one, ConditionChanged) and one.reason == "TelemetryLost" for one in decided)
        assert keeps_log or told or not lost, "a loss of which nobody was told"
        return row if keeps_log else replace(row, passed=replace(row, lost=0).is_clean)


@pytest.fixture(params=["embedded", "kafka"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    kafka = request.param == "kafka"
    made = Scene(tmp_path, ("--kafka-home", str(request.getfixturevalue("kafka_home"))) if kafka else ())
    yield made
    made.job.kill()


def supervisor_killed(scene: Scene, scenario: str, broker: str) -> Row:
    with scene.up():
        scene.job.start()
        scene.until_steps(100)
        scene.stack.process.kill()
        scene.stack.process.wait()
    with scene.up():
        scene.until_over()
        return scene.judged(scenario, broker)


def broker_killed(scene: Scene, scenario: str, broker: str) -> Row:
    with scene.up():
        scene.job.start()
        scene.until_steps(200)
        os.kill(scene.stack.pids["broker"], signal.SIGKILL)
        scene.stack.until_printed("is back after", timeout=WAIT)
        scene.until_over()
        return scene.judged(scenario, broker)


def governor_frozen(scene: Scene, scenario: str, broker: str) -> Row:
    """It is alive and does nothing: its supervisor ends it, and starts another."""
    with scene.up():
        scene.job.start()
        scene.until_steps(100)
        os.kill(scene.stack.pids["governor"], signal.SIGSTOP)
        scene.stack.until_printed("the governor is back after", timeout=WAIT)
        scene.until_over()
        return scene.judged(scenario, broker)


@pytest.mark.parametrize(
    "scenario, played",
    [
        ("supervisor SIGKILL", supervisor_killed),
        ("broker SIGKILL under its supervisor", broker_killed),
        ("governor SIGSTOP under its supervisor", governor_frozen),
    ],
    ids=["supervisor", "broker", "governor"],
)
def test_a_stack_comes_back_and_what_is_lost_is_nothing_or_told(
    scenario: str, played: Callable[[Scene, str, str], Row], scene: Scene, request: pytest.FixtureRequest
) -> None:
    broker = "Apache Kafka" if "kafka" in request.node.callspec.id else "the embedded broker"
    row = recorded(scenario, broker, lambda: played(scene, scenario, broker))
    assert row.passed, row
