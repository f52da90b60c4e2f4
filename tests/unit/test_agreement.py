"""The words of the agreement, and what it says when nobody can be asked."""

import threading

import pytest

from pilothouse.producers.ranks.agreement import Agreement, Proposal, Verdict, read_proposal, read_verdict
from pilothouse.producers.ranks.ballots import COMMIT, BallotsLost, LocalBallots, StoreBallots, find_ballots
from pilothouse.producers.ranks.pace import StepPace
from pilothouse.producers.ranks.transaction import all_or_none


class DumbBallots(LocalBallots):
    """Registers that go silent after the proposal was heard."""

    silent = False

    def value(self, key: str) -> str | None:
        return None if self.silent else super().value(key)

    def agree(self, key: str) -> None:  # noqa: ARG002  # the yes is lost with everything else
        self.silent = True

    def settle(self, key: str, value: str, within: float) -> str:  # noqa: ARG002  # nobody reads it
        raise BallotsLost(f"no answer about {key} within {within:g} s")


@pytest.mark.parametrize("verdict", [Verdict("commit"), Verdict("refused", "rank 2: no: really"), Verdict("late", "x")])
def test_a_verdict_reads_back_as_it_was_written(verdict: Verdict) -> None:
    assert read_verdict(verdict.word()) == verdict


@pytest.mark.parametrize("word", ["commit: yes", "Commit", "", "lost: x", "committed"])
def test_only_the_exact_word_commits(word: str) -> None:
    assert not read_verdict(word).commit


def test_a_proposal_reads_back_as_it_was_written() -> None:
    proposal = Proposal(17, '{"a": "ä"}', final=False)
    assert read_proposal(proposal.word()) == proposal


def test_one_process_agrees_with_itself_at_the_step_it_named() -> None:
    agreement = Agreement(LocalBallots())
    agreement.propose(Proposal(8, "x"))
    assert not agreement.idle
    assert [agreement.advance(step, lambda _: None) for step in (5, 6, 7)] == [None] * 3
    outcome = agreement.advance(8, lambda _: None)
    assert outcome is not None
    assert outcome.verdict.commit
    assert agreement.idle


def test_without_an_answer_nothing_is_applied_and_steering_is_over() -> None:
    agreement = Agreement(DumbBallots(), patience=0.5)
    agreement.propose(Proposal(8, "x"))
    assert agreement.advance(7, lambda _: None) is None
    outcome = agreement.advance(8, lambda _: None)
    assert outcome is not None
    assert outcome.verdict == Verdict("lost", "no answer about d/1 within 0.5 s")
    assert agreement.over
    assert not agreement.idle
    assert agreement.advance(9, lambda _: None) is None


def test_a_rank_that_leaves_takes_its_word_back_where_nothing_stands_yet() -> None:
    ballots = DumbBallots()
    agreement = Agreement(ballots)
    agreement.propose(Proposal(8, "x"))
    agreement.advance(7, lambda _: None)
    assert agreement.leave() == Proposal(8, "x")
    ballots.silent = False
    assert ballots.value("d/1") == "left: rank 0 left the run"


def test_a_preparation_that_fails_says_its_class_and_its_rank() -> None:
    def prepare() -> None:
        raise ValueError("no such thing")

    assert all_or_none(LocalBallots(), "t/1", prepare, 1.0) == Verdict("refused", "ValueError: no such thing (rank 0)")


def test_ranks_without_torch_distributed_cannot_agree_and_say_so() -> None:
    with pytest.raises(BallotsLost, match=r"2 ranks, but torch.distributed offers no store"):
        find_ballots("x", 0, 2)


def test_a_store_that_never_answers_holds_nobody_up() -> None:
    """A rank that was late to connect, and whose rank 0 is dead by then."""
    never = threading.Event()
    try:
        ballots = StoreBallots(never.wait, "run", rank=1, voters=2)
        ballots.post("d/1", COMMIT)
        assert ballots.value("d/1") is None
        assert ballots.wait("d/1", within=0.05) is None
        ballots.close(within=0.05)
    finally:
        never.set()


def test_the_margin_covers_the_time_that_words_take_and_doubles_at_each_try() -> None:
    seconds = iter([0.0, 0.01, 0.02, 0.03, 0.04])
    pace = StepPace(clock=lambda: next(seconds))
    assert pace.margin(1.0, 0) == 3
    for _ in range(5):
        pace.note()
    assert pace.margin(0.2, 0) == pytest.approx(21, abs=1)
    assert pace.margin(0.2, 2) == pace.margin(0.2, 0) * 4
    assert pace.margin(0.001, 0) == 3
