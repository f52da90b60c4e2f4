from itertools import combinations

import pytest

from pilothouse.cli.gameday.cards import CARDS, LATE_SECONDS, PROMPT_SECONDS, Card, Done, Said, named, score

BY_HARM: dict[str, Card] = {card.harm: card for card in CARDS}
RATE = BY_HARM["learning rate"]


def test_what_is_seen_and_done_at_once_and_nothing_else_gets_all_points() -> None:
    got = score(RATE, [Said(20.0, "the learning rate is off")], [Done(40.0, "stop", "diverged")])
    assert (got.points, got.most) == (100, 100)
    assert (got.seen_after, got.done_after, got.wrong_answers, got.needless_orders) == (20.0, 40.0, 0, 0)


def test_late_is_worth_less_and_never_is_worth_nothing() -> None:
    points = [
        score(RATE, [Said(after, "lr")], [Done(after, "stop")]).points
        for after in (PROMPT_SECONDS, 150.0, LATE_SECONDS, 10 * LATE_SECONDS)
    ]
    assert points == sorted(points, reverse=True)
    assert points[0] == 100
    assert points[2] == points[3] == 10 + 17 + 13
    assert score(RATE, [], []).points == 0


def test_guesses_and_needless_orders_cost() -> None:
    guessed = score(RATE, [Said(5.0, "the archive"), Said(9.0, "the lr")], [Done(30.0, "stop")])
    assert (guessed.points, guessed.wrong_answers) == (90, 1)
    meddled = score(RATE, [Said(9.0, "the lr")], [Done(20.0, "resume"), Done(30.0, "stop")])
    assert (meddled.points, meddled.needless_orders) == (90, 1)
    early = score(RATE, [Said(-3.0, "the lr"), Said(9.0, "the lr")], [Done(-2.0, "stop")])
    assert (early.wrong_answers, early.needless_orders, early.done_after) == (1, 1, None)


def test_where_the_stack_helps_itself_nothing_need_be_done_and_what_is_done_is_needless() -> None:
    card = BY_HARM["archive killed"]
    assert score(card, [Said(30.0, "the archive is gone")], []).points == score(card, [], []).most == 60
    assert score(card, [Said(30.0, "the archive is gone")], [Done(40.0, "stop")]).points == 50


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.harm)
def test_every_harm_can_be_named_and_its_own_name_names_no_other(card: Card) -> None:
    assert any(named(card, word) for word in card.words)
    assert named(card, f"I think: {card.words[0].upper()} again")
    assert not named(card, "something")


def test_no_two_cards_share_a_word() -> None:
    assert not [
        set(one.words) & set(other.words) for one, other in combinations(CARDS, 2) if set(one.words) & set(other.words)
    ]
