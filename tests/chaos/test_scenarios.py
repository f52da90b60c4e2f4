"""Every scenario ends as if nothing had happened: the log, the archive and the decisions are whole, each thing once.

The rows go to `build/chaos.json`. What an undisturbed governor would have decided is what `replay` makes of the log.
"""

from contextlib import closing
from pathlib import Path

import pytest

from pilothouse.cli.brokers import LocalBroker
from pilothouse.tests.broker_fixture import NewBroker
from pilothouse.tests.dying_worker import feeding
from pilothouse.tests.endpoint_fixture import NewEndpoint

from .ledger import Row, recorded
from .scenarios import PACE, SCENARIOS, Scenario
from .stage import Stage

pytestmark = pytest.mark.chaos_long


def play(scenario: Scenario, broker: LocalBroker, new_endpoint: NewEndpoint, folder: Path) -> Row:
    made = Stage(broker, new_endpoint, folder, disorderly=scenario.disorderly, small_disk=scenario.small_disk)
    with closing(made) as stage:
        stage.start(scenario.faults)
        with feeding(stage.trainers.sends(), per_second=PACE) as stage.sent:
            injected = scenario.strike(stage)
        stage.settle()
        return stage.judge(scenario.name, injected)


@pytest.mark.parametrize(
    "scenario, new_broker",
    [pytest.param(one, kind, id=f"{one.name}, {kind}") for one in SCENARIOS for kind in one.brokers],
    indirect=["new_broker"],
)
def test_nothing_is_lost_doubled_or_out_of_bounds_and_decisions_are_those_of_an_undisturbed_run(
    scenario: Scenario, new_broker: NewBroker, new_endpoint: NewEndpoint, tmp_path: Path
) -> None:
    broker = new_broker()
    row = recorded(scenario.name, broker.name, lambda: play(scenario, broker, new_endpoint, tmp_path))
    assert row.passed, row
