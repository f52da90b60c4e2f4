"""The advisor's shell: every question is answered once, in time or not at all, and nothing is acknowledged before."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from pilothouse.events.commands import AdviceGiven
from pilothouse.events.decisions import AdviceRequested
from pilothouse.events.errors import BrokerUnavailable
from pilothouse.events.topics import CONTROL, TELEMETRY, partition_of
from pilothouse.settings import Settings
from pilothouse.stream_processors import advisor as shell
from pilothouse.stream_processors.advisor import Advisor
from pilothouse.stream_processors.advisor_opinion import Advise, Opinion
from pilothouse.stream_processors.advisors import advisors_of
from pilothouse.stream_processors.log import Delivered, Layout, Outgoing, Source
from pilothouse.tests.advised_run import asked_run, questions
from pilothouse.tests.memory_log import MemoryLog, delivered

CONTROL_0 = Source(CONTROL.name, 0)
LAYOUT = Layout(4, 4, 4)


@pytest.fixture(scope="module")
def question() -> AdviceRequested:
    return questions(asked_run())[0]


def numbered(question: AdviceRequested, number: int, **changes: object) -> AdviceRequested:
    return question.model_copy(update={"request_id": f"question-{number}"} | changes)


def asked(*questions: AdviceRequested, sent_at: float = 0.0) -> list[Delivered]:
    return [
        delivered(one, offset, topic=CONTROL.name)._replace(sent_at=sent_at) for offset, one in enumerate(questions)
    ]


async def knows(_: AdviceRequested) -> Opinion:
    return Opinion(why="as always")


async def hangs(_: AdviceRequested) -> Opinion:
    await asyncio.Event().wait()
    raise AssertionError


async def breaks(_: AdviceRequested) -> Opinion:
    raise RuntimeError("no such luck")


class Log(MemoryLog):
    """Says when so much was acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = asyncio.Condition()

    def acknowledge(self, positions: object) -> None:
        super().acknowledge(positions)  # type: ignore[arg-type]  # what the shell gives it
        asyncio.ensure_future(self._tell())  # noqa: RUF006  # it ends with the loop

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, offset: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.acknowledged.get(CONTROL_0, 0) >= offset)

    def answers(self) -> list[AdviceGiven]:
        found = self.events(TELEMETRY.name)
        assert all(isinstance(answer, AdviceGiven) for answer in found)
        return found  # type: ignore[return-value]  # just looked


def drive(advise: Advise, scenario: Callable[[Advisor, Log], Awaitable[None]], committed: int | None = None) -> Log:
    """An advisor that runs, on a log in memory."""
    logs: list[Log] = []

    async def run() -> None:
        logs.append(log := Log())
        advisor = Advisor(log, {"memory": advise}, LAYOUT)
        await advisor.assign({CONTROL_0: committed})
        running = asyncio.ensure_future(advisor.run())
        await scenario(advisor, log)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(asyncio.wait_for(run(), 20))
    return logs[0]


def test_a_question_is_answered_on_the_runs_partition_and_acknowledged_behind_the_answer(
    question: AdviceRequested,
) -> None:
    async def scenario(advisor: Advisor, log: Log) -> None:
        await advisor.take(asked(question))
        await log.until(1)

    log = drive(knows, scenario)
    [answer] = log.answers()
    assert (answer.request_id, answer.advisor, answer.why) == (question.request_id, "memory", "as always")
    assert (answer.run_id, log.sent[0].partition) == (question.run_id, partition_of(question.run_id, 4))
    assert [act for act, _ in log.acts][-2:] == ["publish", "acknowledge"]


def test_the_answer_to_one_question_is_one_fact_however_often_it_is_delivered(question: AdviceRequested) -> None:
    async def scenario(advisor: Advisor, log: Log) -> None:
        await advisor.take(asked(question))
        await log.until(1)
        await advisor.assign({CONTROL_0: 0})  # killed before it was acknowledged, say
        await advisor.take(asked(question))
        await log.until(1)
        await advisor.take(asked(question))

    ids = {answer.event_id for answer in drive(knows, scenario).answers()}
    assert ids == {f"advisor-{question.request_id}:1"}


def test_an_advisor_that_hangs_holds_nobody_up_and_acknowledges_nothing(question: AdviceRequested) -> None:
    async def advise(request: AdviceRequested) -> Opinion:
        return await (hangs if request.request_id == "question-0" else knows)(request)

    async def scenario(advisor: Advisor, log: Log) -> None:
        await advisor.take(asked(*(numbered(question, number) for number in range(3))))
        while len(log.sent) < 2:  # noqa: ASYNC110  # the log in memory says nothing of what was sent
            await asyncio.sleep(0)
        assert log.acknowledged.get(CONTROL_0, 0) == 0

    assert {answer.request_id for answer in drive(advise, scenario).answers()} == {"question-1", "question-2"}


