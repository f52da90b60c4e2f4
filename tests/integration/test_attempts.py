"""Attempts as real processes begin them: restarted in another size, going back by themselves, launched twice at once.

What they publish is read back from the broker and folded as the governor does.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest

import pilothouse
from pilothouse.cli.brokers import LocalBroker, free_port
from pilothouse.events.codec import decode
from pilothouse.events.decisions import ConditionChanged
from pilothouse.events.envelope import LogPlace, TrainerFact
from pilothouse.events.telemetry import RunEnded, RunStarted, StepBatch
from pilothouse.events.union import AnyDecision, AnyTelemetry, Record
from pilothouse.producers.delivery.spool import read_folder
from pilothouse.producers.ranks.context import Identity
from pilothouse.settings import Settings
from pilothouse.stream_processors.admission import Verdict
from pilothouse.stream_processors.fold import fold
from pilothouse.stream_processors.run_state import RunState, new_state
from pilothouse.tests.broker_fixture import PARTITIONS
from pilothouse.tests.log_reader import read_run
from pilothouse.tests.training_script import Script, steps_of

RANK = """
import math, sys
import pilothouse
def log(steps, loss=1.0):
    for step in steps:
        run.log(step, loss=loss, grad_norm=1.0)
    print("logged", flush=True)
    sys.stdin.readline()
