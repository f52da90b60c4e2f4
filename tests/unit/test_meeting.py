"""How ranks learn who they are: from rank 0 of their own launch, over a real store that has words of an older one."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from pilothouse.events.errors import UserMistake
from pilothouse.producers import beginning
from pilothouse.producers.beginning import begin
from pilothouse.producers.ranks import meeting
from pilothouse.producers.ranks.context import Lineage, Place
from pilothouse.producers.ranks.meeting import Host, Meeting, Shared

WORLD = 4


@pytest.fixture
def shared() -> Shared:
    import torch.distributed as dist

    return Shared(dist.HashStore(), "pilothouse/here", of_launcher=False)  # type: ignore[attr-defined]  # not in __all__


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    opened: list[Host] = []
    yield opened
    for host in opened:
        host.end()
        host._thread.join(10)
        assert not host._thread.is_alive()


class Asker(threading.Thread):
    """A rank that asks at once."""

    def __init__(self, shared: Shared, rank: int) -> None:
        super().__init__(daemon=True)
        self.rank, self.meeting = rank, Meeting("gpt", 1, shared, WORLD)
        self.heard: Lineage | None = None
        self.start()

    def run(self) -> None:
        self.heard = self.meeting.ask(self.rank)


def heard(askers: list[Asker]) -> list[Lineage | None]:
    for asker in askers:
        asker.join(30)
    return [asker.heard for asker in askers]


def test_whoever_asks_before_or_after_rank_zero_has_begun_hears_it(shared: Shared, hosts: list[Host]) -> None:
    """And rank 0 waits for nobody, also where nobody ever asks."""
    soon = [Asker(shared, rank) for rank in (1, 2)]
    told = Lineage("gpt-1", "a", 1)
    hosts.append(Meeting("gpt", 1, shared, WORLD).host(told))
    assert heard(soon) == [told, told]
    hosts[0].close()
    assert heard([Asker(shared, 3)]) == [told], "also when rank 0's run is over already"
    hosts[0]._thread.join(10)
    assert not hosts[0]._thread.is_alive(), "everybody has heard"


def test_no_rank_believes_what_an_older_launch_left_in_its_place(shared: Shared, hosts: list[Host]) -> None:
    old = Meeting("gpt", 1, shared, WORLD).host(Lineage("gpt-1", "old", 1))
    assert heard([Asker(shared, 1)]) == [Lineage("gpt-1", "old", 1)]
    unanswered = Meeting("gpt", 1, shared, WORLD)
    old.end()
    unanswered._store.set(unanswered._place + "question/2", "of a rank that died waiting")
    askers = [Asker(shared, rank) for rank in (1, 2, 3)]
    deadline = time.monotonic() + 30
    while shared.store.add("pilothouse/here/gpt/1/asked", 0) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [asker.heard for asker in askers] == [None] * 3
    now = Meeting("gpt", 1, shared, WORLD)
    assert now.before() == Lineage("gpt-1", "old", 1)
    told = Lineage("gpt-1", "new", 2)
    hosts.append(now.host(told))
    assert heard(askers) == [told] * 3


def test_who_has_heard_leaves_nothing_behind(shared: Shared, hosts: list[Host]) -> None:
    hosts.append(Meeting("gpt", 1, shared, WORLD).host(Lineage("gpt-1", "a", 1)))
    before = shared.store.num_keys()
    heard([Asker(shared, rank) for rank in (1, 2, 3)])
    assert shared.store.num_keys() <= before + 2, "the two counters"


@pytest.fixture
def nobody_answers(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(meeting, "AGREE_SECONDS", 0.05)
    monkeypatch.setattr(beginning, "shared_store", lambda _environ: shared)


@pytest.mark.usefixtures("nobody_answers")
def test_a_rank_that_asks_in_vain_goes_by_its_launcher_where_that_names_the_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="pilothouse"):
        alone = begin("gpt", "job-1", Place(2, WORLD), {"MASTER_PORT": "1"})
    assert (alone.identity.run_id, alone.identity.attempt) == ("job-1", 1)
    (record,) = caplog.records
    assert "for rank 0 to call start_run('gpt')" in record.getMessage()


@pytest.mark.usefixtures("nobody_answers")
def test_a_rank_that_asks_in_vain_and_has_no_run_id_is_told_what_to_do() -> None:
    with pytest.raises(UserMistake, match="call it on rank 0 too"):
        begin("gpt", None, Place(2, WORLD), {})


def test_a_restart_of_a_run_that_nobody_named_is_the_same_run_only_in_the_launchers_own_store(
    shared: Shared, hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    for of_launcher in (True, True, False):
        monkeypatch.setattr(beginning, "_calls", Counter())  # as a new process
        here = shared._replace(of_launcher=of_launcher)
        monkeypatch.setattr(beginning, "shared_store", lambda _environ, here=here: here)
        began = begin("gpt", None, Place(0, WORLD), {})
        assert isinstance(began.host, Host)
        hosts.append(began.host)
        runs.append(began)
    first, again, other = (one.identity for one in runs)
    assert (again.run_id, again.attempt, runs[1].reason, runs[1].parent) == (
        first.run_id, 2, "restart", first.attempt_id)  # fmt: skip
    assert other.run_id != first.run_id
    assert (other.attempt, runs[2].reason) == (1, "start")
