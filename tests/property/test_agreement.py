"""Whatever the order in which ranks act and words arrive: no rank applies what another does not."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.producers.ranks.agreement import Agreement, Proposal
from pilothouse.tests.slow_ballots import Registers, SlowBallots


@dataclass
class Rank:
    """A rank in the simulation: where it stands and how each proposal ended for it."""

    ballots: SlowBallots
    agreement: Agreement
    stride: int
    step: int = 0
    ends: dict[str, tuple[str, int]] = field(default_factory=dict)

    def safe_point(self, refuses: set[str]) -> None:
        self.step += self.stride
        outcome = self.agreement.advance(self.step, lambda proposal: "no" if proposal.body in refuses else None)
        if outcome is not None:
            assert outcome.proposal.body not in self.ends
            self.ends[outcome.proposal.body] = (outcome.verdict.kind, self.step)


def crew(size: int, stride: int = 1) -> list[Rank]:
    registers = Registers()
    views = [SlowBallots(registers, rank, size) for rank in range(size)]
    return [Rank(view, Agreement(view), stride) for view in views]


def propose(captain: Rank, margin: int) -> None:
    if captain.agreement.idle:
        body = f"intervention at {captain.step} + {margin}"
        captain.agreement.propose(Proposal(captain.step + margin, body))


def check(ranks: list[Rank]) -> None:
    """No proposal was applied by one rank and given up by another; and nobody applied it before its step, or long
    after.
    """
    for body in {body for rank in ranks for body in rank.ends}:
        ends = [rank.ends[body] for rank in ranks if body in rank.ends]
        assert len({kind == "commit" for kind, _ in ends}) == 1, ends
        start, margin = (int(number) for number in body.removeprefix("intervention at ").split(" + "))
        for rank in ranks:
            kind, step = rank.ends.get(body, ("", 0))
            if kind == "commit":
                assert start + margin <= step < start + margin + rank.stride


ONE_RANK = ["step", "say", "hear", "propose", "die", "refuse"]
ALL_RANKS = ["all step", "all say", "all hear"]
EVENTS = st.tuples(st.sampled_from(ONE_RANK + ALL_RANKS), st.integers(0, 3), st.integers(1, 6))


def happen(what: str, rank: Rank, refuses: set[str], captain: Rank) -> None:
    match what:
        case "step":
            rank.safe_point(refuses)
        case "say":
            rank.ballots.let_one_out()
        case "hear":
            rank.ballots.listen()
        case "refuse":
            refuses |= {f"intervention at {captain.step} + {margin}" for margin in range(1, 9)}
        case _:
            raise AssertionError(what)


@settings(max_examples=1_000)
@given(st.integers(1, 4), st.lists(EVENTS, min_size=10, max_size=80))
def test_no_rank_applies_what_another_does_not(size: int, events: list[tuple[str, int, int]]) -> None:
    ranks = crew(size)
    living = set(range(size))
    refuses: list[set[str]] = [set() for _ in ranks]
    propose(ranks[0], 3)
    for what, chosen, margin in events:
        if what == "propose" and 0 in living:
            propose(ranks[0], margin)
        elif what == "die":
            living -= {chosen} if margin == 6 else set()
        elif what != "propose":
            for number in living & (set(range(size)) if what in ALL_RANKS else {chosen % size}):
                happen(what.removeprefix("all "), ranks[number], refuses[number], ranks[0])
        check(ranks)


@given(st.integers(1, 5), st.integers(1, 3), st.lists(st.integers(0, 4), max_size=12), st.integers(3, 6))
def test_ranks_that_live_and_hear_in_time_all_apply_at_the_same_step(
    size: int, stride: int, order: list[int], margin: int
) -> None:
    """Steps in lockstep, in any order of the ranks within a step; every word arrives within a step."""
    ranks = crew(size, stride)
    propose(ranks[0], margin * stride)
    for _ in range(margin + 2):
        for number in (*(n % size for n in order), *range(size)):
            ranks[number].ballots.let_one_out()
            ranks[number].ballots.listen()
        for rank in ranks:
            rank.safe_point(set())
    assert [set(rank.ends.values()) for rank in ranks] == [{("commit", margin * stride)}] * size


@given(st.integers(2, 4), st.integers(1, 3))
def test_a_rank_that_refuses_or_is_silent_stops_it_for_all(size: int, odd: int) -> None:
    for silent in (False, True):
        ranks = crew(size)
        propose(ranks[0], 3)
        for _ in range(10):
            for number, rank in enumerate(ranks):
                rank.ballots.let_one_out()
                if not (silent and number == odd % size):
                    rank.ballots.listen()
                    rank.safe_point({"intervention at 0 + 3"} if number == odd % size else set())
        assert {kind for rank in ranks for kind, _ in rank.ends.values()} == ({"late"} if silent else {"refused"})
