"""What the supervisor decides, on virtual time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.cli.supervision import (
    LONGEST_PAUSE,
    READERS,
    STEADY_SECONDS,
    Deed,
    Part,
    Past,
    Sight,
    Step,
    ended,
    next_epoch,
    pause_after,
    plan,
    started,
)

NOW = 1_000.0
ADVISOR = Part.ADVISOR
WELL = {part: Sight.RUNNING for part in Part if part is not ADVISOR}
ASKING = WELL | {ADVISOR: Sight.RUNNING}
FRESH = {part: Past(started_at=NOW - 5, ended_at=NOW, deaths=1) for part in Part}

STOP, START, PREPARE = Deed.STOP, Deed.START, Deed.PREPARE
BROKER, ARCHIVE, GOVERNOR, ARCHIVER = Part.BROKER, Part.ARCHIVE, Part.GOVERNOR, Part.ARCHIVER


def steps(*pairs: tuple[Deed, Part]) -> tuple[Step, ...]:
    return tuple(Step(*pair) for pair in pairs)


def test_nothing_is_done_while_everything_runs() -> None:
    assert plan(NOW, WELL, FRESH) == ()


@pytest.mark.parametrize("part", [ARCHIVE, Part.CONTROL_ROOM, GOVERNOR, ARCHIVER])
def test_what_died_alone_is_started_again_alone(part: Part) -> None:
    assert plan(NOW, WELL | {part: Sight.DEAD}, FRESH) == steps((START, part))


def test_a_broker_that_died_takes_its_workers_along_and_they_come_back_behind_it() -> None:
    assert plan(NOW, WELL | {BROKER: Sight.DEAD}, FRESH) == steps(
        (STOP, GOVERNOR), (STOP, ARCHIVER), (START, BROKER), (PREPARE, BROKER), (START, GOVERNOR), (START, ARCHIVER)
    )


def test_an_advisor_is_kept_running_where_there_is_one_and_missed_nowhere_else() -> None:
    assert plan(NOW, ASKING | {ADVISOR: Sight.DEAD}, FRESH) == steps((START, ADVISOR))
    assert plan(NOW, WELL, FRESH) == ()
    down = plan(NOW, ASKING | {BROKER: Sight.DEAD}, FRESH)
    assert (down[2], down[-1]) == ((STOP, ADVISOR), (START, ADVISOR))


def test_a_broker_that_answers_no_more_is_stopped_first() -> None:
    assert plan(NOW, WELL | {BROKER: Sight.STUCK}, FRESH)[:4] == steps(
        (STOP, GOVERNOR), (STOP, ARCHIVER), (STOP, BROKER), (START, BROKER)
    )


def test_workers_never_wait_for_their_own_backoff_when_it_was_the_broker_that_died() -> None:
    seen = {BROKER: Sight.DEAD, ARCHIVE: Sight.RUNNING, GOVERNOR: Sight.DEAD, ARCHIVER: Sight.DEAD}
    past = FRESH | {GOVERNOR: Past(NOW - 1, NOW, deaths=9)}
    assert plan(NOW, seen, past) == steps((START, BROKER), (PREPARE, BROKER), (START, GOVERNOR), (START, ARCHIVER))


def test_while_the_broker_must_wait_its_workers_are_down() -> None:
    past = FRESH | {BROKER: Past(NOW - 1, NOW, deaths=5)}
    assert plan(NOW, WELL | {BROKER: Sight.DEAD}, past) == steps((STOP, GOVERNOR), (STOP, ARCHIVER))
    down = WELL | {BROKER: Sight.DEAD, GOVERNOR: Sight.DEAD, ARCHIVER: Sight.DEAD}
    assert plan(NOW, down, past) == ()


def test_a_worker_that_makes_no_progress_is_stopped_and_started() -> None:
    assert plan(NOW, WELL | {ARCHIVER: Sight.STUCK}, FRESH) == steps((STOP, ARCHIVER), (START, ARCHIVER))


def test_the_archive_does_not_wait_for_the_broker() -> None:
    seen = WELL | {BROKER: Sight.DEAD, ARCHIVE: Sight.DEAD}
    past = FRESH | {BROKER: Past(NOW - 1, NOW, deaths=5)}
    assert Step(START, ARCHIVE) in plan(NOW, seen, past)


def test_a_part_that_keeps_dying_is_started_ever_later_and_reported() -> None:
    past, now, pauses = Past(), NOW, []
    for _ in range(12):
        past = ended(started(past, now), now + 1)
        pauses.append(past.due_at - past.ended_at)
        now = past.due_at
    assert pauses[:4] == [0.0, 0.5, 1.0, 2.0]
    assert pauses[-1] == LONGEST_PAUSE
    assert past.keeps_dying


def test_a_part_that_lived_long_is_not_suspected() -> None:
    past = ended(started(Past(deaths=7), NOW), NOW + STEADY_SECONDS)
    assert past.deaths == 1
    assert past.due_at == past.ended_at


@given(st.integers(0, 10_000))
def test_no_pause_is_longer_than_the_longest(deaths: int) -> None:
    assert 0.0 <= pause_after(deaths) <= LONGEST_PAUSE


@given(
    st.fixed_dictionaries({part: st.sampled_from(Sight) for part in Part}),
    st.fixed_dictionaries({part: st.builds(Past, st.just(NOW - 1), st.just(NOW), st.integers(0, 6)) for part in Part}),
)
def test_no_worker_is_ever_started_without_a_broker_before_it(seen: dict[Part, Sight], past: dict[Part, Past]) -> None:
    there = seen[BROKER] is Sight.RUNNING
    running = {part for part in Part if seen[part] is not Sight.DEAD}
    for deed, part in plan(NOW, seen, past):
        if deed is STOP:
            running.discard(part)
        elif deed is START:
            assert part not in running, "a second one beside the first"
            running.add(part)
            there = there or part is BROKER
            assert there or part in (BROKER, *READERS)


def test_a_log_that_is_the_same_keeps_its_epoch_and_any_other_gets_a_greater_one() -> None:
    assert next_epoch(0, "", "a", archived_epoch=0) == 1
    assert next_epoch(1, "a", "a", archived_epoch=1) == 1
    assert next_epoch(1, "a", "b", archived_epoch=1) == 2
    assert next_epoch(0, "", "b", archived_epoch=7) == 8
