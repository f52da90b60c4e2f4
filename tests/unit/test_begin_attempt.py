"""A script that goes back by itself says so, on every rank in the same words, and they agree without a word."""

from pathlib import Path
from typing import Any

import pytest

from pilothouse.events.telemetry import RunStarted, StepBatch
from pilothouse.tests.outbox_bench import WHO, MemoryLog, open_run


def test_ranks_that_say_the_same_are_in_the_same_attempt(tmp_path: Path) -> None:
    attempts = []
    for rank in range(2):
        with open_run(tmp_path / str(rank), MemoryLog()) as run:
            run.identity = WHO._replace(rank=rank, world_size=2)
            attempts.append(
                [run.begin_attempt(reason, first_step=5)[:3] for reason in ("rollback", "restart", "rollback")]
            )
    assert attempts[0] == attempts[1]
    assert len({attempt_id for _, attempt_id, _ in attempts[0]} | {WHO.attempt_id}) == 4
    assert [ordinal for *_, ordinal in attempts[0]] == [2, 3, 4]


@pytest.mark.parametrize(
    "words", [("back", 5), (None, 5), ("rollback", -1), ("rollback", "five"), ("rollback", None), ("rollback", 1.5)]
)
def test_a_wrong_word_changes_nothing_and_raises_nothing(words: tuple[Any, Any], tmp_path: Path) -> None:
    log = MemoryLog()
    with open_run(tmp_path, log) as run:
        assert run.begin_attempt(*words) == WHO
        run.log(6, loss=1.0)
    facts = log.facts()
    assert sum(isinstance(fact, RunStarted) for fact in facts) == 1
    assert {fact.attempt_id for fact in facts if isinstance(fact, StepBatch)} == {WHO.attempt_id}
