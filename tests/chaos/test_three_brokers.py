"""Three brokers, `min.insync.replicas=2`: any one dies, then the leader again and again, and nobody notices."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pilothouse.events.topics import TELEMETRY
from pilothouse.tests.dying_worker import feeding
from pilothouse.tests.endpoint_fixture import NewEndpoint

from .ledger import Row, recorded
from .scenarios import PACE
from .stage import Stage
from .three_brokers import IDS, ThreeBrokers

LEADERS = 3
Strike = Callable[[ThreeBrokers, Stage], int]

pytestmark = pytest.mark.chaos_long


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ThreeBrokers]:
    brokers = ThreeBrokers(tmp_path)
    try:
        brokers.start()
        yield brokers
    finally:
        brokers.kill()


def any_one_dies(cluster: ThreeBrokers, stage: Stage) -> int:
    for one in IDS:
        cluster.kill_one(one)
        stage.until_runs_end(2)
        cluster.start_one(one)
    return len(IDS)


def the_leader_dies(cluster: ThreeBrokers, stage: Stage) -> int:
    for number in range(LEADERS):
        leader = cluster.leader(TELEMETRY.name, number)
        cluster.kill_one(leader)
        stage.until_runs_end(2)
        cluster.start_one(leader)
    return LEADERS


@pytest.mark.parametrize(
    "scenario, strike",
    [("any one of three brokers SIGKILL", any_one_dies), ("the leader SIGKILL again and again", the_leader_dies)],
    ids=["any one", "the leader"],
)
def test_nothing_is_lost_or_doubled(
    scenario: str, strike: Strike, cluster: ThreeBrokers, new_endpoint: NewEndpoint, tmp_path: Path
) -> None:  # fmt: skip
    def play() -> Row:
        with closing(Stage(cluster, new_endpoint, tmp_path, environ={"PILOTHOUSE_REPLICATION": "3"})) as stage:
            stage.start()
            with feeding(stage.trainers.sends(), per_second=PACE) as stage.sent:
                injected = strike(cluster, stage)
            return stage.judge(scenario, injected)

    row = recorded(scenario, cluster.name, play)
    assert row.passed, row