def test_a_stop_lets_an_answer_arrive_and_leaves_what_is_thought_about_to_the_next_advisor(
    question: AdviceRequested,
) -> None:
    """Cancelled on its way, an answer would be paid for twice."""

    class SlowLog(Log):
        def __init__(self) -> None:
            super().__init__()
            self.sending, self.may_end = asyncio.Event(), asyncio.Event()

        async def publish(self, records: Sequence[Outgoing]) -> list[int]:
            self.sending.set()
            await self.may_end.wait()
            return await super().publish(records)

    thought = asyncio.Event()

    async def advise(request: AdviceRequested) -> Opinion:
        if request.request_id == "question-1":
            await thought.wait()
        return await knows(request)

    async def scenario() -> None:
        log = SlowLog()
        advisor = Advisor(log, {"memory": advise}, LAYOUT)
        await advisor.assign({CONTROL_0: None})
        running = asyncio.ensure_future(advisor.run())
        await advisor.take(asked(*(numbered(question, number) for number in range(2))))
        await log.sending.wait()
        finishing = asyncio.ensure_future(advisor.finish())
        await asyncio.sleep(0)
        assert not finishing.done()
        log.may_end.set()
        await finishing
        thought.set()
        for _ in range(10):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert [answer.request_id for answer in log.answers()] == ["question-0"]
        assert log.acknowledged == {CONTROL_0: 1}

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_an_advisor_is_given_up_before_the_governor_gives_up(
    question: AdviceRequested, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "SHARE", 0.02)

    async def scenario(advisor: Advisor, log: Log) -> None:
        await advisor.take(asked(numbered(question, 0, within_seconds=1)))
        await log.until(1)

    [answer] = drive(hangs, scenario).answers()
    assert (answer.action, answer.error) == (None, "it gave no answer within 0.0 s")
    assert answer.latency_s < 1.0


@pytest.mark.parametrize(
    "advise, changes, said",
    [
        (breaks, {}, "RuntimeError: no such luck"),
        (knows, {"advisor": "oracle"}, "there is no advisor 'oracle' here; there are memory"),
    ],
)
def test_whatever_goes_wrong_is_an_answer_without_an_action(
    question: AdviceRequested, advise: Advise, changes: dict[str, str], said: str
) -> None:
    async def scenario(advisor: Advisor, log: Log) -> None:
        await advisor.take(asked(numbered(question, 0, **changes)))
        await log.until(1)

    [answer] = drive(advise, scenario).answers()
    assert (answer.action, answer.error) == (None, said)


def test_a_question_that_nobody_waits_for_any_more_is_passed_over(question: AdviceRequested) -> None:
    async def scenario(advisor: Advisor, log: Log) -> None:
        await advisor.take(asked(question, sent_at=1.0))  # seconds since 1970
        await log.until(1)

    assert drive(knows, scenario).answers() == []


def test_other_decisions_junk_and_holes_are_read_over(question: AdviceRequested) -> None:
    other = asked_run().decisions[0]
    bad = asked(question)[0]._replace(offset=12, body=b"junk")

    async def scenario(advisor: Advisor, log: Log) -> None:
        await advisor.take([delivered(other, 3, topic=CONTROL.name), bad])
        await log.until(13)
        assert advisor.records == 2

    assert drive(knows, scenario, committed=3).answers() == []


def test_a_broker_that_takes_no_answer_ends_the_worker(
    question: AdviceRequested, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "DELIVERY_SECONDS", 0.01)

    class Deaf(MemoryLog):
        async def publish(self, records: object) -> list[int]:
            await asyncio.Event().wait()
            raise AssertionError(records)

    async def run() -> None:
        advisor = Advisor(Deaf(), {"memory": knows}, LAYOUT)
        await advisor.assign({CONTROL_0: None})
        await advisor.take(asked(question))
        await advisor.run()

    with pytest.raises(BrokerUnavailable, match="an answer was not delivered"):
        asyncio.run(asyncio.wait_for(run(), 20))


def test_texts_are_cut_and_halves_of_characters_do_no_harm(question: AdviceRequested) -> None:
    async def chatty(_: AdviceRequested) -> Opinion:
        return Opinion(answer="x" * 100_000, why="half \ud800 a character", error="e" * 9_000)

    async def scenario(advisor: Advisor, log: Log) -> None:
        await advisor.take(asked(question))
        await log.until(1)

    [answer] = drive(chatty, scenario).answers()
    assert answer.answer.endswith("… (100000 characters)")
    assert (answer.why, len(answer.answer) < 16_384, len(answer.error) < 2_100) == ("half ? a character", True, True)


def test_without_a_model_the_advisor_llm_says_at_once_what_to_set(question: AdviceRequested) -> None:
    async def asked() -> Opinion:
        return await advisors_of(Settings())["llm"](question)

    opinion = asyncio.run(asked())
    assert opinion.action is None
    assert "PILOTHOUSE_LLM_MODEL" in opinion.error
