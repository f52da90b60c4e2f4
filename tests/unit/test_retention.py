"""What is removed when another checkpoint was saved, and what never is."""

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.producers.checkpoints.retention import Judgement, Kept, Retention

NOBODY = Judgement()


def kept(*steps: int, **other: bool) -> list[Kept]:
    return [Kept(f"c{step}", step, 10, **other) for step in steps]


def gone(retention: Retention, known: list[Kept], judged: Judgement = NOBODY) -> list[int]:
    return [one.step for one in retention.doomed(known, judged)]


def test_the_newest_stay() -> None:
    assert gone(Retention(2), kept(10, 20, 30, 40)) == [10, 20]
    assert gone(Retention(2), kept(10)) == gone(Retention(2), []) == []


def test_what_the_governor_called_good_stays_however_many_are_saved_after_it() -> None:
    assert gone(Retention(2), kept(10, 20, 30, 40, 50, 60), Judgement(good=(10, 30))) == [20, 40]


def test_while_a_run_is_suspect_the_newest_from_before_it_stays() -> None:
    assert gone(Retention(1), kept(10, 20, 30, 40), Judgement(suspect_since=30)) == [10, 30]


def test_the_last_one_up_to_the_lowest_validation_loss_stays() -> None:
    assert gone(Retention(2), kept(10, 20, 30, 40, 50, 60), Judgement(best=34)) == [10, 20, 40]
    assert gone(Retention(1, max_bytes=1), kept(10, 20, 30, 40), Judgement(best=20)) == [10, 30]


def test_what_somebody_has_damaged_is_no_good_one_and_the_one_before_it_is_kept_instead() -> None:
    known = [*kept(10, 20), *kept(30, whole=False), *kept(40, 50)]
    assert gone(Retention(1), known, Judgement(suspect_since=35)) == [10, 30, 40]
    assert gone(Retention(1), known, Judgement(good=(20, 30))) == [10, 30, 40]


def test_of_a_step_that_came_twice_the_newest_that_was_not_given_up_is_the_good_one() -> None:
    known = [Kept("old", 20, 10, abandoned=True), Kept("new", 20, 10), *kept(30)]
    assert [one.name for one in Retention(1).doomed(known, Judgement(good=(20,)))] == ["old"]


def test_some_stay_for_good_where_that_was_asked() -> None:
    assert gone(Retention(1, keep_every=20), kept(10, 20, 30, 40, 50)) == [10, 30]


def test_what_a_rollback_gave_up_takes_no_room_from_what_is_left() -> None:
    known = [*kept(10), *kept(20, 30, abandoned=True), *kept(40)]
    assert gone(Retention(2), known) == [20, 30]
    assert gone(Retention(3), known) == [20]


def test_the_disk_is_bounded_oldest_first_and_what_a_rollback_may_want_is_not_the_price() -> None:
    known = kept(10, 20, 30, 40, 50)
    assert gone(Retention(5, max_bytes=30), known) == [10, 20]
    assert gone(Retention(5, keep_every=10, max_bytes=30), known) == [10, 20]
    assert gone(Retention(5, max_bytes=30), known, Judgement(good=(10,))) == [20, 30]
    assert gone(Retention(5, max_bytes=1), known, Judgement(good=(10,), suspect_since=45)) == [20, 30]


KEPT = st.builds(Kept, st.uuids().map(str), st.integers(0, 9), st.integers(1, 50), st.booleans(), st.booleans())
RETENTION = st.builds(Retention, st.integers(1, 4), st.none() | st.integers(1, 4), st.none() | st.integers(1, 100))
JUDGED = st.builds(
    Judgement, st.lists(st.integers(0, 9), max_size=2).map(tuple), st.none() | st.integers(0, 12),
    st.none() | st.integers(0, 12),
)  # fmt: skip


@given(st.lists(KEPT, max_size=12, unique_by=lambda one: one.name), RETENTION, JUDGED)
def test_whatever_is_there_a_rollback_finds_what_it_wants_and_the_bound_holds_for_the_rest(
    known: list[Kept], retention: Retention, judged: Judgement
) -> None:
    doomed = retention.doomed(known, judged)
    left = [one for one in known if one not in doomed]
    usable = [one for one in known if one.whole and not one.abandoned]
    before = [one for one in usable if judged.suspect_since is not None and one.step < judged.suspect_since]
    up_to_best = [one for one in usable if judged.best is not None and one.step <= judged.best]
    wanted = {known[-1].name} if known else set()
    for found in [before, up_to_best, *([one for one in usable if one.step == step] for step in judged.good)]:
        wanted |= {one.name for one in found[-1:]}
    assert wanted <= {one.name for one in left}
    if retention.max_bytes is not None and sum(one.size_bytes for one in left) > retention.max_bytes:
        assert {one.name for one in left} == wanted
