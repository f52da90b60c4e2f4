"""The archive's memory closes the loop: what helped before is proposed, a person agrees, the trainer applies it.

Real records, a real ClickHouse, the real worker behind the log's port; only the broker is in memory.
"""

import asyncio
import json
from typing import Any

import pytest

from pilothouse.events.actions import SkipBatches
from pilothouse.events.commands import AdviceGiven
from pilothouse.events.decisions import InterventionIssued, InterventionProposed, InterventionVerified
from pilothouse.events.topics import CONTROL, TELEMETRY
from pilothouse.settings import Settings
from pilothouse.stream_processors.advisor import Advisor
from pilothouse.stream_processors.advisors import advisors_of
from pilothouse.stream_processors.log import Layout, Source
from pilothouse.tests.advised_run import POLICY, asked_run, policy, questions
from pilothouse.tests.archived_runs import RunArchive
from pilothouse.tests.endpoint_fixture import EndpointProcess
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.memory_log import MemoryLog, delivered

RUN = "asking"
HUMAN = "  approval: {by: human, timeout_seconds: 600}\n"
LADDER = POLICY.partition("  advise:\n")[0] + "  cooldown_steps: 5\n  verify: {window_steps: 10}\n"
SKIPS = LADDER.replace("{action: notify, message: nobody knew better}", "{action: skip_batches, count: 40}")
CUTS = LADDER.replace("{action: notify, message: nobody knew better}", "{action: scale_lr, factor: 0.5}")


@pytest.fixture(scope="module")
def archive(endpoint: EndpointProcess, tmp_path_factory: pytest.TempPathFactory) -> RunArchive:
    return RunArchive(endpoint, tmp_path_factory.mktemp("data"))


def answers(archive: RunArchive, run: GovernedRun) -> list[AdviceGiven]:
    """What the worker says to every question of a run."""
    settings = Settings(clickhouse_url=archive.endpoint.clickhouse_url)
    log = MemoryLog()
    asked = questions(run)

    async def scenario() -> None:
        advisor = Advisor(log, advisors_of(settings), Layout(4, 4, 4))
        await advisor.assign({Source(CONTROL.name, 0): None})
        running = asyncio.ensure_future(advisor.run())
        await advisor.take([delivered(one, offset, topic=CONTROL.name) for offset, one in enumerate(asked)])
        while len(log.sent) < len(asked):  # noqa: ASYNC110  # the log in memory says nothing of what was sent
            await asyncio.sleep(0.01)
        running.cancel()

    asyncio.run(asyncio.wait_for(scenario(), 60))
    return [event for event in log.events(TELEMETRY.name) if isinstance(event, AdviceGiven)]


def rows(archive: RunArchive, *words: str) -> list[dict[str, Any]]:
    answer = archive.cli(*words, "--json")
    assert answer.returncode == 0, answer.stderr
    return [json.loads(line) for line in answer.stdout.splitlines()]


def test_what_helped_before_is_proposed_agreed_to_and_applied(archive: RunArchive) -> None:
    first = asked_run(policy(more=HUMAN), run_id="first-of-its-kind")
    [nothing] = answers(archive, first)
    assert (nothing.action, nothing.why[:37]) == (None, "no evidence: no intervention was ever")

    for name, text in {"east": SKIPS, "west": SKIPS, "cut": CUTS}.items():
        archive.keep(asked_run(text, run_id=name, steps=140))
    run = asked_run(policy(more=HUMAN), run_id=RUN)
    [given] = answers(archive, run)
    assert given.action == SkipBatches(count=40)
    assert (given.evidence["tries"], given.evidence["recovered"]) == (2.0, 2.0)
    assert set(given.runs) == {"east", "west"}
    assert {record["action"]["action"]: record["recovered"] for record in json.loads(given.answer)} == {
        "skip_batches": 2,
        "scale_lr": 0,
    }

    run.fold(given)
    [proposed] = run.of(InterventionProposed)
    assert proposed.needs_approval
    run.order("approve", intervention_id=proposed.intervention_id)
    assert run.of(InterventionIssued)[0].who == "ada"
    run.obey()
    run.train(30)
    assert [verified.outcome for verified in run.of(InterventionVerified)] == ["recovered"]
    archive.keep(run)


def test_a_person_reads_what_was_asked_and_answered_and_replay_needs_no_advisor(archive: RunArchive) -> None:
    [row] = rows(archive, "advice", RUN)
    assert (row["advisor"], row["answered"]["action"]["count"], row["question"]["rule"]) == ("memory", 40, "unstable")
    assert [judged["outcome"] for judged in row["judged"]] == ["proposed"]
    table = archive.cli("advice", RUN).stdout
    assert "skip_batches count=40" in table
    assert "helped in 2 of 2 incidents" in table
    told = archive.cli("events", RUN).stdout
    assert "memory is asked by rule unstable: Stable" in told
    assert "memory proposes skip_batches count=40: Stable" in told
    [proof] = rows(archive, "replay", RUN)
    assert (proof["same"], proof["same_decisions"]) == (True, proof["decisions"])
    assert archive.cli("advice", "east").stdout == "no advisor was asked\n"


def test_an_archive_that_is_away_is_an_answer_and_not_the_end(archive: RunArchive) -> None:
    away = RunArchive.__new__(RunArchive)
    away.endpoint = EndpointProcess(archive.folder, archive.endpoint.process, port=9)
    [given] = answers(away, asked_run(run_id="alone"))
    assert given.action is None
    assert "nothing answers at http://127.0.0.1:9" in given.error
