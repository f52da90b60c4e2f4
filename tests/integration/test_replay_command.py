"""`pilothouse replay` and `pilothouse backtest` on a real archive: what they print, and with which status they end."""

import json
import math
from pathlib import Path

import pytest

from pilothouse.tests.archived_runs import RunArchive
from pilothouse.tests.endpoint_fixture import EndpointProcess
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.run_builder import quiet_loss
from pilothouse.tests.stack_fixture import refused, typed


def broken(position: int, step: int, rank: int) -> float:
    return math.nan if 60 <= position < 63 else quiet_loss(step, rank)


def run_of(name: str, *, ends: bool = True, **fields: object) -> GovernedRun:
    run = GovernedRun(world=2, run_id=name, **fields).begin().train(100, steps_per_tick=2)  # type: ignore[arg-type]
    return run.end() if ends else run


@pytest.fixture(scope="module")
def archive(endpoint: EndpointProcess, tmp_path_factory: pytest.TempPathFactory) -> RunArchive:
    kept = RunArchive(endpoint, tmp_path_factory.mktemp("home"))
    kept.keep(run_of("saved", loss=broken))
    kept.keep(run_of("quiet"))
    kept.keep(run_of("going-on", ends=False))
    holed = run_of("holed", loss=broken)
    at = [place.offset for place, event in holed.records if event.kind == "step_batch"][130]
    kept.keep(holed, without_offset=at)
    return kept


def test_a_whole_archived_run_is_proven(archive: RunArchive) -> None:
    answer = archive.cli("replay", "saved", "--json")
    assert (answer.returncode, answer.stderr) == (0, ""), answer.stdout
    said = json.loads(answer.stdout)
    assert (said["same"], said["not_proven"], said["ended"]) == (True, [], True)
    assert said["same_decisions"] == said["decisions"] > 10
    assert "bit for bit" in archive.cli("replay", "saved").stdout


def test_a_run_that_goes_on_is_proven_as_far_as_it_is_archived(archive: RunArchive) -> None:
    answer = archive.cli("replay", "going")
    assert answer.returncode == 0, answer.stdout
    assert "as far as the archive has them" in answer.stdout


def test_a_log_with_a_hole_names_the_first_decision_that_differs(archive: RunArchive) -> None:
    answer = archive.cli("replay", "holed", "--json")
    assert answer.returncode == 1
    said = json.loads(answer.stdout)
    assert said["difference"]["number"] == said["same_decisions"] + 1
    assert said["difference"]["place"][0] == 0
    assert any("records are missing in the log" in line for line in said["not_proven"])
    assert f"decision {said['difference']['number']} is the first that differs" in archive.cli("replay", "holed").stdout


def test_a_run_that_nobody_knows_is_a_mistake(archive: RunArchive) -> None:
    assert "did you mean saved?" in refused(archive.cli("replay", "savd"))


def test_without_an_archive_it_is_said_how_to_start_one(tmp_path: Path, archive: RunArchive) -> None:
    nowhere = {"PILOTHOUSE_CLICKHOUSE_URL": "http://127.0.0.1:9/pilothouse"}
    assert "pilothouse up" in refused(typed("replay", "saved", data_dir=tmp_path, more=nowhere))