run = pilothouse.start_run("attempts")
print(*run.identity, flush=True)
"""


class Rank:
    """One process that does what it is told, line by line."""

    def __init__(self, script: Script, steps: str, rank: int = 0, world: int = 1, **environ: str) -> None:
        place = {"RANK": str(rank), "WORLD_SIZE": str(world)} if world > 1 else {}
        self.process = script.start(RANK + steps, **place, **environ)
        _, self.attempt_id, self.attempt, *_ = self.heard().split()

    def heard(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        return line

    def logged(self) -> None:
        """Wait until the steps it was to log are logged."""
        assert self.heard() == "logged\n"

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def ended(self) -> None:
        _, err = self.process.communicate("\n", timeout=60)
        assert self.process.returncode == 0, err

    def killed(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            self.process.communicate()


Launch = Callable[..., Rank]


@pytest.fixture
def script(embedded_broker: LocalBroker, tmp_path: Path) -> Script:
    return Script(embedded_broker.address, tmp_path)


@pytest.fixture
def launch(script: Script) -> Iterator[Launch]:
    """Starts ranks of one job, which are gone at the end of the test."""
    ranks: list[Rank] = []
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}

    def start(steps: str, rank: int = 0, world: int = 1, **environ: str) -> Rank:
        ranks.append(Rank(script, steps, rank, world, **together, **environ))
        return ranks[-1]

    yield start
    for rank in ranks:
        rank.killed()


def facts_until(script: Script, ends: int) -> list[TrainerFact]:
    """What all processes of the run published, in the order of the log, up to so many ends."""
    left = [None] * ends

    def last(fact: TrainerFact) -> bool:
        if isinstance(fact, RunEnded):
            left.pop()
        return not left

    return read_run(script.address, script.run_id, PARTITIONS, until=last)


def wait_for_step(script: Script, step: int, attempts: set[str], ranks: int = 1) -> None:
    """Until so many ranks of these attempts have published the step."""
    left = set(range(ranks))

    def last(fact: TrainerFact) -> bool:
        if fact.attempt_id in attempts and step in steps_of([fact]):
            left.discard(fact.rank)
        return not left

    read_run(script.address, script.run_id, PARTITIONS, until=last)


def judged(facts: Sequence[TrainerFact]) -> tuple[RunState, list[AnyDecision]]:
    """What the governor makes of it."""
    state, decisions = new_state(facts[0].run_id), list[AnyDecision]()
    for offset, fact in enumerate(facts):
        folded = fold(state, Record(LogPlace(0, 0, offset), cast("AnyTelemetry", fact)))
        assert (folded.fault, folded.verdict) == ("", Verdict.FOLDED)
        state = folded.state
        decisions += folded.decisions
    return state, decisions


def reasons(decisions: Sequence[AnyDecision]) -> set[str]:
    return {decision.reason for decision in decisions if isinstance(decision, ConditionChanged)}


def test_an_elastic_restart_in_another_size_is_the_next_attempt_and_is_judged(script: Script, launch: Launch) -> None:
    first = [launch("log(range(30))", rank, 3, TORCHELASTIC_RESTART_COUNT="0") for rank in range(3)]
    for rank in first:
        rank.logged()
    wait_for_step(script, 29, {rank.attempt_id for rank in first}, ranks=3)
    for rank in first:
        rank.killed()
    second = [launch("log(range(20, 60))", rank, 2, TORCHELASTIC_RESTART_COUNT="1") for rank in (0, 1)]
    assert {rank.attempt for rank in second} == {"2"}
    assert len({rank.attempt_id for rank in (*first, *second)}) == 2
    for rank in second:
        rank.logged()
        rank.ended()
    facts = facts_until(script, 2)
    state, decisions = judged([fact for fact in facts if not isinstance(fact, RunEnded)])
    assert state.current is not None
    assert (state.current.attempt, state.current.world_size, state.current.judged) == (2, 2, 59)
    started = [fact for fact in facts if isinstance(fact, RunStarted)]
    assert [(fact.attempt, fact.reason, fact.world_size) for fact in started] == [(1, "start", 3), (2, "restart", 2)]
    assert "StepsWentBack" not in reasons(decisions)


BACK = """
log(range(40))
run.begin_attempt("rollback", first_step=20)
log(range(20, 50))
"""


def test_ranks_that_go_back_by_themselves_and_say_so_are_judged_without_a_break(script: Script, launch: Launch) -> None:
    ranks = [launch(BACK, rank, 2) for rank in (0, 1)]
    for rank in ranks:
        rank.logged()
        rank.go_on()
    for rank in reversed(ranks):
        rank.logged()
        rank.ended()
    facts = facts_until(script, 2)
    assert len({fact.attempt_id for fact in facts}) == 2, "both ranks derive the same attempt"
    state, decisions = judged([fact for fact in facts if not isinstance(fact, RunEnded)])
    assert state.current is not None
    assert (state.current.attempt, state.current.first_step, state.current.judged) == (2, 20, 49)
    assert "StepsWentBack" not in reasons(decisions)


def test_of_two_launches_of_one_run_id_at_once_the_newer_is_judged_and_both_are_kept(
    script: Script, launch: Launch
) -> None:
    old = launch("log(range(20))\nlog(range(20, 40), math.nan)")
    old.logged()
    wait_for_step(script, 19, {old.attempt_id})
    new = launch("log(range(20))\nlog(range(20, 50))")
    assert new.attempt_id != old.attempt_id
    new.logged()
    wait_for_step(script, 19, {new.attempt_id})
    for rank in (old, new):
        rank.go_on()
        rank.logged()
        rank.ended()
    facts = facts_until(script, 2)
    by_attempt = {
        rank.attempt_id: steps_of([fact for fact in facts if fact.attempt_id == rank.attempt_id]) for rank in (old, new)
    }
    assert by_attempt == {old.attempt_id: list(range(40)), new.attempt_id: list(range(50))}
    assert len({fact.writer_id for fact in facts}) == 2
    newer = [fact for fact in facts if not (isinstance(fact, RunEnded) and fact.attempt_id == new.attempt_id)]
    state, decisions = judged(newer)
    assert state.current is not None
    assert (state.current.attempt_id, state.current.judged) == (new.attempt_id, 49)
    assert not any("NonFinite" in reason or "NaN" in reason for reason in reasons(decisions)), reasons(decisions)
    assert any(isinstance(fact, StepBatch) for fact in newer)


@pytest.fixture(scope="module")
def elastic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `tests/elastic_ranks.py` left: two launches by agents of torchrun, of which the second follows a death."""
    folder = tmp_path_factory.mktemp("elastic")
    program = [sys.executable, "-m", "pilothouse.tests.elastic_ranks", str(folder), str(free_port())]
    with subprocess.Popen(program, start_new_session=True, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, err = process.communicate(timeout=90)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, err[-4_000:]
    return folder


def who(elastic: Path, launch: int, rank: int, name: str) -> Identity:
    return Identity(*json.loads((elastic / f"{launch}-{rank}.json").read_text())[name])


EARLY_AND_LATE = pytest.mark.parametrize("name", ["early", "late"])
"""Begun before there is a process group, and in one."""


@EARLY_AND_LATE
def test_ranks_that_torchrun_started_again_are_in_one_attempt_and_not_in_the_dead_launchs(
    elastic: Path, name: str
) -> None:
    """The store is the agents' and still has every word of the dead; rank 1 asked before rank 0 had begun."""
    restarts = [json.loads((elastic / f"2-{rank}.json").read_text())["restarts"] for rank in range(2)]
    assert restarts == ["0", "1"], "each agent counts for itself"
    (dead, _), again = ([who(elastic, launch, rank, name) for rank in range(2)] for launch in (1, 2))
    assert [(one.rank, one.world_size) for one in again] == [(0, 2), (1, 2)]
    assert len({one[:3] for one in again}) == 1
    assert again[0].run_id == dead.run_id == f"{name}-elastic"
    assert again[0].attempt_id != dead.attempt_id


@EARLY_AND_LATE
def test_an_attempt_counts_on_from_the_launch_before_whatever_that_had_begun_by_itself(
    elastic: Path, name: str
) -> None:
    """In the first launch the late run went back once, on all ranks."""
    writers = (elastic / "spool" / f"{name}-elastic").iterdir()
    told = [decode(record.headers, record.body) for folder in writers for record in read_folder(folder)]
    started = sorted((fact for fact in told if isinstance(fact, RunStarted)), key=lambda fact: fact.attempt)
    wanted = ["start", "rollback", "restart"] if name == "late" else ["start", "restart"]
    assert [(fact.attempt, fact.reason) for fact in started] == list(enumerate(wanted, 1))
    parents = [fact.parent_attempt_id for fact in started]
    assert parents == [None, *(fact.attempt_id for fact in started[:-1])]
    assert who(elastic, 2, 1, name).attempt == len(wanted)


def test_two_launches_of_one_name_are_two_runs(tmp_path: Path) -> None:
    settings = Settings(kafka=f"127.0.0.1:{free_port()}", data_dir=tmp_path, close_seconds=0.1)
    runs = [pilothouse.start_run("the same", settings=settings) for _ in range(2)]
    for run in runs:
        run.close()
    one, two = (run.identity for run in runs)
    assert one.run_id != two.run_id
    assert one.attempt_id != two.attempt_id
