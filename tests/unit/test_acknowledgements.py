import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.stream_processors.acknowledgements import Delivery, Position


def test_records_in_order_are_acknowledged_up_to_what_is_done() -> None:
    position = Position(committed=7)
    assert [position.deliver(offset) for offset in (7, 8, 9)] == [Delivery.NEXT] * 3
    assert position.done(9) == 9
    assert position.done(10) == 10


def test_nothing_new_is_acknowledged_twice() -> None:
    position = Position(committed=7)
    position.deliver(7)
    assert position.done(8) == 8
    assert position.done(8) is None


def test_what_was_never_delivered_cannot_be_acknowledged() -> None:
    position = Position(committed=None)
    with pytest.raises(ValueError, match="acknowledged"):
        position.done(1)
    position.deliver(3)
    with pytest.raises(ValueError, match="acknowledged"):
        position.done(5)


def test_a_record_that_skips_others_is_a_hole_until_it_is_accepted() -> None:
    position = Position(committed=7)
    assert position.deliver(9) is Delivery.HOLE
    assert position.deliver(7) is Delivery.NEXT
    assert position.deliver(9) is Delivery.HOLE
    position.accept_hole(9)
    assert position.deliver(9) is Delivery.NEXT
    assert position.done(10) == 10


def test_a_record_that_comes_again_is_told_apart() -> None:
    position = Position(committed=7)
    position.deliver(7)
    assert position.deliver(7) is Delivery.REPEATED
    assert position.deliver(3) is Delivery.REPEATED


def test_a_group_that_never_committed_begins_wherever_the_log_begins() -> None:
    position = Position(committed=None)
    assert position.deliver(41) is Delivery.NEXT
    assert not position.whole


@pytest.mark.parametrize("committed", [None, 0])
def test_a_log_read_from_its_first_record_is_known_to_be_whole(committed: int | None) -> None:
    position = Position(committed)
    position.deliver(0)
    position.deliver(1)
    assert position.whole
    assert position.deliver(5) is Delivery.HOLE
    position.accept_hole(5)
    assert not position.whole


@given(st.lists(st.integers(min_value=0, max_value=12)), st.integers(min_value=0, max_value=3))
def test_whatever_the_client_delivers_no_offset_is_acknowledged_before_all_below_it_were_delivered(
    offsets: list[int], committed: int
) -> None:
    position = Position(committed)
    seen = set(range(committed))
    for offset in offsets:
        if position.deliver(offset) is not Delivery.HOLE:
            seen.add(offset)
        acknowledged = position.done(position.next_offset or 0)
        assert acknowledged is None or seen >= set(range(acknowledged))
